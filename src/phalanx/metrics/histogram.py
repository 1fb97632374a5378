"""How well scores rank needles, in one pass over an endless stream: a certified interval in constant memory.

The bits of a float, read as an integer, are in the order of its value (the sign put right), so their first `bits` are
a bin: some 2,000 bins for each factor of two with 20 bits. Within a bin the order of needles and straws is not known;
the best and the worst it can be bound every answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.errors import BadInput
from phalanx.metrics.state import State

_CHUNK = 1 << 18
_ROUNDING = 1e-12  # relative: what adding a million doubles may lose, many times over


@dataclass(frozen=True)
class Interval:
    """The answer lies in [low, high], whatever the order within bins was; `value` is the middle."""

    low: float
    high: float

    @property
    def value(self) -> float:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class CertifiedRanking:
    """`needles`, `straws`: how many were seen."""

    roc_auc: Interval
    average_precision: Interval
    needles: int
    straws: int


class ScoreHistogram(State):
    """Needles and straws by bin of their score. `bits`: 2^bits bins, 16 bytes each; 20 of them take 16 MiB.

    float64 scores need bits for a wider range of exponents than float32 ones: `bits` of them are spent on the sign and
    the exponent of float32, to which they are rounded down; what lies beyond its range shares the outermost bins.
    """

    def __init__(self, bits: int = 20, positive: str | int | bool | None = None) -> None:
        if not 10 <= bits <= 26:
            raise BadInput(f"a histogram has 2^10 to 2^26 bins, not 2^{bits}")
        self.bits = bits
        self.positive = positive
        self._counts = np.zeros((2, 1 << bits), np.int64)  # straws, needles

    def update(self, labels: arrays.ArrayLike, scores: arrays.ArrayLike) -> Self:
        """Labels and scores [n]. Raises BadInput."""
        is_needle = arrays.needles("labels", labels, self.positive)
        found = arrays.scores("scores", scores)
        arrays.same_length(labels=len(is_needle), scores=len(found))
        for start in range(0, len(found), _CHUNK):
            part = slice(start, start + _CHUNK)
            bins = _bins(found[part], self.bits)
            marked = bins[is_needle[part]]
            all_of_them = np.bincount(bins, minlength=1 << self.bits)
            if len(marked):
                needles = np.bincount(marked, minlength=1 << self.bits)
                self._counts[1] += needles
                all_of_them -= needles
            self._counts[0] += all_of_them
        return self

    def compute(self) -> CertifiedRanking:
        """Raises BadInput when there are no needles or no straws."""
        straws, needles = self._counts[:, ::-1].astype(np.float64)  # highest first
        positives, negatives = float(needles.sum()), float(straws.sum())
        for name, amount in (("needles", positives), ("straws", negatives)):
            if not amount:
                raise BadInput(f"the {name} are missing: a ranking needs both classes")
        lost = negatives - np.cumsum(straws)  # below the bin
        some = needles > 0
        low = float((needles * lost)[some].sum()) / (positives * negatives)
        high = low + float((needles * straws)[some].sum()) / (positives * negatives)
        return CertifiedRanking(
            roc_auc=_outwards(low, high),
            average_precision=_outwards(*_precision(needles[some], straws[some], np.cumsum(straws)[some])),
            needles=int(positives),
            straws=int(negatives),
        )

    def definition(self) -> dict[str, Any]:
        return {"bits": self.bits, "positive": self.positive}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"counts": self._counts}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        counts = parts["counts"]
        if counts.shape != made._counts.shape or counts.dtype != np.int64 or (counts < 0).any():
            raise BadInput("no counts of a histogram of scores")
        made._counts = counts.copy()
        return made

    def _add(self, other: Self) -> None:
        self._counts += other._counts


def _bins(scores: NDArray[Any], bits: int) -> NDArray[np.uint32]:
    """Bins [n] in the order of the scores: equal scores have equal bins, and a higher score has no lower bin."""
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is the outermost bin
        single = scores.astype(np.float32)  # rounds to nearest: monotone, so the order of bins holds
    pattern = (single + np.float32(0)).view(np.int32)  # -0 becomes 0
    # Negative floats are ordered the other way round: all their bits are turned; of the others only the sign.
    pattern ^= (pattern >> 31) | np.int32(-(2**31))
    found: NDArray[np.uint32] = pattern.view(np.uint32) >> np.uint32(32 - bits)
    return found


def _precision(
    needles: NDArray[np.float64], straws: NDArray[np.float64], false: NDArray[np.float64]
) -> tuple[float, float]:
    """Bounds of average precision; `false`: straws of the bin and above it.

    Above: all needles of a bin tie, and its straws come below. Below: its straws come first, and the needles one by
    one: the sum over i of (t + i) / (t + i + f), where 1 / x is at most ln((x + 1/2) / (x - 1/2)), as it is convex.
    """
    before = np.cumsum(needles) - needles
    positives = needles.sum()
    high = float((needles * (before + needles) / (before + needles + false - straws)).sum() / positives)
    total = before + false
    low = float((needles - false * np.log1p(needles / (total + 0.5))).sum() / positives)
    return low, high


def _outwards(low: float, high: float) -> Interval:
    return Interval(max(low - _ROUNDING * abs(low), 0.0), min(high + _ROUNDING * abs(high), 1.0))


__all__ = ["CertifiedRanking", "Interval", "ScoreHistogram"]
