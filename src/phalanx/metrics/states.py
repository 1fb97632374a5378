"""Means that models of text are judged by, and the best of k guesses: states, as `state` says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics.errors import BadInput
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums


class MeanLoss(State):
    """Mean of a loss that comes as (sum, count): nats per predicted token."""

    def __init__(self) -> None:
        self.total = ExactSums()
        self.count = 0

    def update(self, losses: Iterable[float], count: int) -> Self:
        """Sums of nats over `count` tokens together."""
        self.count += _counted(count)
        self.total.add(np.fromiter(losses, np.float64))
        return self

    def compute(self) -> float:
        """Nats per token."""
        return float(self.total) / self.count if self.count else math.nan

    @property
    def perplexity(self) -> float:
        """exp of the mean; infinite where that is beyond a double."""
        try:
            return math.exp(self.compute())
        except OverflowError:
            return math.inf

    def bits(self, size: int) -> float:
        """Bits of each of `size` bytes, which all the tokens together stand for."""
        return float(self.total) / math.log(2) / size if size else math.nan

    def definition(self) -> dict[str, Any]:
        return {}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"count": np.array(self.count), **self.total.parts()}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls()
        made.count = _counted(int(parts["count"]))
        made.total = ExactSums.of_parts(parts, 1)
        return made

    def _add(self, other: Self) -> None:
        self.count += other.count
        self.total.merge(other.total)


class BitsPerByte(MeanLoss):
    """Cost of a text under a model, per byte of UTF-8: comparable between vocabularies. `update` is fed nats."""

    def compute(self) -> float:
        """Bits per byte."""
        return self.bits(self.count)


class TopK(State):
    """Share of the targets among the k best guesses."""

    def __init__(self, k: int = 1) -> None:
        if k < 1:
            raise BadInput(f"the best k guesses are at least one, not {k}")
        self.k = k
        self.hits = 0
        self.count = 0

    def update(self, scores: NDArray[Any], targets: NDArray[Any]) -> Self:
        """Scores [n, choices], higher is better, and the right choice of each, integers [n].

        Of equal scores the lower index is the better guess; a NaN is the worst. Raises BadInput for shapes that do
        not fit.
        """
        if scores.ndim != 2 or targets.shape != scores.shape[:1]:
            raise BadInput(f"scores [n, choices] and targets [n], not {scores.shape} and {targets.shape}")
        clean = np.where(np.isnan(scores), -np.inf, scores)
        own = np.take_along_axis(clean, targets[:, None], axis=1)
        earlier = np.arange(scores.shape[1])[None, :] < targets[:, None]
        better = ((clean > own) | ((clean == own) & earlier)).sum(axis=1)
        return self.add(int((better < self.k).sum()), len(targets))

    def add(self, hits: int, count: int) -> Self:
        """What was counted elsewhere."""
        self.hits, self.count = self.hits + _counted(hits), self.count + _counted(count)
        return self

    def compute(self) -> float:
        """From 0 to 1."""
        return self.hits / self.count if self.count else math.nan

    @property
    def standard_error(self) -> float:
        """Of the share, as of `count` independent draws (binomial)."""
        share = self.compute()
        return math.sqrt(share * (1 - share) / self.count) if self.count else math.nan

    def definition(self) -> dict[str, Any]:
        return {"k": self.k}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"hits": np.array(self.hits), "count": np.array(self.count)}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        return cls(**definition).add(int(parts["hits"]), int(parts["count"]))

    def _add(self, other: Self) -> None:
        self.add(other.hits, other.count)


def _counted(count: int) -> int:
    if count < 0:
        raise BadInput(f"a count is not negative: {count}")
    return count
