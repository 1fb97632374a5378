"""How far forecasts of numbers are from the truth: squared, absolute and relative errors, R2 and explained variance.

All sums are exact, so any split and order of the data gives the same bits, and R2 holds its digits far from 0. The
median of errors needs the errors themselves, so it is a state of its own, which keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays, products
from phalanx.metrics.errors import BadInput
from phalanx.metrics.products import Floats, add_product
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums

Values = Any
"""A float, or float64 [outputs] where a state was made for outputs."""

_SUMS = ("truths", "squared_truths", "errors", "squared_errors", "absolute", "relative")


@dataclass(frozen=True)
class RegressionErrors:
    """An error is truth - forecast. Each value is a float, or float64 [outputs]; NaN where it is undefined.

    `max_error`: the largest absolute error. `mean_absolute_percentage_error`: a share of the truth, not times 100;
    undefined when a truth is 0. `r2`: 1 - squared errors / squared distances of truths from their mean;
    `explained_variance`: the same without the errors' own mean; both undefined when all truths are the same.
    """

    count: int
    mean_squared_error: Values
    root_mean_squared_error: Values
    mean_absolute_error: Values
    mean_absolute_percentage_error: Values
    max_error: Values
    r2: Values
    explained_variance: Values


class Regression(State):
    """All errors that need only sums. `outputs`: how many numbers are forecast for each example; None: one, as [n]."""

    def __init__(self, outputs: int | None = None, *, weighted: bool = False) -> None:
        self.outputs = _checked(outputs)
        self.weighted = weighted
        self.count = 0
        self._cells = outputs or 1
        self._weight = ExactSums()
        self._sums = {name: ExactSums(self._cells) for name in _SUMS}
        self._largest = np.zeros(self._cells)
        self._zeros = np.zeros(self._cells, np.int64)  # truths of 0

    def update(
        self, y_true: arrays.ArrayLike, y_pred: arrays.ArrayLike, weights: arrays.ArrayLike | None = None
    ) -> Self:
        """Numbers [n], or [n, outputs]; weights [n] where `weighted`, of which 0 is nothing. Raises BadInput."""
        truth, called, heavy = _taken(self, y_true, y_pred, weights)
        self.count += len(truth)
        if heavy is not None:
            self._weight.add(heavy)
        for true, forecast, weight, cells in pieces(truth, called, heavy):
            error = true - forecast
            size = np.abs(error)
            add_product(self._sums["truths"], cells, true, weight)
            add_product(self._sums["squared_truths"], cells, true, true, weight)
            add_product(self._sums["errors"], cells, error, weight)
            add_product(self._sums["squared_errors"], cells, error, error, weight)
            add_product(self._sums["absolute"], cells, size, weight)
            some = true != 0
            with np.errstate(over="ignore"):  # infinite, as it should be
                relative = np.divide(size, np.abs(true), out=np.zeros_like(size), where=some)
                self._sums["relative"].add(relative if weight is None else relative * weight, cells)
            rows = (-1, self._cells)
            self._zeros += (~some).reshape(rows).sum(axis=0)
            self._largest = np.maximum(self._largest, size.reshape(rows).max(axis=0))
        return self

    def compute(self) -> RegressionErrors:
        weight = self._weight.fractions()[0] if self.weighted else Fraction(self.count)
        if not weight:
            return RegressionErrors(self.count, *[self._shaped([math.nan] * self._cells)] * 7)
        sums = self._sums
        squared = sums["squared_errors"].fractions()
        of_truths = products.spreads(sums["squared_truths"], sums["truths"], sums["truths"], weight)
        of_errors = products.spreads(sums["squared_errors"], sums["errors"], sums["errors"], weight)
        relative = sums["relative"].values() / float(weight)
        return RegressionErrors(
            count=self.count,
            mean_squared_error=self._shaped([float(each / weight) for each in squared]),
            root_mean_squared_error=self._shaped([float(products.root(each / weight)) for each in squared]),
            mean_absolute_error=self._shaped([float(each / weight) for each in sums["absolute"].fractions()]),
            mean_absolute_percentage_error=self._shaped(np.where(self._zeros > 0, math.nan, relative)),
            max_error=self._shaped(self._largest),
            r2=self._shaped([_explained(*each) for each in zip(squared, of_truths, strict=True)]),
            explained_variance=self._shaped([_explained(*each) for each in zip(of_errors, of_truths, strict=True)]),
        )

    def _shaped(self, found: list[float] | Floats) -> Values:
        return float(found[0]) if self.outputs is None else np.array(found, np.float64)

    def definition(self) -> dict[str, Any]:
        return {"outputs": self.outputs, "weighted": self.weighted}

    def parts(self) -> dict[str, NDArray[Any]]:
        plain = {"count": np.array(self.count), "largest": self._largest, "zeros": self._zeros}
        return {**plain, **products.as_parts(weight=self._weight, **self._sums)}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made.count = int(parts["count"])
        made._weight = products.of_parts(parts, "weight", 1)
        made._sums = {name: products.of_parts(parts, name, made._cells) for name in _SUMS}
        made._largest, made._zeros = parts["largest"].astype(np.float64), parts["zeros"].astype(np.int64)
        if made._largest.shape != (made._cells,) or made._zeros.shape != (made._cells,) or made.count < 0:
            raise BadInput(f"no errors of {made._cells} outputs")
        return made

    def _add(self, other: Self) -> None:
        self.count += other.count
        self._weight.merge(other._weight)
        for name, sums in self._sums.items():
            sums.merge(other._sums[name])
        self._largest = np.maximum(self._largest, other._largest)
        self._zeros += other._zeros


class MedianAbsoluteError(State):
    """Half of the errors are no larger. It keeps every error: 8 bytes each, 16 with weights."""

    def __init__(self, outputs: int | None = None, *, weighted: bool = False) -> None:
        self.outputs = _checked(outputs)
        self.weighted = weighted
        self._sizes: list[Floats] = []
        self._weights: list[Floats] = []

    def update(
        self, y_true: arrays.ArrayLike, y_pred: arrays.ArrayLike, weights: arrays.ArrayLike | None = None
    ) -> Self:
        """As `Regression.update`."""
        truth, called, heavy = _taken(self, y_true, y_pred, weights)
        sizes = np.abs(truth - called)
        self._sizes.append(sizes)
        if heavy is not None:
            self._weights.append(np.repeat(heavy[:, None], sizes.shape[1], axis=1))
        return self

    def compute(self) -> Values:
        """A float, or float64 [outputs]. With weights, the error that half of the weight lies below, or the middle of
        two when it lies between them."""
        sizes, weights = self._sorted()
        found = np.array(
            [_median(sizes[:, at], weights[:, at] if self.weighted else None) for at in range(sizes.shape[1])]
        )
        return float(found[0]) if self.outputs is None else found

    def _sorted(self) -> tuple[Floats, Floats]:
        """Of each output, errors ascending, and the weights that belong to them."""
        empty = np.zeros((0, self.outputs or 1))
        sizes = np.concatenate([empty, *self._sizes])
        if not self.weighted:
            return np.sort(sizes, axis=0), empty
        weights = np.concatenate([empty, *self._weights])
        order = np.lexsort((weights, sizes), axis=0)
        return np.take_along_axis(sizes, order, axis=0), np.take_along_axis(weights, order, axis=0)

    def definition(self) -> dict[str, Any]:
        return {"outputs": self.outputs, "weighted": self.weighted}

    def parts(self) -> dict[str, NDArray[Any]]:
        sizes, weights = self._sorted()
        return {"sizes": sizes, "weights": weights}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        for name in ("sizes", "weights"):
            found = arrays.finite(name, parts[name].astype(np.float64))
            kept = len(parts["sizes"]) if made.weighted or name == "sizes" else 0
            if found.shape != (kept, made.outputs or 1) or (found < 0).any():
                raise BadInput(f"no absolute errors of {made.outputs or 1} outputs: {name} {found.shape}")
            setattr(made, f"_{name}", [found])
        return made

    def _add(self, other: Self) -> None:
        self._sizes += other._sizes
        self._weights += other._weights


def pieces(
    truth: Floats, called: Floats, heavy: Floats | None
) -> Iterator[tuple[Floats, Floats, Floats | None, NDArray[np.int64] | None]]:
    """Of [n, outputs] and weights [n], row by row: truths, forecasts and weights [rows * outputs], and which output
    each is of; None where there is one."""
    outputs = truth.shape[1]
    step = max(1, products.CHUNK // outputs)
    for start in range(0, len(truth), step):
        part = slice(start, start + step)
        true = np.ascontiguousarray(truth[part]).reshape(-1)
        weight = None if heavy is None else np.repeat(heavy[part], outputs)
        cells = None if outputs == 1 else np.tile(np.arange(outputs), len(true) // outputs)
        yield true, np.ascontiguousarray(called[part]).reshape(-1), weight, cells


def _taken(
    state: Regression | MedianAbsoluteError,
    y_true: arrays.ArrayLike,
    y_pred: arrays.ArrayLike,
    weights: arrays.ArrayLike | None,
) -> tuple[Floats, Floats, Floats | None]:
    truth = products.numbers("y_true", y_true, state.outputs)
    called = products.numbers("y_pred", y_pred, state.outputs)
    arrays.same_length(y_true=len(truth), y_pred=len(called))
    heavy = arrays.weights_as_made(weights, len(truth), state.weighted)
    truth, called = truth.reshape(-1, state.outputs or 1), called.reshape(-1, state.outputs or 1)
    if heavy is None:
        return truth, called, None
    there = products.bounded("weights", heavy) > 0
    return truth[there], called[there], heavy[there]


def _checked(outputs: int | None) -> int | None:
    if outputs is not None and outputs < 1:
        raise BadInput(f"there is at least one output, not {outputs}")
    return outputs


def _explained(lost: Fraction, there: Fraction) -> float:
    return products.rounded(1 - lost / there) if there else math.nan


def _median(sizes: Floats, weights: Floats | None) -> float:
    """Of errors ascending."""
    if not len(sizes):
        return math.nan
    if weights is None:
        low, high = sizes[(len(sizes) - 1) // 2], sizes[len(sizes) // 2]
        return float(low + (high - low) / 2)
    whole = ExactSums.of(weights).fractions()[0]
    at = int(np.searchsorted(np.cumsum(weights), float(whole) / 2))  # near it: what was added was rounded
    below = ExactSums.of(weights[:at]).fractions()[0]
    while 2 * below >= whole:
        at -= 1
        below -= Fraction(weights[at])
    while 2 * (below + Fraction(weights[at])) < whole:
        below += Fraction(weights[at])
        at += 1
    high = at + 1 if 2 * (below + Fraction(weights[at])) == whole else at
    return float(sizes[at] + (sizes[high] - sizes[at]) / 2)
