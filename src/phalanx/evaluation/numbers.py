"""How far forecasts of amounts (prices, ages, times) are off: of all and by slice, with intervals, and the worst ones.

Two passes: errors and correlations; then what needs their means: standard errors by the delta method (of the mean of a
statistic's influence function), the truth beside forecasts of one size, and the largest errors. All sums are exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.evaluation.documents import metrics_row, without_nan
from phalanx.evaluation.errors import UnusablePredictions
from phalanx.evaluation.passes import Passes, Progress, blamed
from phalanx.evaluation.predictions import Batch, Predictions
from phalanx.evaluation.worst import Found, Worst
from phalanx.metrics import (
    BadInput,
    ExactSums,
    Pearson,
    Regression,
    RegressionErrors,
    Slices,
    Spearman,
    State,
    arrays,
    products,
)
from phalanx.metrics.intervals import ConfidenceInterval, normal_quantile

LEVEL = 0.95
BINS = 20
WORST = 10
MOST_RANKED = 20_000_000  # pairs, of 16 bytes, that ranks are made of


@dataclass(frozen=True)
class Bin:
    """Forecasts in [low, high): how many, and the mean of what is true of them."""

    low: float
    high: float
    count: int
    truth: float


@dataclass(frozen=True)
class NumbersReport:
    """`numbers`: of each metric the value and its interval. `mean`, `deviation`: of the truths."""

    source: tuple[str, ...]
    examples: int
    numbers: Mapping[str, ConfidenceInterval]
    mean: float
    deviation: float
    bins: tuple[Bin, ...]
    slices: Mapping[str, tuple[int, ConfidenceInterval]]
    worst: tuple[Found, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: what is undefined is null."""
        document = {
            "schema": 1,
            "kind": "numbers",
            "source": self.source,
            "examples": self.examples,
            "numbers": {name: asdict(found) for name, found in self.numbers.items()},
            "truths": {"mean": self.mean, "deviation": self.deviation},
            "bins": [asdict(each) for each in self.bins],
            "slices": [
                {"name": name, "examples": count, "mae": asdict(found)} for name, (count, found) in self.slices.items()
            ],
            "worst": [
                {"off_by": size, "file": file, "row": row, "shown": shown} for size, file, row, shown in self.worst
            ],
        }
        found: dict[str, Any] = without_nan(document)
        return found

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def rows(self) -> Iterable[dict[str, Any]]:
        """Rows of the table `metrics`."""
        source = ",".join(self.source)
        for name, found in self.numbers.items():
            yield metrics_row(source, name, found, "all", None, self.examples)
        for slice_, (count, found) in self.slices.items():
            yield metrics_row(source, "mae", found, slice_, None, count)


