"""Text out of a trained decoder, given out as soon as it is whole characters.

A token may be part of a character; what it lacks comes with the next ones. Knows nothing of terminals:
the text is the model's own, control characters and all.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

from phalanx.evaluation.errors import NotADecoder, UnusablePrompt
from phalanx.models import generate
from phalanx.models.decoder import Decoder
from phalanx.training import LoadedModel


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `temperature` 0: always the likeliest; `top_k` None: from all."""

    max_tokens: int = 200
    temperature: float = 0.7
    top_k: int | None = None
    seed: int = 0


def write_text(loaded: LoadedModel, prompt: str, sampling: Sampling) -> Iterator[str]:
    """The text after `prompt`, piece by piece; it ends where the model ends the document.

    An empty prompt is the beginning of a document. Bytes that are no UTF-8 become U+FFFD; a last character
    that stays unfinished is left out. Raises NotADecoder, and UnusablePrompt for a prompt that is longer
    than what the model reads at once or holds half characters.
    """
    ids = _prompt_ids(loaded, prompt)
    return _pieces(loaded, ids, sampling)


def _prompt_ids(loaded: LoadedModel, prompt: str) -> list[int]:
    where = str(loaded.path)
    module, vocabulary = loaded.module, loaded.vocabulary
    if not isinstance(module, Decoder) or vocabulary.eos_id is None:
        raise NotADecoder(
            f"{loaded.job.spec.model.name} fills in masked words; it cannot write text",
            where=where,
            remedy="`phalanx evaluate` shows its guesses; to write text, name the checkpoint of a causal-lm job",
        )
    try:
        ids: list[int] = vocabulary.encode(prompt).tolist() or [vocabulary.eos_id]
    except UnicodeEncodeError as error:
        raise UnusablePrompt("the prompt is not UTF-8 text", remedy="give it as UTF-8") from error
    limit = module.config.sequence_length
    if len(ids) > limit:
        raise UnusablePrompt(
            f"the prompt has {len(ids):,} tokens, and the model reads {limit:,} at once",
            where=where,
            remedy="give the end of it only, or train with a larger data.sequenceLength",
        )
    return ids


def _pieces(loaded: LoadedModel, ids: list[int], sampling: Sampling) -> Iterator[str]:
    module, vocabulary = loaded.module, loaded.vocabulary
    assert isinstance(module, Decoder)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in generate(
        module,
        ids,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=vocabulary.eos_id,
    ):
        text = decoder.decode(vocabulary.pieces[token])
        if text:
            yield text
