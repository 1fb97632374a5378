"""What training asks of data, and gets: one rank's share of each step, step after step, from wherever it left off.

A `TrainingData` is either a small prepared corpus (`loader.Loader`), whose steps are numbered, or a stream over built
datasets (`stream.StreamLoader`). Where a run is, is its *cursor*: a small JSON value that belongs to the data, is the
same on all ranks, and means the same to any number of them.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """`sequence_length` in tokens; `global_batch` in rows a step, over all workers."""

    objective: Objective
    sequence_length: int
    global_batch: int
    seed: int = 0
    mask_probability: float = 0.15

    @classmethod
    def of(cls, spec: JobSpec) -> LoaderSpec:
        return cls(
            spec.model.objective,
            spec.data.sequence_length,
            spec.training.global_batch,
            spec.training.seed,
            spec.data.mask_probability,
        )


@dataclass(frozen=True)
class Row:
    """One row. causal-lm: `tokens` int64 [T + 1], the rest empty. masked-lm: `tokens` int64 [n], what the model
    sees; `document` int32 [n], from 1; `positions` int64 [m] in this row; `targets` int64 [m], the true tokens."""

    tokens: NDArray[np.int64]
    document: NDArray[np.int32]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows that a worker computes at once.

    causal-lm: `arrays["tokens"]` int64 [B, T + 1]: each token but the first is predicted from those before it.
    masked-lm: `tokens` int64 [B, T], `document` int32 [B, T] (0: padding; attention stays inside a document),
    `positions` int64 [M] into the flattened tokens, `targets` int64 [M].
    `real_tokens`: tokens the model reads, without padding; `predicted_tokens`: terms of the loss;
    `predicted_bytes`: bytes of text these stand for (0 where the vocabulary loses bytes).
    """

    arrays: dict[str, NDArray[Any]]
    real_tokens: int
    predicted_tokens: int
    predicted_bytes: int


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