class Overview(State):
    """The first pass: errors, correlations, the spread of truths, and between what forecasts lie.

    Ranks need all pairs: beyond MOST_RANKED there are none.
    """

    def __init__(self) -> None:
        self.errors, self.line, self.order = Regression(), Pearson(), Spearman()
        self._truths, self._squares, self._errors = ExactSums(), ExactSums(), ExactSums()
        self.low, self.high = math.inf, -math.inf

    def update(self, truth: arrays.ArrayLike, forecast: arrays.ArrayLike) -> Self:
        """Amounts [n] each. Raises BadInput."""
        true, called = products.numbers("label", truth), products.numbers("prediction", forecast)
        self.errors.update(true, called)
        self.line.update(true, called)
        self.order = self.order.update(true, called) if self.errors.count <= MOST_RANKED else Spearman()
        products.add_product(self._truths, None, true)
        products.add_product(self._squares, None, true, true)
        products.add_product(self._errors, None, called)
        products.add_product(self._errors, None, -true)
        if len(called):
            self.low, self.high = min(self.low, float(called.min())), max(self.high, float(called.max()))
        return self

    def compute(self) -> tuple[RegressionErrors, float, float, float, float, float]:
        """Errors, Pearson, Spearman (NaN where there were too many), mean and deviation of truths, mean of errors."""
        count = Fraction(self.errors.count)
        if not count:
            raise BadInput("there are no examples", remedy="write the predictions again")
        (spread,) = products.spreads(self._squares, self._truths, self._truths, count)
        ranked = self.order.compute() if self.errors.count <= MOST_RANKED else math.nan
        return (
            self.errors.compute(),
            self.line.compute(),
            ranked,
            float(self._truths.fractions()[0] / count),
            float(products.root(spread / count)),
            float(self._errors.fractions()[0] / count),
        )

    def definition(self) -> dict[str, Any]:
        return {}

    def parts(self) -> dict[str, NDArray[Any]]:
        states = {"errors": self.errors, "line": self.line, "order": self.order}
        return {
            **{name: np.frombuffer(state.to_bytes(), np.uint8) for name, state in states.items()},
            **products.as_parts(truths=self._truths, squares=self._squares, means=self._errors),
            "ends": np.array([self.low, self.high]),
        }

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        for state, name in ((made.errors, "errors"), (made.line, "line"), (made.order, "order")):
            state.merge(State.from_bytes(parts[name].tobytes()))  # type: ignore[arg-type]  # it says if it is another
        made._truths, made._squares, made._errors = (
            products.of_parts(parts, name, 1) for name in ("truths", "squares", "means")
        )
        made.low, made.high = parts["ends"].tolist()
        return made

    def _add(self, other: Self) -> None:
        self.errors.merge(other.errors)
        self.line.merge(other.line)
        self.order = self.order.merge(other.order) if self.errors.count <= MOST_RANKED else Spearman()
        self._truths.merge(other._truths)
        self._squares.merge(other._squares)
        self._errors.merge(other._errors)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


class Judged(State):
    """The second pass: squares of influences on the mean squared error and on R2, truths by forecast, largest errors.

    `mse`, `mean`, `variance`: of the first pass; `low`, `high`: the least and the largest forecast.
    """

    def __init__(self, mse: float, mean: float, variance: float, low: float, high: float) -> None:
        self.mse, self.mean, self.variance, self.low, self.high = mse, mean, variance, low, high
        self._influences = ExactSums(2)
        self._truths, self._counts = ExactSums(BINS), np.zeros(BINS, np.int64)
        self._worst = Worst(WORST)

    def update(self, batch: Batch) -> Self:
        """Roles label and prediction."""
        true, called = batch["label"].astype(np.float64), batch["prediction"].astype(np.float64)
        errors = called - true
        on_mse = errors**2 - self.mse
        self._influences.add(on_mse**2, np.zeros(len(true), np.int64))
        if self.variance > 0:
            on_r2 = self.mse * (true - self.mean) ** 2 / self.variance**2 - errors**2 / self.variance
            self._influences.add(on_r2**2, np.ones(len(true), np.int64))
        width = (self.high - self.low) or 1.0
        places = np.clip((called - self.low) / width * BINS, 0, BINS - 1).astype(np.int64)
        self._counts += np.bincount(places, minlength=BINS)
        self._truths.add(true, places)
        shown = {"truth": batch["label"], "forecast": batch["prediction"]}
        self._worst.add(batch, np.abs(errors), np.ones(len(true), np.bool_), **shown)
        return self

    def compute(self) -> tuple[float, float, tuple[Bin, ...], tuple[Found, ...]]:
        """Standard errors of the mean squared error and of R2; bins that hold something; the worst."""
        count = int(self._counts.sum())
        of_mse, of_r2 = (math.sqrt(each) / count for each in self._influences.values().tolist())
        edges = np.linspace(self.low, self.high, BINS + 1).tolist()
        bins = [
            Bin(low, high, number, total / number)
            for low, high, number, total in zip(
                edges[:-1], edges[1:], self._counts.tolist(), self._truths.values().tolist(), strict=True
            )
            if number
        ]
        return of_mse, of_r2, tuple(bins), tuple(self._worst.found())

    def definition(self) -> dict[str, Any]:
        names = ("mse", "mean", "variance", "low", "high")
        return {name: float(getattr(self, name)).hex() for name in names}

    def parts(self) -> dict[str, NDArray[Any]]:
        sums = products.as_parts(influences=self._influences, truths=self._truths)
        return {**sums, "counts": self._counts, "worst": self._worst.part()}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**{name: float.fromhex(value) for name, value in definition.items()})
        made._influences = products.of_parts(parts, "influences", 2)
        made._truths, made._counts = products.of_parts(parts, "truths", BINS), parts["counts"]
        made._worst = Worst.of_part(parts, "worst", WORST)
        return made

    def _add(self, other: Self) -> None:
        self._influences.merge(other._influences)
        self._truths.merge(other._truths)
        self._counts = self._counts + other._counts
        self._worst.merge(other._worst)


