"""Examples of what a model makes of text it never saw, for a person to read: not chosen by how well it does.

They come from held-out documents spread evenly over all of them, at places drawn with a fixed seed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from phalanx.data import Corpus, Vocabulary
from phalanx.data.stdlib import SOURCE
from phalanx.evaluation.masked import Progress
from phalanx.evaluation.writing import write_text
from phalanx.models import GenerationSettings
from phalanx.training import LoadedModel

PROMPTS, MASKED, GUESSES = 3, 12, 5
GENERATED_BYTES, TEMPERATURE = 200, 0.7
SEED = 1
_LEAST_TOKENS, _MOST_TOKENS = 8, 40
_LEAST_CHARACTERS, _MOST_CHARACTERS = 4, 100
# The first line of a function or class; in other text, of a paragraph.
_OPENING = re.compile(r"^[ \t]*(?:def|class|async def)[ \t]\w.*\n", re.MULTILINE)
_PARAGRAPH = re.compile(r"(?:\A|\n[ \t]*\n)(?=\S)(.+\n)")


def continuations(loaded: LoadedModel, corpus: Corpus, progress: Progress) -> list[dict[str, Any]]:
    """`{"prompt", "generated"}` for lines of held-out documents, and for one prompt that is always the same."""
    prompts = [*held_out_prompts(corpus, loaded.job.spec.data.sequence_length), _fixed_prompt(corpus)]
    mean_bytes = corpus.manifest.train.bytes / max(1, corpus.manifest.train.tokens)
    most = max(1, round(GENERATED_BYTES / max(mean_bytes, 0.5)))
    examples = []
    for place, prompt in enumerate(prompts):
        settings = GenerationSettings(max_tokens=most, temperature=TEMPERATURE, seed=SEED + place)
        text = "".join(write_text(loaded, prompt, settings))
        examples.append({"prompt": prompt, "generated": text})
        progress("writing", (place + 1) / len(prompts))
    return examples


def _fixed_prompt(corpus: Corpus) -> str:
    """`def ` for Python; elsewhere nothing, so that the model begins a document of its own."""
    return "def " if corpus.manifest.source == SOURCE else ""


def held_out_prompts(corpus: Corpus, limit: int) -> list[str]:
    """First lines of functions, or of paragraphs, of at most `limit` tokens: one from each of a few documents."""
    draw = np.random.default_rng(SEED)
    found: list[str] = []
    for tokens in _documents(corpus):
        text = corpus.vocabulary.decode(tokens)
        lines = [match[0] for match in _OPENING.finditer(text)] or [match[1] for match in _PARAGRAPH.finditer(text)]
        lines = [
            line
            for line in lines
            if _LEAST_CHARACTERS <= len(line) <= _MOST_CHARACTERS and len(corpus.vocabulary.encode(line)) <= limit
        ]
        if lines:
            found.append(lines[int(draw.integers(len(lines)))])
        if len(found) == PROMPTS:
            break
    return found


def masked_guesses(loaded: LoadedModel, corpus: Corpus, progress: Progress) -> list[dict[str, Any]]:
    """`{"masked", "guesses": [[piece, probability], ...], "truth"}`: the model reads what is shown, and no more."""
    vocabulary = corpus.vocabulary
    draw = np.random.default_rng(SEED)
    examples: list[dict[str, Any]] = []
    assert vocabulary.mask_id is not None, "a masked corpus has [MASK]"
    limit: int = min(_MOST_TOKENS, loaded.job.spec.data.sequence_length - 2)
    for tokens in _documents(corpus):
        sentence = np.asarray(tokens[:limit], np.int64)
        words = whole_words(vocabulary, sentence)
        if len(sentence) < min(_LEAST_TOKENS, limit) or not len(words):
            continue
        at = int(draw.choice(words))
        shown = sentence.copy()
        shown[at] = vocabulary.mask_id
        examples.append(
            {
                "masked": vocabulary.decode(shown, show_special=True),
                "guesses": _guesses(loaded, vocabulary, shown, at),
                "truth": vocabulary.token(int(sentence[at])),
            }
        )
        progress("writing", len(examples) / MASKED)
        if len(examples) == MASKED:
            break
    return examples


def whole_words(vocabulary: Vocabulary, tokens: np.ndarray[Any, np.dtype[np.int64]]) -> list[int]:
    """Places of tokens that are words of letters by themselves: no pieces of words, signs or special tokens."""
    spelled = [vocabulary.token(int(id_)) for id_ in tokens]
    following = [*spelled[1:], ""]
    return [
        place
        for place, (word, after) in enumerate(zip(spelled, following, strict=True))
        if len(word.strip()) > 1 and word.strip().isalpha() and not _goes_on(vocabulary, after)
    ]


def _goes_on(vocabulary: Vocabulary, after: str) -> bool:
    """Whether the token continues the word before it."""
    return after.startswith("##") if vocabulary.kind == "wordpiece" else after[:1].isalnum()


def _guesses(
    loaded: LoadedModel, vocabulary: Vocabulary, shown: np.ndarray[Any, np.dtype[np.int64]], at: int
) -> list[list[Any]]:
    row = torch.tensor([[vocabulary.cls_id, *shown.tolist(), vocabulary.sep_id]])
    with torch.inference_mode():
        batch = {
            "tokens": row,
            "document": torch.ones_like(row, dtype=torch.int32),
            "positions": torch.tensor([at + 1]),
        }
        logits = loaded.module.predict(batch)  # type: ignore[operator]
        best = logits[0].softmax(-1).topk(min(GUESSES, logits.shape[-1]))
    return [[vocabulary.token(int(id_)), float(p)] for p, id_ in zip(best.values, best.indices, strict=True)]


def _documents(corpus: Corpus) -> Iterator[Any]:
    """Tokens of held-out documents: an even spread first, then those between, each once."""
    text = corpus.held_out
    spread = np.linspace(0, text.documents - 1, min(text.documents, MASKED)).round().astype(int).tolist()
    for place in dict.fromkeys([*spread, *range(text.documents)]):
        yield text.tokens[text.offsets[place] : text.offsets[place + 1]]
