"""Mean, variance, least and greatest of each column of rows, in one pass: what features are scaled by.

Parts are put together as Chan, Golub and LeVeque (1979) do, with means and squares kept in two doubles each (the second
holds what the first rounded away): far from 0 a small spread survives any number of merges. Unlike sums that are exact
it may differ in the last bits between splits; by less than 1e-12 of the value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.errors import BadInput
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums

_CHUNK = 1 << 18  # numbers that are looked at together: what is made of them stays in a core's cache
_LARGEST = 1e150  # whose square is a double

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """Of each column, float64 [columns]; NaN of no rows. `count`: of rows; `variance`: of these rows themselves (their
    number is the denominator, or the total of their weights)."""

    count: int
    mean: Floats
    variance: Floats
    minimum: Floats
    maximum: Floats

    @property
    def deviation(self) -> Floats:
        """Standard deviation: the root of the variance."""
        return np.sqrt(self.variance)


class Moments(State):
    """Of rows of so many `columns`. `weighted`: each row comes with a weight; one of weight 0 counts for nothing."""

    def __init__(self, columns: int, *, weighted: bool = False) -> None:
        if columns < 1:
            raise BadInput(f"there is at least one column, not {columns}")
        self.columns = columns
        self.weighted = weighted
        self.count = 0
        """Rows so far."""
        self._weight = ExactSums()  # of rows that have one
        self._mean, self._squares = np.zeros((2, columns)), np.zeros((2, columns))  # as a double and what it lacks
        self._least, self._most = np.full(columns, np.inf), np.full(columns, -np.inf)

    def update(self, rows: arrays.ArrayLike, weights: arrays.ArrayLike | None = None) -> Self:
        """Numbers [n, columns], or [n] for one column; weights [n] where `weighted`. Raises BadInput, having taken
        nothing, for other shapes, for what is not finite, and beyond 1e150, whose square no double holds."""
        found = arrays.array("rows", rows)
        found = found[:, None] if found.ndim == 1 and self.columns == 1 else found
        if found.ndim != 2 or found.shape[1] != self.columns:
            raise BadInput(f"rows have the shape {found.shape}, not [n, {self.columns}]", remedy="give all columns")
        found = arrays.finite("rows", arrays.floats("rows", found))
        heavy = arrays.weights_as_made(weights, len(found), self.weighted)
        if len(found) and max(float(found.max()), -float(found.min())) > _LARGEST:
            raise BadInput("rows hold numbers beyond 1e150, whose squares no double holds", remedy="scale them down")
        if heavy is not None:
            found, heavy = found[heavy > 0], heavy[heavy > 0]
        step = max(1, _CHUNK // self.columns)
        for start in range(0, len(found), step):
            part = slice(start, start + step)
            # A column's numbers side by side: numpy then adds them pairwise, which rounds less.
            chunk = np.ascontiguousarray(found[part].T, np.float64)
            self._take(chunk, None if heavy is None else heavy[part])
        return self

    def _take(self, chunk: Floats, heavy: Floats | None) -> None:
        """Numbers [columns, n], n > 0."""
        least, most = chunk.min(axis=1), chunk.max(axis=1)
        total = ExactSums() if heavy is None else ExactSums.of(heavy)
        weight = float(chunk.shape[1]) if heavy is None else float(total)
        near = (chunk.sum(axis=1) if heavy is None else chunk @ heavy) / weight
        near = np.clip(near, least, most)  # though it was rounded: what never changes has no spread at all
        apart = chunk - near[:, None]
        heavier = apart if heavy is None else apart * heavy
        rest = heavier.sum(axis=1) / weight
        heavier *= apart
        squares = np.maximum(heavier.sum(axis=1) - weight * rest**2, 0.0)
        self._join(chunk.shape[1], total, np.stack([near, rest]), np.stack([squares, 0 * squares]))
        self._least, self._most = np.minimum(self._least, least), np.maximum(self._most, most)

    def _join(self, count: int, weight: ExactSums, mean: Floats, squares: Floats) -> None:
        """Chan's step, from the heavier of the two, where the mean moves less."""
        mine, theirs = self.weight, float(weight) if self.weighted else float(count)
        self.count += count
        if self.weighted:
            self._weight.merge(weight)
        if not mine:
            self._mean, self._squares = mean.copy(), squares.copy()
        if not mine or not theirs:
            return
        total = mine + theirs
        apart = (mean[0] - self._mean[0]) + (mean[1] - self._mean[1])
        start, step = (self._mean, apart * (theirs / total)) if mine >= theirs else (mean, -apart * (mine / total))
        self._mean = _exact_sum(start[0], start[1] + step)
        between = apart**2 * (mine / total * theirs)
        squares_sum = _exact_sum(self._squares[0], squares[0])
        self._squares = _exact_sum(squares_sum[0], squares_sum[1] + self._squares[1] + squares[1] + between)

    @property
    def weight(self) -> float:
        """Of all rows together; their number where they have none."""
        return float(self._weight) if self.weighted else float(self.count)

    @property
    def mean(self) -> Floats:
        """float64 [columns]; NaN of no rows."""
        return self._mean.sum(axis=0) if self.count else np.full(self.columns, math.nan)

    @property
    def variance(self) -> Floats:
        """float64 [columns], of these rows themselves (the population's); NaN of no rows."""
        return self._squares.sum(axis=0) / self.weight if self.count else np.full(self.columns, math.nan)

    @property
    def minimum(self) -> Floats:
        """float64 [columns]; NaN of no rows."""
        return self._least.copy() if self.count else np.full(self.columns, math.nan)

    @property
    def maximum(self) -> Floats:
        """float64 [columns]; NaN of no rows."""
        return self._most.copy() if self.count else np.full(self.columns, math.nan)

    def compute(self) -> Moment:
        return Moment(self.count, self.mean, self.variance, self.minimum, self.maximum)

    def definition(self) -> dict[str, Any]:
        return {"columns": self.columns, "weighted": self.weighted}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {
            "count": np.array(self.count),
            "mean": self._mean,
            "squares": self._squares,
            "least": self._least,
            "most": self._most,
            **{f"weight_{name}": part for name, part in self._weight.parts().items()},
        }

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made.count = int(parts["count"])
        weight = {name.removeprefix("weight_"): part for name, part in parts.items() if name.startswith("weight_")}
        made._weight = ExactSums.of_parts(weight, 1)
        for name, shape in (("mean", 2), ("squares", 2), ("least", 1), ("most", 1)):
            found = parts[name].astype(np.float64)
            if found.shape != ((2, made.columns) if shape == 2 else (made.columns,)):
                raise BadInput(f"no moments of {made.columns} columns: {name} has the shape {found.shape}")
            setattr(made, f"_{name}", found)
        if made.count < 0 or (made.count > 0) != (made.weight > 0) or (made._squares[0] < 0).any():
            raise BadInput(f"no moments of {made.count} rows that weigh {made.weight:g}")
        return made

    def _add(self, other: Self) -> None:
        self._join(other.count, other._weight, other._mean, other._squares)
        self._least, self._most = np.minimum(self._least, other._least), np.maximum(self._most, other._most)


def _exact_sum(one: Floats, other: Floats) -> Floats:
    """The rounded sum, and what it lacks (Knuth's two-sum): [2, columns]."""
    total = one + other
    back = total - one
    return np.stack([total, (one - (total - back)) + (other - back)])
