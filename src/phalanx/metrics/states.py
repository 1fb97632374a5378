"""How good, exactly: states that are filled from parts of the data and merged with `+`.

The state of a whole equals the sum of the states of its parts, bit by bit, in any order. A state
without data has the value NaN. Knows neither models nor ranks nor where the numbers go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics.sums import ExactSum


@dataclass(frozen=True)
class MeanLoss:
    """Mean of a loss that comes as (sum, count): nats per predicted token."""

    total: ExactSum = field(default_factory=ExactSum)
    count: int = 0

    @classmethod
    def of(cls, losses: Iterable[float], count: int) -> MeanLoss:
        """From sums of nats over `count` tokens together."""
        return cls(ExactSum.of(losses), _counted(count))

    def __add__(self, other: MeanLoss) -> MeanLoss:
        return MeanLoss(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> float:
        """Nats per token."""
        return float(self.total) / self.count if self.count else math.nan

    @property
    def perplexity(self) -> float:
        """exp of the mean; infinite where that is beyond a double."""
        try:
            return math.exp(self.value)
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class BitsPerByte:
    """Cost of a text under a model, per byte of UTF-8: comparable between vocabularies."""

    nats: ExactSum = field(default_factory=ExactSum)
    bytes: int = 0

    @classmethod
    def of(cls, nats: Iterable[float], size: int) -> BitsPerByte:
        """From costs in nats of `size` bytes together."""
        return cls(ExactSum.of(nats), _counted(size))

    def __add__(self, other: BitsPerByte) -> BitsPerByte:
        return BitsPerByte(self.nats + other.nats, self.bytes + other.bytes)

    @property
    def value(self) -> float:
        """Bits per byte."""
        return float(self.nats) / math.log(2) / self.bytes if self.bytes else math.nan


@dataclass(frozen=True)
class TopK:
    """Share of the targets among the k best guesses."""

    k: int = 1
    hits: int = 0
    count: int = 0

    @classmethod
    def of(cls, scores: NDArray[Any], targets: NDArray[Any], k: int = 1) -> TopK:
        """From scores [n, choices], higher is better, and the right choice of each, integers [n].

        Of equal scores the lower index is the better guess; a NaN is the worst. Raises ValueError
        for shapes that do not fit or k < 1.
        """
        if scores.ndim != 2 or targets.shape != scores.shape[:1] or k < 1:
            raise ValueError(f"scores [n, choices], targets [n] and k >= 1, not {scores.shape}, {targets.shape}, {k}")
        clean = np.where(np.isnan(scores), -np.inf, scores)
        own = np.take_along_axis(clean, targets[:, None], axis=1)
        earlier = np.arange(scores.shape[1])[None, :] < targets[:, None]
        better = ((clean > own) | ((clean == own) & earlier)).sum(axis=1)
        return cls(k, int((better < k).sum()), len(targets))

    def __add__(self, other: TopK) -> TopK:
        """Raises ValueError for another k."""
        if self.k != other.k:
            raise ValueError(f"top-{self.k} and top-{other.k} do not merge")
        return TopK(self.k, self.hits + other.hits, self.count + other.count)

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self.hits / self.count if self.count else math.nan

    @property
    def standard_error(self) -> float:
        """Of `value`, as of `count` independent draws (binomial)."""
        return math.sqrt(self.value * (1 - self.value) / self.count) if self.count else math.nan


def _counted(count: int) -> int:
    if count < 0:
        raise ValueError(f"a count is not negative: {count}")
    return count
