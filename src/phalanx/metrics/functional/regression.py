"""Errors of forecasts, under scikit-learn's names. The sums are those of `phalanx.metrics.regression`, bit by bit.

Everywhere `y_true` and `y_pred` are numbers [n] or [n, outputs], `sample_weight` [n]; `multioutput` says what becomes
of several outputs: "raw_values" (each), "uniform_average" or weights of them. Numbers beyond 1e100 are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from phalanx.metrics import arrays, products
from phalanx.metrics.errors import BadInput
from phalanx.metrics.functional.targets import consistent, finite, sample_weights, undefined
from phalanx.metrics.products import Floats, add_product
from phalanx.metrics.regression import MedianAbsoluteError, pieces
from phalanx.metrics.sums import ExactSums

_AVERAGES = ("raw_values", "uniform_average", "variance_weighted")
Factors = tuple[Floats, ...]


def mean_squared_error(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, multioutput: Any = "uniform_average"
) -> Any:
    """Mean of squared errors."""
    data = _checked(y_true, y_pred, sample_weight, multioutput)
    return _over_outputs(data.means(_squared), multioutput)


def root_mean_squared_error(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, multioutput: Any = "uniform_average"
) -> Any:
    """Root of the mean of squared errors, of each output before any average of them."""
    data = _checked(y_true, y_pred, sample_weight, multioutput)
    return _over_outputs(np.sqrt(data.means(_squared)), multioutput)


def mean_squared_log_error(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, multioutput: Any = "uniform_average"
) -> Any:
    """Mean squared error of log(1 + y)."""
    data = _logarithms(_checked(y_true, y_pred, sample_weight, multioutput), "Mean")
    return _over_outputs(data.means(_squared), multioutput)


def root_mean_squared_log_error(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, multioutput: Any = "uniform_average"
) -> Any:
    """Its root, of each output."""
    data = _logarithms(_checked(y_true, y_pred, sample_weight, multioutput), "Root Mean")
    return _over_outputs(np.sqrt(data.means(_squared)), multioutput)


def mean_absolute_error(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, multioutput: Any = "uniform_average"
) -> Any:
    """Mean of absolute errors."""
    data = _checked(y_true, y_pred, sample_weight, multioutput)
    return _over_outputs(data.means(lambda true, called: (np.abs(true - called),)), multioutput)


def mean_absolute_percentage_error(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, multioutput: Any = "uniform_average"
) -> Any:
    """Mean of absolute errors as shares of the truth, which counts as 2.2e-16 where it is nearer to 0."""
    data = _checked(y_true, y_pred, sample_weight, multioutput)
    least = np.finfo(np.float64).eps
    shares = data.means(lambda true, called: (np.abs(called - true) / np.maximum(np.abs(true), least),))
    return _over_outputs(shares, multioutput)


def mean_pinball_loss(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, alpha: float = 0.5, multioutput: Any = "uniform_average"
) -> Any:
    """Mean of errors, those of forecasts too low times `alpha`, of those too high times 1 - `alpha`: least for the
    quantile `alpha` (Koenker and Bassett 1978)."""
    if not 0 <= alpha <= 1:
        raise BadInput(
            f"The 'alpha' parameter of mean_pinball_loss must be a float in the range [0.0, 1.0]. Got "
            f"{alpha!r} instead."
        )
    data = _checked(y_true, y_pred, sample_weight, multioutput)

    def loss(true: Floats, called: Floats) -> Factors:
        error = true - called
        return (np.where(error >= 0, alpha * error, (alpha - 1) * error),)

    return _over_outputs(data.means(loss), multioutput)


def median_absolute_error(
    y_true: Any, y_pred: Any, *, multioutput: Any = "uniform_average", sample_weight: Any = None
) -> Any:
    """Half of the absolute errors are no larger, by weight."""
    data = _checked(y_true, y_pred, sample_weight, multioutput)
    state = MedianAbsoluteError(data.truth.shape[1], weighted=data.weights is not None)
    return _over_outputs(state.update(data.truth, data.called, data.weights).compute(), multioutput)


def max_error(y_true: Any, y_pred: Any) -> float:
    """The largest absolute error, of one output."""
    data = _checked(y_true, y_pred, None, None)
    if data.truth.shape[1] > 1:
        raise BadInput("Multioutput not supported in max_error")
    return float(np.abs(data.truth - data.called).max())


def explained_variance_score(
    y_true: Any,
    y_pred: Any,
    *,
    sample_weight: Any = None,
    multioutput: Any = "uniform_average",
    force_finite: bool = True,
) -> Any:
    """1 - variance of errors / variance of truths. Of truths all the same, with `force_finite`, 1 for no error and
    else 0. `multioutput` may be "variance_weighted"."""
    data = _checked(y_true, y_pred, sample_weight, multioutput)
    lost = data.spreads(lambda true, called: (true - called,))
    return _share_explained(lost, data.spreads(_truth), multioutput, force_finite=force_finite)


def r2_score(
    y_true: Any,
    y_pred: Any,
    *,
    sample_weight: Any = None,
    multioutput: Any = "uniform_average",
    force_finite: bool = True,
) -> Any:
    """1 - squared errors / squared distances of the truths from their mean. Of truths all the same, with
    `force_finite`, 1 for no error and else 0. `multioutput` may be "variance_weighted"."""
    data = _checked(y_true, y_pred, sample_weight, multioutput)
    if len(data.called) < 2:
        undefined("R^2 score is not well-defined with less than two samples.")
        return math.nan
    lost = data.sums(_squared).fractions()
    return _share_explained(lost, data.spreads(_truth), multioutput, force_finite=force_finite)


@dataclass(frozen=True)
class _Data:
    """`truth`, `called` float64 [n, outputs]; `weights` float64 [n]."""

    truth: Floats
    called: Floats
    weights: Floats | None

    def sums(self, loss: Callable[[Floats, Floats], Factors]) -> ExactSums:
        """Of each output, of the product of these factors and the weight."""
        sums = ExactSums(self.truth.shape[1])
        for true, called, weight, cells in pieces(self.truth, self.called, self.weights):
            add_product(sums, cells, *loss(true, called), weight)
        return sums

    def means(self, loss: Callable[[Floats, Floats], Factors]) -> Floats:
        """By weight [outputs]."""
        weight = self.weight()
        return np.array([float(each / weight) for each in self.sums(loss).fractions()])

    def spreads(self, value: Callable[[Floats, Floats], Factors]) -> list[Fraction]:
        """Of each output, squared distances of the value from its mean."""
        once = self.sums(value)
        return products.spreads(self.sums(lambda true, called: value(true, called) * 2), once, once, self.weight())

    def weight(self) -> Fraction:
        return Fraction(len(self.truth)) if self.weights is None else ExactSums.of(self.weights).fractions()[0]


def _squared(true: Floats, called: Floats) -> Factors:
    error = true - called
    return error, error


def _truth(true: Floats, called: Floats) -> Factors:
    return (true,)


def _checked(y_true: Any, y_pred: Any, sample_weight: Any, multioutput: Any) -> _Data:
    consistent(y_true=_with_length(y_true), y_pred=_with_length(y_pred), sample_weight=_with_length(sample_weight))
    truth, called = _numbers("y_true", y_true), _numbers("y_pred", y_pred)
    if truth.shape[1] != called.shape[1]:
        raise BadInput(f"y_true and y_pred have different number of output ({truth.shape[1]}!={called.shape[1]})")
    weights = sample_weights(sample_weight, len(truth))
    if weights is not None:
        weights = products.bounded("sample_weight", weights.astype(np.float64))
        if not weights.any():
            raise BadInput("Sample weights must contain at least one non-zero number.")
        if not weights.sum():
            raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    if isinstance(multioutput, str):
        if multioutput not in _AVERAGES:
            raise BadInput(
                f"Allowed 'multioutput' string values are {_AVERAGES}. You provided multioutput={multioutput!r}"
            )
    elif multioutput is not None:
        shares = arrays.column("multioutput", multioutput)
        if truth.shape[1] == 1:
            raise BadInput("Custom weights are useful only in multi-output cases.")
        if len(shares) != truth.shape[1]:
            raise BadInput(f"There must be equally many custom weights ({len(shares)}) as outputs ({truth.shape[1]}).")
    return _Data(truth, called, weights)


def _with_length(data: Any) -> Any:
    return data if hasattr(data, "__len__") else None


def _numbers(name: str, data: Any) -> Floats:
    """[n, outputs]."""
    found = arrays.array(name, data)
    if found.ndim not in (1, 2):
        raise BadInput(f"Found array with dim {found.ndim}, while dim <= 2 is required: {name} is [n] or [n, outputs].")
    if not len(found):
        raise BadInput(f"Found array with 0 sample(s) (shape={found.shape}) while a minimum of 1 is required.")
    if found.dtype.kind == "U":
        found = found.astype(np.float64)  # a ValueError of numpy's for words that are no numbers
    wide = finite(name, arrays.floats(name, found)).astype(np.float64, copy=False)
    return products.bounded(name, wide).reshape(len(found), -1)


def _logarithms(data: _Data, what: str) -> _Data:
    if (data.truth <= -1).any() or (data.called <= -1).any():
        raise BadInput(
            f"{what} Squared Logarithmic Error cannot be used when targets contain values less than or equal to -1."
        )
    return _Data(np.log1p(data.truth), np.log1p(data.called), data.weights)


def _over_outputs(found: Floats, multioutput: Any) -> Any:
    if isinstance(multioutput, str) and multioutput == "raw_values":
        return found
    if isinstance(multioutput, str) and multioutput == "variance_weighted":
        raise BadInput("multioutput='variance_weighted' is only for r2_score and explained_variance_score")
    return float(np.average(found, weights=None if isinstance(multioutput, str) else multioutput))


def _share_explained(lost: list[Fraction], there: list[Fraction], multioutput: Any, *, force_finite: bool) -> Any:
    each = []
    for part, whole in zip(lost, there, strict=True):
        if whole:
            each.append(products.rounded(1 - part / whole))
        elif force_finite:
            each.append(0.0 if part else 1.0)
        else:
            each.append(-math.inf if part else math.nan)
    if isinstance(multioutput, str) and multioutput == "variance_weighted":
        multioutput = [float(whole) for whole in there] if any(there) else None
    return _over_outputs(np.array(each), multioutput)
