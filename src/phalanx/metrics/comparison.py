"""Is A better than B on the same examples, or was it chance? McNemar's test of errors, the bootstrap of any metric.

Both saw the same examples, so that what is hard for both cancels out: judge the difference, not whether two intervals
overlap. DeLong's test of two rankings is in `paired`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.errors import BadInput
from phalanx.metrics.intervals import bootstrap_draws, normal_quantile, percent, percentile_interval, rounded
from phalanx.metrics.state import State

McNemar = Literal["exact", "chi2"]


@dataclass(frozen=True)
class Comparison:
    """Of `metric`, over `n` examples: `a`, `b`, their `difference` a - b within [low, high] at `level`, and the chance
    `p_value` of one at least so large if there were none. NaN where undefined. `undefined`: draws of a bootstrap that
    had no value and were left out."""

    metric: str
    method: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float
    n: int
    level: float = 0.95
    higher_is_better: bool = True
    undefined: int = 0

    @property
    def better(self) -> Literal["a", "b"] | None:
        """Which is, if it can be told: the p value lies below 1 - level."""
        if not self.p_value < 1 - self.level or self.difference == 0:
            return None
        return "a" if (self.difference > 0) == self.higher_is_better else "b"

    def sentence(self, a: str = "A", b: str = "B") -> str:
        """In plain words, with the names of the two."""
        if math.isnan(self.p_value):
            difference = rounded(self.difference, math.nan, math.nan)[0]
            return (
                f"nothing can be told: {a} minus {b} is {difference} {self.metric}, and its spread is undefined on "
                f"these {self.n:,} examples ({self.method})"
            )
        winner = {"a": a, "b": b}.get(self.better or "")
        numbers = (self.difference, self.low, self.high)
        if self.better == "b":
            numbers = (-self.difference, -self.high, -self.low)
        difference, low, high = rounded(*numbers)
        sign = "" if difference.startswith("-") else "+"
        chance = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        left_out = f", {self.undefined:,} draws undefined" if self.undefined else ""
        start = f"{winner} is better:" if winner else f"no difference can be told: {a} minus {b} is"
        return (
            f"{start} {sign}{difference} {self.metric} ({percent(self.level)} interval {low} to {high}, {chance}, "
            f"{self.method}{left_out})"
        )


class PairedAccuracy(State):
    """How often which of two is right, and McNemar's test (1947) of whether one is right more often.

    `exact`: of examples that one alone has right, each is a fair coin if they are equally good. `chi2`: the same for
    many of them, with the continuity `correction` of Edwards (1948). The interval is Tango's (1998), which is as wide
    as the test without correction takes it.
    """

    def __init__(self, method: McNemar = "exact", *, correction: bool = True, level: float = 0.95) -> None:
        if method not in ("exact", "chi2"):
            raise BadInput(f"McNemar's test is exact or chi2, not {method!r}")
        normal_quantile(level)
        self.method, self.correction, self.level = method, bool(correction), level
        self._counts = np.zeros(4, np.int64)  # none is right, only B, only A, both

    def update(self, y_true: arrays.ArrayLike, called_a: arrays.ArrayLike, called_b: arrays.ArrayLike) -> Self:
        """What examples are, and what each called them: labels [n]. Raises BadInput."""
        truth = _labels("y_true", y_true)
        called = _labels("called_a", called_a), _labels("called_b", called_b)
        arrays.same_length(y_true=len(truth), called_a=len(called[0]), called_b=len(called[1]))
        for name, each in zip(("called_a", "called_b"), called, strict=True):
            if len(truth) and (each.dtype.kind in "US") != (truth.dtype.kind in "US"):
                raise BadInput(f"{name} and y_true are not both words", remedy="give labels of one kind")
        self._counts += np.bincount(2 * (called[0] == truth) + (called[1] == truth), minlength=4)
        return self

    @property
    def only_a(self) -> int:
        """Examples that A alone has right."""
        return int(self._counts[2])

    @property
    def only_b(self) -> int:
        """Examples that B alone has right."""
        return int(self._counts[1])

    @property
    def both(self) -> int:
        """Examples that both have right."""
        return int(self._counts[3])

    def compute(self) -> Comparison:
        """Raises BadInput when there are no examples."""
        total = int(self._counts.sum())
        if not total:
            raise BadInput("there are no examples to compare on")
        low, high = _tango(self.only_a, self.only_b, total, normal_quantile(self.level))
        if self.method == "exact":
            name, p_value = "McNemar, exact", _fair_coins(self.only_a, self.only_b)
        else:
            name = f"McNemar, chi2{' with correction' if self.correction else ''}"
            p_value = _chi2(self.only_a, self.only_b, 1 if self.correction else 0)
        return Comparison(
            metric="accuracy",
            method=name,
            a=(self.both + self.only_a) / total,
            b=(self.both + self.only_b) / total,
            difference=(self.only_a - self.only_b) / total,
            low=low,
            high=high,
            p_value=p_value,
            n=total,
            level=self.level,
        )

    def definition(self) -> dict[str, Any]:
        return {"method": self.method, "correction": self.correction, "level": self.level}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"counts": self._counts}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made, counts = cls(**definition), parts["counts"]
        if counts.shape != (4,) or counts.dtype != np.int64 or (counts < 0).any():
            raise BadInput("no counts of two that were compared")
        made._counts = counts.copy()
        return made

    def _add(self, other: Self) -> None:
        self._counts += other._counts


def mcnemar_test(
    y_true: arrays.ArrayLike,
    called_a: arrays.ArrayLike,
    called_b: arrays.ArrayLike,
    method: McNemar = "exact",
    *,
    correction: bool = True,
    level: float = 0.95,
) -> Comparison:
    """Of the accuracies of two, by their labels [n]. Raises BadInput."""
    return PairedAccuracy(method, correction=correction, level=level).update(y_true, called_a, called_b).compute()


def paired_bootstrap(
    metric: Callable[[Any, Any], float],
    y_true: arrays.ArrayLike,
    a: arrays.ArrayLike,
    b: arrays.ArrayLike,
    *,
    name: str | None = None,
    higher_is_better: bool = True,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    clusters: arrays.ArrayLike | None = None,
    strata: arrays.ArrayLike | None = None,
) -> Comparison:
    """Of `metric(y_true, a)` and `metric(y_true, b)`, drawing the same examples anew for both (`intervals.bootstrap`).

    The p value is twice the smaller share of draws on one side of no difference, these data counted among them
    (Davison and Hinkley 1997, 4.2): with 1,000 draws none below 0.002. Raises BadInput.
    """

    def difference(truth: Any, of_a: Any, of_b: Any) -> float:
        return float(metric(truth, of_a)) - float(metric(truth, of_b))

    truth, of_a, of_b = arrays.array("y_true", y_true), arrays.array("a", a), arrays.array("b", b)
    arrays.same_length(y_true=len(truth), a=len(of_a), b=len(of_b))
    value, draws = bootstrap_draws(
        difference, truth, of_a, of_b, repeats=repeats, seed=seed, clusters=clusters, strata=strata
    )
    found = percentile_interval(value, draws, level)
    p_value = math.nan
    if not math.isnan(found.low):
        defined = draws[~np.isnan(draws)]
        smaller = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
        p_value = min(1.0, 2 * (smaller + 1) / (len(defined) + 1))
    return Comparison(
        metric=name or str(getattr(metric, "__name__", "metric")),
        method="paired bootstrap",
        a=float(metric(truth, of_a)),
        b=float(metric(truth, of_b)),
        difference=value,
        low=found.low,
        high=found.high,
        p_value=p_value,
        n=len(truth),
        level=level,
        higher_is_better=higher_is_better,
        undefined=found.undefined,
    )


def _labels(name: str, data: arrays.ArrayLike) -> NDArray[Any]:
    found = arrays.column(name, data)
    return arrays.finite(name, found) if found.dtype.kind == "f" else found


def _fair_coins(heads: int, tails: int) -> float:
    """The chance that fair coins fall at least so unevenly, to either side (binomial, two-sided)."""
    fewer, coins = min(heads, tails), heads + tails
    # From the largest term down: that of k - 1 heads is k / (coins - k + 1) of that of k, and ten root(coins) further
    # it is e^-200 of it.
    last = max(fewer - 10 * math.isqrt(coins) - 10, 0)
    steps = np.arange(fewer, last, -1, dtype=np.float64)
    terms = 1 + float(np.cumprod(steps / (coins - steps + 1)).sum())
    largest = math.lgamma(coins + 1) - math.lgamma(fewer + 1) - math.lgamma(coins - fewer + 1) - coins * math.log(2)
    return min(1.0, 2 * math.exp(largest) * terms)


def _chi2(heads: int, tails: int, correction: int) -> float:
    """The same by the chi-squared distribution of one degree of freedom. 1 where nothing tells the two apart."""
    apart = max(abs(heads - tails) - correction, 0)
    return math.erfc(math.sqrt(apart**2 / (heads + tails) / 2)) if apart else 1.0


def _tango(only_a: int, only_b: int, total: int, deviations: float) -> tuple[float, float]:
    """The differences of two paired shares that a score test does not refuse (Tango 1998), found by halving."""

    def score(difference: float) -> float:
        linear = (2 * total - only_a + only_b) * difference - only_a - only_b
        constant = -only_b * difference * (1 - difference)
        share = (math.sqrt(max(linear**2 - 8 * total * constant, 0)) - linear) / (4 * total)  # of B alone right
        variance = total * (2 * share + difference * (1 - difference))
        away = only_a - only_b - total * difference
        return away / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, away)

    def crossing(low: float, high: float, wanted: float) -> float:
        """Where the score, which falls, passes `wanted`."""
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > wanted else (low, middle)
        return (low + high) / 2

    estimate = (only_a - only_b) / total
    return crossing(-1.0, estimate, deviations), crossing(estimate, 1.0, -deviations)
