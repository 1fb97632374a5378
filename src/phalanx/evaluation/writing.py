"""Text out of a trained causal model, given out as soon as it is whole characters and cannot become a stop string.

A token may be part of a character; what it lacks comes with the next ones. Knows nothing of terminals: the text is the
model's own, control characters and all.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from phalanx.data import Vocabulary
from phalanx.evaluation.errors import NotADecoder, UnusablePrompt
from phalanx.evaluation.opening import check_directory
from phalanx.models import BeamSettings, GenerationSettings, ModelConfig, beam_search, generate, lay_out
from phalanx.models.causal import CausalModel
from phalanx.training import LoadedModel, OpenedModel, open_model

EndedBy = Literal["end", "stop", "length"]
AnyModel = LoadedModel | OpenedModel
_SHOWN = 30  # characters of a prompt that cannot be used


@dataclass(frozen=True)
class Passage:
    """What was written after a prompt, of `tokens` tokens, and why it ended.

    "end": the model ended the document; "stop": a stop string came, which is not in `text`; "length": it is as long as
    it may be. `score`: of a beam search.
    """

    prompt: str
    text: str
    tokens: int
    ended_by: EndedBy
    score: float | None = None


def open_writer(path: Path, rows: int) -> OpenedModel:
    """The model of a run, a checkpoint or a directory of Hugging Face's files, laid out to write `rows` texts at once:
    it can be trained and saved no more.

    Raises NotACheckpoint for what is no directory, NotADecoder, and what `open_model` raises.
    """
    check_directory(path)
    opened = open_model(path)
    lay_out(_decoder(opened), rows)
    return opened


@dataclass
class Pace:
    """How fast it went: until the first tokens, when the prompts are read, and the `tokens` that came after those."""

    reading_s: float = 0.0
    writing_s: float = 0.0
    tokens: int = 0

    @property
    def tokens_per_s(self) -> float | None:
        return self.tokens / self.writing_s if self.tokens else None


class Writing:
    """Text after each of several prompts, as (number of the prompt, piece) while it is written.

    An empty prompt begins a document. Bytes that are no UTF-8 become U+FFFD; a last character that stays unfinished is
    left out. Once all is written, `passages` tells how each text ended, in the order of the prompts, and `pace` how
    fast it went. Raises NotADecoder and UnusablePrompt at once.
    """

    def __init__(
        self, model: AnyModel, prompts: Sequence[str], settings: GenerationSettings, stop: Sequence[str] = ()
    ) -> None:
        module, vocabulary = _decoder(model), model.vocabulary
        ids = [prompt_ids(model, prompt) for prompt in prompts]
        ends = (*settings.stop, *_end(vocabulary))
        self._steps = generate(module, ids, replace(settings, stop=ends))
        self._texts = [_Text(vocabulary, prompt, stop) for prompt in prompts]
        self._max_tokens = settings.max_tokens
        self.pace = Pace()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        for tokens in self._timed():
            for row, (token, text) in enumerate(zip(tokens, self._texts, strict=True)):
                piece = text.end() if token is None else text.take(token)
                if text.stopped:
                    self._steps.end(row)
                if piece:
                    yield row, piece
        for row, text in enumerate(self._texts):
            if piece := text.end():
                yield row, piece

    def has_ended(self, row: int) -> bool:
        """Whether all of this text has been given out."""
        return self._texts[row].ended

    def _timed(self) -> Iterator[list[int | None]]:
        first = True
        while True:
            begun = time.perf_counter()
            tokens = next(self._steps, None)
            elapsed = time.perf_counter() - begun
            if first:
                self.pace.reading_s = elapsed
            else:
                self.pace.writing_s += elapsed
            if tokens is None:
                return
            self.pace.tokens += 0 if first else sum(token is not None for token in tokens)
            first = False
            yield tokens

    @property
    def passages(self) -> list[Passage]:
        return [text.passage(self._max_tokens) for text in self._texts]


def write_text(model: AnyModel, prompt: str, settings: GenerationSettings, stop: Sequence[str] = ()) -> Iterator[str]:
    """The text after one prompt, piece by piece. Raises as `Writing`, at once."""
    writing = Writing(model, [prompt], settings, stop)
    return (piece for _, piece in writing)


def search_texts(model: AnyModel, prompts: Sequence[str], settings: BeamSettings) -> list[list[Passage]]:
    """The likeliest texts after each prompt that a beam search finds, the best first.

    Raises NotADecoder, and UnusablePrompt also for a prompt that leaves no room for `max_tokens` more.
    """
    module, vocabulary = _decoder(model), model.vocabulary
    ids = [prompt_ids(model, prompt) for prompt in prompts]
    longest, limit = max(map(len, ids)), module.config.sequence_length
    if longest + settings.max_tokens > limit:
        raise UnusablePrompt(
            f"a beam search of {settings.max_tokens:,} tokens after a prompt of {longest:,}: the model reads "
            f"{limit:,} at once",
            where=str(model.path),
            remedy=f"write at most {limit - longest:,} tokens (--max-tokens), or do without beams"
            if longest < limit
            else "give the end of the prompt only, or do without beams",
        )
    found = beam_search(module, ids, replace(settings, stop=(*settings.stop, *_end(vocabulary))))
    return [
        [
            Passage(
                prompt,
                _whole_characters(_spelled(vocabulary.pieces, hypothesis.tokens)),
                len(hypothesis.tokens),
                "end" if hypothesis.ended else "length",
                hypothesis.score,
            )
            for hypothesis in hypotheses
        ]
        for prompt, hypotheses in zip(prompts, found, strict=True)
    ]


def prompt_ids(model: AnyModel, prompt: str) -> list[int]:
    """The tokens that a text begins with: of the prompt, after a mark of beginning if the vocabulary has one (GPT-2's
    has none); of an empty prompt only what stands at a document's beginning. Raises NotADecoder, UnusablePrompt."""
    limit, vocabulary = _decoder(model).config.sequence_length, model.vocabulary
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UnusablePrompt("the prompt is not UTF-8 text", remedy="give it as UTF-8") from error
    ids: list[int] = vocabulary.encode(prompt).tolist()
    if vocabulary.bos_id is not None:
        ids.insert(0, vocabulary.bos_id)
    elif not ids and vocabulary.eos_id is not None:
        ids = [vocabulary.eos_id]
    if not ids:
        raise UnusablePrompt(
            "the prompt is empty, and the vocabulary has no mark for a document's beginning or end",
            where=str(model.path),
            remedy="give a text to go on with (--prompt)",
        )
    if len(ids) > limit:
        raise UnusablePrompt(
            f"the prompt {prompt[:_SHOWN]!r}... has {len(ids):,} tokens, and the model reads {limit:,} at once",
            where=str(model.path),
            remedy="give the end of it only, or train with a larger data.sequenceLength",
        )
    return ids


