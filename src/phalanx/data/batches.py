"""What training asks of data, and gets: one rank's share of each step, step after step, from wherever it left off.

A `TrainingData` is either a small prepared corpus (`loader.Loader`), whose steps are numbered, or a stream over built
datasets (`stream.StreamLoader`). Where a run is, is its *cursor*: a small JSON value that belongs to the data, is the
same on all ranks, and means the same to any number of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phalanx.data.vocabulary import Vocabulary
from phalanx.job import JobSpec
from phalanx.job.spec import Objective

Cursor = int | dict[str, Any]


@dataclass(frozen=True)
class LoaderSpec:
    """`sequence_length` in tokens; `global_batch` in rows a step, over all workers. `cross_documents`: causal-lm:
    whether a token may be predicted from the documents before its own."""

    objective: Objective
    sequence_length: int
    global_batch: int
    seed: int = 0
    mask_probability: float = 0.15
    cross_documents: bool = True

    @classmethod
    def of(cls, spec: JobSpec) -> LoaderSpec:
        """What the job asks for."""
        return cls(
            spec.model.objective,
            spec.data.sequence_length,
            spec.training.global_batch,
            spec.training.seed,
            spec.data.mask_probability,
            spec.data.cross_documents,
        )


@dataclass(frozen=True)
class Row:
    """One row. causal-lm: `tokens` int64 [T + 1], `document` int32 [T + 1], from 1 (empty: rows cross documents), the
    rest empty. masked-lm: `tokens` int64 [n], what the model sees; `document` int32 [n], from 1; `positions` int64 [m]
    in this row; `targets` int64 [m], the true tokens."""

    tokens: NDArray[np.int64]
    document: NDArray[np.int32]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows that a worker computes at once.

    causal-lm: `arrays["tokens"]` int64 [B, T + 1]: each token but the first is predicted from those before it; with
    `document` int32 [B, T + 1]: from those of its own document alone, and a document's first token is not predicted.
    masked-lm: `tokens` int64 [B, T], `document` int32 [B, T] (0: padding; attention stays inside a document),
    `positions` int64 [M] into the flattened tokens, `targets` int64 [M]. classify, regress and tag: the same with
    `segments` int64 [B, T], and `labels` [M] instead of targets (`examples.ExampleRows`).
    `real_tokens`: tokens the model reads, without padding; `predicted_tokens`: terms of the loss;
    `predicted_bytes`: bytes of text these stand for (0 where the vocabulary loses bytes).
    """

    arrays: dict[str, NDArray[Any]]
    real_tokens: int
    predicted_tokens: int
    predicted_bytes: int


def collate_causal(rows: Sequence[Row], vocabulary: Vocabulary) -> Batch:
    """Rows of one length, at least one."""
    tokens = np.stack([row.tokens for row in rows])
    targets, size = tokens[:, 1:], tokens[:, 1:].size
    if not len(rows[0].document):
        return Batch({"tokens": tokens}, size, size, int(vocabulary.byte_lengths[targets].sum()))
    document = np.stack([row.document for row in rows])
    inside = document[:, 1:] == document[:, :-1]
    predicted_bytes = int(vocabulary.byte_lengths[targets[inside]].sum())
    return Batch({"tokens": tokens, "document": document}, size, int(inside.sum()), predicted_bytes)


def collate_masked(rows: Sequence[Row], length: int, pad_id: int) -> Batch:
    """Rows of at most `length` tokens, at least one."""
    tokens = np.full((len(rows), length), pad_id, np.int64)
    document = np.zeros((len(rows), length), np.int32)
    for place, row in enumerate(rows):
        tokens[place, : len(row.tokens)] = row.tokens
        document[place, : len(row.document)] = row.document
    positions = np.concatenate([row.positions + place * length for place, row in enumerate(rows)])
    targets = np.concatenate([row.targets for row in rows])
    arrays: dict[str, NDArray[Any]] = {
        "tokens": tokens,
        "document": document,
        "positions": positions,
        "targets": targets,
    }
    return Batch(arrays, int((document > 0).sum()), len(targets), 0)


NO_IDS: NDArray[np.int64] = np.empty(0, np.int64)
NO_DOCUMENTS: NDArray[np.int32] = np.empty(0, np.int32)


@dataclass(frozen=True)
class Portion:
    """One rank's share of a step. `predicted`: terms of the loss in the whole global batch, known without a word to
    the other ranks; `cursor`: where the next step begins. Its arrays are valid until the next one is taken."""

    batches: tuple[Batch, ...]
    predicted: int
    cursor: Cursor


class Feed(Protocol):
    """The portions of one rank, in the order of the steps."""

    def take(self) -> Portion:
        """The next one. Raises DataError, PrefetchEnded."""
        ...

    def close(self) -> None:
        """Leave no process and no shared memory behind."""
        ...


class TrainingData(Protocol):
    """What a job trains on and is validated by."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def spec(self) -> LoaderSpec: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of what examples are told apart by; () for text without labels."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of how the data is used; sentences without a full stop."""
        ...

    def feed(self, cursor: Cursor | None, rank: int, world: int, micro_batch: int, *, ahead: int = 0) -> Feed:
        """From `cursor` on (None: the beginning), for `rank` of `world`, rows `micro_batch` at a time.

        `ahead`: steps that a process of its own may prepare before they are taken. Raises DataChanged for a cursor of
        other data.
        """
        ...

    def validation_batches(self, max_tokens: int, micro_batch: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """This rank's part of a fixed sample of about `max_tokens` held-out tokens, the same whenever it is asked."""
        ...

    def touch(self) -> None:
        """Bring into memory what training will read again and again, so that it is not counted as the model's."""
        ...

    def describe_into(self, directory: Path) -> None:
        """Leave in `directory` (a run's `data/`) the vocabulary, and what says which data this is."""
        ...
