"""A part of datasets that fits into memory, in the shape of a prepared corpus: what validation and evaluation look at.

Documents are drawn without repetition, in shares by weight, the same whenever the same is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phalanx.data import draws
from phalanx.data.corpus import Corpus, CorpusManifest, Split, SplitCounts
from phalanx.data.dataset import Dataset, Documents
from phalanx.data.errors import TextTooSmall
from phalanx.data.stream_order import DocumentOrder
from phalanx.data.vocabulary import Vocabulary
from phalanx.job.spec import Objective

# Of the training text what baselines are counted on, with something over, so that they say it is not the whole.
TRAIN_TOKENS = (1 << 24) + (1 << 20)
HELD_OUT_TOKENS = 1 << 22


@dataclass(frozen=True)
class SampledCorpus(Corpus):
    """A corpus whose documents have no names but their numbers."""

    def names(self, split: str) -> list[str]:
        return [f"document {number}" for number in range(self.split(split).documents)]


def sample(
    sources: Sequence[Documents],
    weights: Sequence[float],
    vocabulary: Vocabulary,
    objective: Objective,
    tokens: int,
    seed: int,
) -> Split:
    """Whole documents of at least `tokens` tokens together, or all that there are; end marks after them for causal-lm.

    Raises TextTooSmall when there are none, DatasetDamaged.
    """
    filled = [number for number, source in enumerate(sources) if len(source)]
    if not filled:
        raise TextTooSmall("there are no such documents")
    order = DocumentOrder([sources[n] for n in filled], [weights[n] for n in filled], seed, draws.SAMPLE)
    left, total, parts = tokens, sum(len(sources[n]) for n in filled), []
    while left > 0 and total > 0:
        coming = order.ahead(1)
        order.advance(len(coming))
        new = coming[coming["epoch"] == 0]
        new = new[: int(np.searchsorted(np.cumsum(new["tokens"]), left)) + 1]
        left -= int(new["tokens"].sum())
        total -= len(new)
        parts.append(new)
    chosen = np.concatenate(parts)
    mark = vocabulary.eos_id if objective == "causal-lm" else None
    offsets = np.cumsum([0, *(chosen["tokens"] + (mark is not None))])
    found = np.full(offsets[-1], 0 if mark is None else mark, np.int64)
    for place, number in enumerate(filled):
        own = np.flatnonzero(chosen["source"] == place)
        documents, sizes = chosen["document"][own], chosen["tokens"][own]
        sources[number].read_into(found, documents, np.zeros_like(sizes), sizes, offsets[own])
    return Split(found.astype(vocabulary.dtype), offsets)


def sampled_corpus(
    datasets: Sequence[Dataset], weights: Sequence[float], objective: Objective, seed: int, name: str
) -> SampledCorpus:
    """What an evaluation is made on: some of the training text, and some of what was held out, at random.

    Raises TextTooSmall, DatasetDamaged.
    """
    vocabulary = datasets[0].vocabulary
    splits, counts = {}, {}
    for split, tokens in (("train", TRAIN_TOKENS), ("held_out", HELD_OUT_TOKENS)):
        found = sample([data.split(split) for data in datasets], weights, vocabulary, objective, tokens, seed)
        splits[split] = found
        lengths = vocabulary.byte_lengths
        size = sum(int(lengths[found.tokens[at : at + (1 << 20)]].sum()) for at in range(0, len(found.tokens), 1 << 20))
        counts[split] = SplitCounts(found.documents, found.documents, size, len(found.tokens))
    manifest = CorpusManifest(
        digest="",
        source=name,
        objective=objective,
        vocabulary_kind=vocabulary.kind,
        vocabulary_size=vocabulary.size,
        train=counts["train"],
        held_out=counts["held_out"],
        excluded={},
    )
    return SampledCorpus(Path(datasets[0].directory), manifest, vocabulary, splits["train"], splits["held_out"])
