"""Sentences in, translations out: text to tokens, the search, and tokens to text. Knows no terminal and no scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.data import Vocabulary
from phalanx.evaluation.errors import NotATranslator, UnusablePrompt
from phalanx.models.search import Hypothesis, translate
from phalanx.models.seq2seq import Seq2Seq
from phalanx.training import OpenedModel

BATCH = 64  # sentences that are translated together


@dataclass(frozen=True)
class Translation:
    """`text` of the translation; `score`: mean log-probability of its tokens in nats; `finished`: by the model."""

    source: str
    text: str
    score: float
    finished: bool


def translate_lines(opened: OpenedModel, lines: Sequence[str], beam: int = 1) -> Iterator[Translation]:
    """The translation of each line, in order; an empty line's is empty.

    Raises NotATranslator for another kind of model, UnusablePrompt for a line that is no text.
    """
    module = translator(opened)
    for start in range(0, len(lines), BATCH):
        some = [line.strip() for line in lines[start : start + BATCH]]
        wanted = [line for line in some if line]
        sources = [source_ids(opened.vocabulary, line) for line in wanted]
        found = iter(hypotheses(module, opened.vocabulary, sources, beam))
        for line in some:
            if line:
                best = next(found)
                yield Translation(line, opened.vocabulary.decode(best.tokens).strip(), best.score, best.finished)
            else:
                yield Translation("", "", 0.0, True)


def translator(opened: OpenedModel) -> Seq2Seq:
    """Its module. Raises NotATranslator."""
    if not isinstance(opened.module, Seq2Seq):
        raise NotATranslator(
            f"{opened.config.name} was not made to translate",
            where=str(opened.path),
            remedy="name a run or checkpoint of a job with objective: translate",
        )
    return opened.module


def source_ids(vocabulary: Vocabulary, text: str) -> NDArray[np.int64]:
    """Tokens of a sentence that is to be translated, with the end mark, int64 [n]. Raises UnusablePrompt."""
    return np.append(encoded(vocabulary, text), marks(vocabulary)[1])


def encoded(vocabulary: Vocabulary, text: str) -> NDArray[np.int64]:
    """Tokens of a text that a person gave, int64 [n]. Raises UnusablePrompt for half characters."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnusablePrompt("the text is not UTF-8", remedy="give it as UTF-8") from error
    return vocabulary.encode(text).astype(np.int64)


def marks(vocabulary: Vocabulary) -> tuple[int, int]:
    """Ids of the begin and the end mark. Raises UnfitVocabulary."""
    vocabulary.check_serves("translate")
    return int(vocabulary.bos_id or 0), int(vocabulary.eos_id or 0)


def hypotheses(
    module: Seq2Seq, vocabulary: Vocabulary, sources: Sequence[NDArray[Any]], beam: int = 1
) -> list[Hypothesis]:
    """The best translation of each of `sources`, int64 [n] with the end mark; those of like lengths together."""
    begin, end = marks(vocabulary)
    found: dict[int, Hypothesis] = {}
    order = sorted(range(len(sources)), key=lambda place: len(sources[place]))
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        source, lengths = padded([sources[place] for place in places])
        best = translate(module, source, lengths, begin=begin, end=end, beam=beam)
        found.update(zip(places, best, strict=True))
    return [found[place] for place in range(len(sources))]


def padded(sequences: Sequence[NDArray[Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """As one tensor int64 [B, longest], filled up with the token 0, which nobody looks at; and their lengths."""
    lengths = [len(sequence) for sequence in sequences]
    filled = np.zeros((len(sequences), max(lengths)), np.int64)
    for row, sequence in enumerate(sequences):
        filled[row, : len(sequence)] = sequence
    return torch.from_numpy(filled), torch.tensor(lengths)
