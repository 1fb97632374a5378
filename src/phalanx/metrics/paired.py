"""Which of two detectors ranks the needles better: DeLong's paired test, exactly, with memory by the number of needles.

    needles = PairedNeedles()                   first pass: keeps both scores of each needle, counts the rest
    for batch in open_scores(): needles.update(*batch)          (labels, scores of A, scores of B)
    gaps = needles.gaps()                       second pass: places the straws among them
    for batch in open_scores(): gaps.update(*batch)
    gaps.compute().sentence()

Both are states that merge. A straw's placement is twice the needles below it and once those that tie with it, a whole
number; all that the test needs of the straws is how many have which placement under A and under B, and the sum of the
products of the two. So every part adds up exactly, and even the variance is a fraction, rounded once.
DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from operator import mul
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.comparison import Comparison
from phalanx.metrics.curve import Curve
from phalanx.metrics.errors import BadInput
from phalanx.metrics.intervals import normal_quantile
from phalanx.metrics.placing import Placing
from phalanx.metrics.state import State

_CHUNK = 1 << 16  # straws that are placed together: what is made of them stays in a core's cache
_MOST = 1 << 62  # that a chunk's products may add up to
_MOST_NEEDLES = 1 << 29
_BYTES = 24  # of the sum of all products: 2^192

Pairs = Iterable[tuple[Any, Any, Any]]
"""Batches of (labels, scores of A, scores of B)."""


class PairedNeedles(State):
    """The first pass: both scores of each needle. `positive`: the label of a needle; without it 1 or True."""

    def __init__(self, positive: str | int | bool | None = None) -> None:
        self.positive = positive
        self.straws = 0
        self._pairs: list[NDArray[np.float64]] = []

    def update(self, labels: arrays.ArrayLike, scores_a: arrays.ArrayLike, scores_b: arrays.ArrayLike) -> Self:
        """Labels and both scores [n]. Raises BadInput."""
        is_needle, found_a, found_b = _taken(self.positive, labels, scores_a, scores_b)
        self.straws += int(len(is_needle) - is_needle.sum())
        self._pairs.append(np.column_stack([found_a[is_needle], found_b[is_needle]]).astype(np.float64) + 0)
        return self

    def compute(self) -> NDArray[np.float64]:
        """The scores of all needles, of A and of B [m, 2], ascending."""
        pairs = np.concatenate([np.empty((0, 2)), *self._pairs])
        return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]

    def gaps(self, level: float = 0.95) -> PairedGaps:
        """The second pass over the same scores; `level`: of the interval."""
        return PairedGaps(self.compute(), self.straws, self.positive, level)

    def definition(self) -> dict[str, Any]:
        return {"positive": self.positive}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"pairs": self.compute(), "straws": np.array(self.straws)}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made.straws = int(parts["straws"])
        made._pairs = [_checked_pairs(parts["pairs"])]
        return made

    def _add(self, other: Self) -> None:
        self.straws += other.straws
        self._pairs += other._pairs


class PairedGaps(State):
    """The second pass. `pairs` [m, 2]: both scores of each needle, ascending; `straws`: how many the first pass saw."""

    def __init__(
        self,
        pairs: NDArray[np.float64],
        straws: int,
        positive: str | int | bool | None = None,
        level: float = 0.95,
    ) -> None:
        if len(pairs) > _MOST_NEEDLES:
            raise BadInput(f"{len(pairs):,} needles: more than {_MOST_NEEDLES:,} are not compared exactly")
        normal_quantile(level)
        self.positive, self.level = positive, level
        self._pairs, self._expected = pairs, straws
        self._seen = np.zeros(2, np.int64)  # needles, straws
        self._sides = [_Side(pairs[:, 0]), _Side(pairs[:, 1])]
        self._products = 0
        self._chunk = max(1, min(_CHUNK, _MOST // max(1, 2 * len(pairs)) ** 2))

    def update(self, labels: arrays.ArrayLike, scores_a: arrays.ArrayLike, scores_b: arrays.ArrayLike) -> Self:
        """As in the first pass."""
        is_needle, found_a, found_b = _taken(self.positive, labels, scores_a, scores_b)
        straws_a, straws_b = found_a[~is_needle], found_b[~is_needle]
        self._seen += len(is_needle) - len(straws_a), len(straws_a)
        for start in range(0, len(straws_a), self._chunk):
            part = slice(start, start + self._chunk)
            placed_a, placed_b = self._sides[0].placed(straws_a[part]), self._sides[1].placed(straws_b[part])
            self._products += int(placed_a @ placed_b)
        return self

    def curves(self) -> tuple[Curve, Curve]:
        """Of A and of B. Raises BadInput, as `compute`, for passes that differ or one class only."""
        self._check()
        first, second = (side.curve() for side in self._sides)
        return first, second

    def compute(self) -> Comparison:
        """Of the two ROC areas. Raises BadInput for passes that differ, and fewer than two needles or two straws.

        Where the two rank alike the p value is 1. Where they do not, yet the variance is 0, as when A has all needles
        on top and B all at the bottom, it is NaN: so few examples do not say how far chance reaches.
        """
        self._check()
        needles, straws = self._seen.tolist()
        if needles < 2 or straws < 2:
            raise BadInput(
                f"DeLong's test needs two needles and two straws, not {needles:,} and {straws:,}",
                remedy="compare on more examples",
            )
        first, second = self._sides
        pairs = 2 * needles * straws
        of_a, of_b = first.of_needles(), second.of_needles()
        differences = [a - b for a, b in zip(of_a, of_b, strict=True)]
        apart = sum(differences)
        squares = first.squares() + second.squares() - 2 * self._products
        variance = _variance(sum(map(mul, differences, differences)), apart, needles, 2 * straws)
        variance += _variance(squares, first.total() - second.total(), straws, 2 * needles)
        error, difference = math.sqrt(variance), apart / pairs
        reach = normal_quantile(self.level) * error
        low, high = max(-1.0, difference - reach), min(1.0, difference + reach)
        if error > 0:
            p_value = math.erfc(abs(difference) / error / math.sqrt(2))
        else:
            p_value = 1.0 if apart == 0 else math.nan
        return Comparison(
            metric="ROC-AUC",
            method="DeLong",
            a=sum(of_a) / pairs,
            b=sum(of_b) / pairs,
            difference=difference,
            low=math.nan if math.isnan(p_value) else low,
            high=math.nan if math.isnan(p_value) else high,
            p_value=p_value,
            n=needles + straws,
            level=self.level,
        )

    def _check(self) -> None:
        if self._seen.tolist() != [len(self._pairs), self._expected]:
            raise BadInput(
                f"the second pass saw {self._seen[0]:,} needles and {self._seen[1]:,} straws, the first "
                f"{len(self._pairs):,} and {self._expected:,}",
                remedy="open the same scores for both passes, and merge the states of all parts before and after",
            )

    def definition(self) -> dict[str, Any]:
        digest = hashlib.sha256(np.ascontiguousarray(self._pairs).tobytes()).hexdigest()
        return {"positive": self.positive, "needles": digest, "straws": self._expected, "level": self.level}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {
            "pairs": self._pairs,
            "seen": self._seen,
            "straws_a": self._sides[0].straws,
            "straws_b": self._sides[1].straws,
            "products": np.frombuffer(self._products.to_bytes(_BYTES, "little"), np.uint8),
        }

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(_checked_pairs(parts["pairs"]), definition["straws"], definition["positive"], definition["level"])
        straws = [parts["straws_a"], parts["straws_b"]]
        fits = all(each.shape == side.straws.shape for each, side in zip(straws, made._sides, strict=True))
        if made.definition() != dict(definition) or not fits or parts["seen"].shape != (2,):
            raise BadInput("a state of gaps whose needles are not those that it is defined by")
        made._seen = parts["seen"].astype(np.int64)
        for each, side in zip(straws, made._sides, strict=True):
            side.straws = each.astype(np.int64)
        made._products = int.from_bytes(parts["products"].astype(np.uint8).tobytes(), "little")
        return made

    def _add(self, other: Self) -> None:
        self._seen += other._seen
        for mine, theirs in zip(self._sides, other._sides, strict=True):
            mine.straws = mine.straws + theirs.straws
        self._products += other._products


class _Side:
    """One detector: straws by cell (`Placing`) among the scores [m] of the needles, and their placements."""

    def __init__(self, needles: NDArray[np.float64]) -> None:
        self.levels, self._level_of, counts = np.unique(needles, return_inverse=True, return_counts=True)
        self.counts = counts.astype(np.int64)
        self._placing = Placing(self.levels)
        self.straws = np.zeros(self._placing.cells, np.int64)
        below = np.append(0, np.cumsum(self.counts))
        self._placement = np.empty(self._placing.cells, np.int64)  # of a straw in each cell
        self._placement[::2], self._placement[1::2] = 2 * below, below[:-1] + below[1:]

    def placed(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """The placements of straws, which are counted."""
        cells = self._placing.cells_of(scores)
        self.straws += np.bincount(cells, minlength=len(self.straws))
        placements: NDArray[np.int64] = self._placement[cells]
        return placements

    def of_needles(self) -> list[int]:
        """Of each needle: twice the straws below it and once those that tie with it."""
        below = np.cumsum(self.straws)
        placements: list[int] = (2 * below[:-1:2] + self.straws[1::2])[self._level_of].tolist()
        return placements

    def total(self) -> int:
        """Sum of the straws' placements."""
        return sum(map(mul, self.straws.tolist(), self._placement.tolist()))

    def squares(self) -> int:
        """Sum of their squares."""
        return sum(
            count * each * each for count, each in zip(self.straws.tolist(), self._placement.tolist(), strict=True)
        )

    def curve(self) -> Curve:
        return Curve.of_cells(self.levels, self.counts.astype(np.float64), self.straws.astype(np.float64))


