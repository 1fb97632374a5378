"""How much two columns of numbers go together: Pearson's correlation from exact sums, Spearman's from ranks.

Both give the same bits whatever the order and split of the data. A correlation with what never changes is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays, products
from phalanx.metrics.errors import BadInput
from phalanx.metrics.products import Floats, add_product
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums

_SUMS = ("x", "y", "xx", "yy", "xy")


class Pearson(State):
    """Of pairs, how near they are to a line: from -1 to 1 (Pearson 1895)."""

    def __init__(self, *, weighted: bool = False) -> None:
        self.weighted = weighted
        self.count = 0
        self._weight = ExactSums()
        self._sums = {name: ExactSums() for name in _SUMS}

    def update(self, x: arrays.ArrayLike, y: arrays.ArrayLike, weights: arrays.ArrayLike | None = None) -> Self:
        """Numbers [n] each; weights [n] where `weighted`. Raises BadInput."""
        one, other = _pairs(x, y)
        heavy = arrays.weights_as_made(weights, len(one), self.weighted)
        if heavy is not None:
            self._weight.add(products.bounded("weights", heavy))
        self.count += len(one)
        for start in range(0, len(one), products.CHUNK):
            part = slice(start, start + products.CHUNK)
            weight = None if heavy is None else heavy[part]
            columns = {"x": one[part], "y": other[part]}
            for name, sums in self._sums.items():
                add_product(sums, None, *(columns[letter] for letter in name), weight)
        return self

    def compute(self) -> float:
        """NaN when one of them has no spread."""
        weight = self._weight.fractions()[0] if self.weighted else Fraction(self.count)
        if not weight:
            return math.nan
        sums = self._sums
        (across,) = products.spreads(sums["xx"], sums["x"], sums["x"], weight)
        (up,) = products.spreads(sums["yy"], sums["y"], sums["y"], weight)
        (both,) = products.spreads(sums["xy"], sums["x"], sums["y"], weight)
        return _correlation(both, across, up)

    def definition(self) -> dict[str, Any]:
        return {"weighted": self.weighted}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"count": np.array(self.count), **products.as_parts(weight=self._weight, **self._sums)}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made.count = int(parts["count"])
        made._weight = products.of_parts(parts, "weight", 1)
        made._sums = {name: products.of_parts(parts, name, 1) for name in _SUMS}
        if made.count < 0:
            raise BadInput(f"no correlation of {made.count} pairs")
        return made

    def _add(self, other: Self) -> None:
        self.count += other.count
        self._weight.merge(other._weight)
        for name, sums in self._sums.items():
            sums.merge(other._sums[name])


class Spearman(State):
    """Of pairs, how much alike their orders are: Pearson's correlation of ranks, ties at their mean (Spearman 1904).

    A rank depends on all the others, so it keeps every pair: 16 bytes each.
    """

    def __init__(self) -> None:
        self._pairs: list[Floats] = []

    def update(self, x: arrays.ArrayLike, y: arrays.ArrayLike) -> Self:
        """Numbers [n] each. Raises BadInput."""
        self._pairs.append(np.stack(_pairs(x, y)) + 0.0)  # -0 becomes 0: equal numbers have equal bits
        return self

    def compute(self) -> float:
        """NaN when all of one column are the same."""
        one, other = (_doubled_ranks(column) for column in np.concatenate([np.zeros((2, 0)), *self._pairs], axis=1))
        return _correlation(*(Fraction(_inner(*both)) for both in ((one, other), (one, one), (other, other))))

    def definition(self) -> dict[str, Any]:
        return {}

    def parts(self) -> dict[str, NDArray[Any]]:
        pairs = np.concatenate([np.zeros((2, 0)), *self._pairs], axis=1)
        return {"pairs": pairs[:, np.lexsort(pairs[::-1])]}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        x, y = parts["pairs"]
        return made.update(x, y)

    def _add(self, other: Self) -> None:
        self._pairs += other._pairs


def _pairs(x: arrays.ArrayLike, y: arrays.ArrayLike) -> tuple[Floats, Floats]:
    one, other = products.numbers("x", x), products.numbers("y", y)
    arrays.same_length(x=len(one), y=len(other))
    return one, other


def _doubled_ranks(column: Floats) -> NDArray[np.int64]:
    """Twice the distance of each rank from the middle one: whole numbers."""
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = 2 * last - counts + 1  # first and last of those that tie, added
    found: NDArray[np.int64] = (ranks - (len(column) + 1))[place]
    return found


def _inner(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """Without overflow: no number is larger than their count."""
    step = max(1, (1 << 62) // max(1, len(one) ** 2))
    return sum(int(one[start : start + step] @ other[start : start + step]) for start in range(0, len(one), step))


def _correlation(both: Fraction, one: Fraction, other: Fraction) -> float:
    """From the sums of products about the means."""
    return float(both / products.root(one * other)) if one > 0 and other > 0 else math.nan