def numbers_report(
    predictions: Predictions, *, ranks: int = 1, progress: Progress = lambda stage, share: None
) -> NumbersReport:
    """Of a forecast for each amount. Raises UnusablePredictions, BadInput, EvaluationError when a rank dies."""
    if predictions.has("weight"):
        raise UnusablePredictions("amounts are counted, not weighed", remedy="leave --weight out")
    if not predictions.has("prediction"):
        raise UnusablePredictions(
            "nothing is forecast", where=str(predictions.files[0]), remedy="name the column of forecasts: --prediction"
        )
    roles = ["label", "prediction"]
    with Passes(predictions, ranks, progress) as passes:
        overview = passes.run("measuring", Overview(), roles)
        with blamed(str(predictions.files[0])):
            errors, pearson, spearman, mean, deviation, bias = overview.compute()
        judged = Judged(errors.mean_squared_error, mean, deviation**2, overview.low, overview.high)
        of_mse, of_r2, bins, worst = passes.run("judging", judged, roles, shown=True).compute()
        slices: dict[str, tuple[int, ConfidenceInterval]] = {}
        if predictions.has("slice"):
            by_slice = passes.run("cutting", Slices(Regression()), ["slice", *roles]).compute()
            slices = {str(name): (found.count, _mae(found)) for name, found in by_slice.items()}
    count = errors.count
    numbers = {
        "mae": _mae(errors),
        "rmse": _root(_normal(errors.mean_squared_error, of_mse)),
        "bias": _normal(bias, math.sqrt(max(errors.mean_squared_error - bias**2, 0.0) / count)),
        "r2": _normal(errors.r2, of_r2 if deviation > 0 else math.nan),
        "pearson": _fisher(pearson, count, 1.0),
        "spearman": _fisher(spearman, count, 1 + spearman**2 / 2),
    }
    return NumbersReport(tuple(map(str, predictions.files)), count, numbers, mean, deviation, bins, slices, worst)


def _mae(errors: RegressionErrors) -> ConfidenceInterval:
    spread = max(errors.mean_squared_error - errors.mean_absolute_error**2, 0.0)
    return _normal(errors.mean_absolute_error, math.sqrt(spread / errors.count))


def _normal(value: float, error: float) -> ConfidenceInterval:
    reach = normal_quantile(LEVEL) * error
    return ConfidenceInterval(value, value - reach, value + reach, LEVEL, "normal, of the standard error")


def _root(square: ConfidenceInterval) -> ConfidenceInterval:
    value, low, high = (math.sqrt(max(each, 0.0)) for each in (square.value, square.low, square.high))
    return ConfidenceInterval(value, low, high, square.level, square.method)


def _fisher(value: float, count: int, spread: float) -> ConfidenceInterval:
    """Of a correlation (Fisher 1915). `spread`: 1 for Pearson's, 1 + r^2 / 2 for Spearman's (Bonett, Wright 2000)."""
    if count <= 3 or not abs(value) < 1:
        return ConfidenceInterval(value, math.nan, math.nan, LEVEL, "Fisher")
    reach = normal_quantile(LEVEL) * math.sqrt(spread / (count - 3))
    middle = math.atanh(value)
    return ConfidenceInterval(value, math.tanh(middle - reach), math.tanh(middle + reach), LEVEL, "Fisher")