def compare_rankings(
    open_scores: Callable[[], Pairs], positive: str | int | bool | None = None, *, level: float = 0.95
) -> Comparison:
    """Both passes: `open_scores` is called twice, and gives batches of (labels, scores of A, scores of B).

    Raises BadInput for what the states refuse.
    """
    needles = PairedNeedles(positive)
    for batch in open_scores():
        needles.update(*batch)
    gaps = needles.gaps(level)
    for batch in open_scores():
        gaps.update(*batch)
    return gaps.compute()


def delong_test(
    y_true: arrays.ArrayLike,
    scores_a: arrays.ArrayLike,
    scores_b: arrays.ArrayLike,
    positive: str | int | bool | None = None,
    *,
    level: float = 0.95,
) -> Comparison:
    """Of the ROC areas of two scores of the same examples, arrays [n]. Raises BadInput."""
    return compare_rankings(lambda: [(y_true, scores_a, scores_b)], positive, level=level)


def _variance(squares: int, total: int, count: int, unit: int) -> Fraction:
    """Of the mean of `count` whole numbers of the 1/unit, by the sums of them and of their squares."""
    return Fraction(count * squares - total * total, count * count * (count - 1) * unit * unit)


def _taken(
    positive: str | int | bool | None, labels: arrays.ArrayLike, scores_a: arrays.ArrayLike, scores_b: arrays.ArrayLike
) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[Any]]:
    is_needle = arrays.needles("labels", labels, positive)
    found_a, found_b = arrays.scores("scores_a", scores_a), arrays.scores("scores_b", scores_b)
    arrays.same_length(labels=len(is_needle), scores_a=len(found_a), scores_b=len(found_b))
    return is_needle, found_a, found_b


def _checked_pairs(pairs: NDArray[Any]) -> NDArray[np.float64]:
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != np.float64:
        raise BadInput("no scores of needles in pairs")
    return arrays.finite("pairs", pairs)