class StopStrings:
    """Lets text through until one of several strings is complete, and never any part of that string.

    Of strings that are complete at the same character, the longest counts.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings, self._held, self.found = tuple(strings), "", False

    def take(self, text: str) -> str:
        """What can be given out now: what may be the beginning of a stop string is held back."""
        text = self._held + text
        ends = [(at + len(string), at) for string in self._strings if (at := text.find(string)) >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)[1]]
        held = max(
            (size for string in self._strings for size in range(1, len(string)) if text.endswith(string[:size])),
            default=0,
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


class _Text:
    """One text while it is written."""

    def __init__(self, vocabulary: Vocabulary, prompt: str, stop: Sequence[str]) -> None:
        self._pieces, self._prompt, self._stop = vocabulary.pieces, prompt, StopStrings(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._given: list[str] = []
        self._tokens = 0
        self.ended = False

    @property
    def stopped(self) -> bool:
        return self._stop.found

    def take(self, token: int) -> str:
        self._tokens += 1
        given = self._stop.take(self._decoder.decode(_spelled(self._pieces, [token])))
        self.ended = self._stop.found
        return self._give(given)

    def end(self) -> str:
        """What was held back, the first time."""
        self.ended = True
        return self._give(self._stop.rest())

    def passage(self, max_tokens: int) -> Passage:
        ended_by: EndedBy = "stop" if self.stopped else "length" if self._tokens == max_tokens else "end"
        return Passage(self._prompt, "".join(self._given), self._tokens, ended_by)

    def _give(self, text: str) -> str:
        self._given.append(text)
        return text


def _decoder(model: AnyModel) -> CausalModel:
    """Raises NotADecoder."""
    module, vocabulary = model.module, model.vocabulary
    if not isinstance(module, CausalModel):
        config: ModelConfig = module.config  # type: ignore[assignment]
        fills = config.objective in ("masked-lm", "pretraining")
        raise NotADecoder(
            f"{config.name} {'fills in masked words' if fills else 'does not go on with a text'}; it cannot write text",
            where=str(model.path),
            remedy="`phalanx evaluate` shows its guesses; to write text, name the checkpoint of a causal-lm job",
        )
    if not vocabulary.is_lossless:
        raise NotADecoder(
            "its WordPiece vocabulary loses case and space, so it cannot write text",
            where=str(model.path),
            remedy="name a model with a byte-level vocabulary, such as GPT-2's",
        )
    return module


def _end(vocabulary: Vocabulary) -> tuple[int, ...]:
    return () if vocabulary.eos_id is None else (vocabulary.eos_id,)


def _spelled(pieces: Sequence[bytes], tokens: Sequence[int]) -> bytes:
    """A model may know more tokens than its vocabulary, to make a round number of them: those spell nothing."""
    return b"".join(pieces[token] for token in tokens if token < len(pieces))


def _whole_characters(spelled: bytes) -> str:
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(spelled)
