"""How well a detector finds a few needles in a large haystack, in numbers and words that mean what they say.

Two passes rank exactly (`metrics.ranking`); the threshold is chosen among the needles' scores, since between two of
them only false alarms change; a third pass counts what it calls, by slice, and keeps the worst examples. Shares have
Wilson's interval, the ROC area DeLong's, average precision one by the bootstrap. What is 0/0 is undefined: NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.evaluation.calling import AtThreshold, Called, Example, Label
from phalanx.evaluation.chances import Chances, ChanceStates
from phalanx.evaluation.documents import metrics_row, without_nan
from phalanx.evaluation.errors import UnusablePredictions
from phalanx.evaluation.passes import Passes, Progress, blamed
from phalanx.evaluation.predictions import Predictions
from phalanx.evaluation.words import AS_GIVEN, amount
from phalanx.metrics import Curve, Needles
from phalanx.metrics.intervals import ConfidenceInterval, bootstrap_ranking, roc_auc_interval, wilson

POINTS = 400  # of a curve on a page
FPRS = (1e-2, 1e-3, 1e-4, 1e-5)
DRAWS, DRAWN_NUMBERS = 400, 20_000_000


@dataclass(frozen=True)
class Wish:
    """What a threshold is chosen by; at most one of them. `costs`: of a missed needle and of a false alarm.

    `alerts_per_day` needs a `volume`, examples a day. `base_rate`: of needles where it will run; None: as here.
    """

    threshold: float | None = None
    recall: float | None = None
    alerts_per_day: float | None = None
    costs: tuple[float, float] | None = None
    volume: float | None = None
    base_rate: float | None = None

    def __post_init__(self) -> None:
        named = [name for name in ("threshold", "recall", "alerts_per_day", "costs") if getattr(self, name) is not None]
        if len(named) > 1:
            raise UnusablePredictions(
                f"a threshold is chosen by one thing, not by {' and '.join(named)}", remedy="leave one of them out"
            )
        for name, low, high in (("recall", 0.0, 1.0), ("base_rate", 0.0, 1.0)):
            value = getattr(self, name)
            if value is not None and not low < value <= high:
                raise UnusablePredictions(f"{name.replace('_', ' ')} lies above 0 and up to 1, not {value:g}")
        for name in ("alerts_per_day", "volume"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UnusablePredictions(f"{name.replace('_', ' ')} is a number above 0, not {value:g}")
        if self.costs is not None and not all(cost > 0 and math.isfinite(cost) for cost in self.costs):
            raise UnusablePredictions(f"the costs of a miss and of a false alarm lie above 0, not {self.costs}")
        if self.alerts_per_day is not None and self.volume is None:
            raise UnusablePredictions(
                "an alert budget needs a volume", remedy="say how many examples come a day: --volume N"
            )


@dataclass(frozen=True)
class NeedlesReport:
    """`precision_there`: at the base rate `base_rate`. `recall_at`: by false-positive rate. Curves: (x, y) points.
    `chances`: of scores that all lie from 0 to 1."""

    source: tuple[str, ...]
    positive: Label | None
    called: Called
    slices: tuple[Called, ...]
    threshold: float
    chosen_by: str
    roc_auc: ConfidenceInterval
    average_precision: ConfidenceInterval
    recall_at: Mapping[float, ConfidenceInterval]
    base_rate: float
    precision_there: ConfidenceInterval
    volume: float | None
    alerts_per_day: ConfidenceInterval | None
    false_alarms_per_day: ConfidenceInterval | None
    precision_recall_curve: tuple[tuple[float, float], ...]
    roc_curve: tuple[tuple[float, float], ...]
    histogram: tuple[tuple[float, float, int, int], ...]
    chances: Chances | None
    worst: tuple[Example, ...]

    @property
    def rate_here(self) -> float:
        """Share of needles in these examples."""
        return self.called.needles / (self.called.needles + self.called.straws)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: what is undefined is null."""
        shares = ("recall", "precision", "false_positive_rate", "specificity", "f1", "accuracy")

        def counted(each: Called) -> dict[str, Any]:
            return {
                **asdict(each),
                **{name: asdict(getattr(each, name)) for name in shares},
            }

        document = asdict(self) | {
            "schema": 1,
            "kind": "needles",
            "called": counted(self.called),
            "slices": [counted(each) for each in self.slices],
            "recall_at": [{"false_positive_rate": rate, **asdict(found)} for rate, found in self.recall_at.items()],
            "rate_here": self.rate_here,
        }
        found: dict[str, Any] = without_nan(document)
        return found

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def rows(self) -> Iterable[dict[str, Any]]:
        """Rows of the table `metrics`."""
        numbers: dict[str, float | ConfidenceInterval] = {
            "roc_auc": self.roc_auc,
            "average_precision": self.average_precision,
            "precision_at_base_rate": self.precision_there,
        }
        if self.chances is not None:
            numbers |= {name: getattr(self.chances, name) for name in ("brier", "log_loss", "expected_error")}
        for rate, found in self.recall_at.items():
            numbers[f"recall_at_fpr_{rate:g}"] = found
        for each in (self.called, *self.slices):
            here = dict(numbers) if each is self.called else {}
            shares = ("recall", "precision", "false_positive_rate", "f1", "accuracy")
            here |= {name: getattr(each, name) for name in shares}
            for name, value in here.items():
                yield metrics_row(
                    ",".join(self.source), name, value, each.name, self.threshold, each.needles + each.straws
                )


def needles_report(
    predictions: Predictions,
    wish: Wish | None = None,
    *,
    positive: Label | None = None,
    ranks: int = 1,
    progress: Progress = lambda stage, share: None,
) -> NeedlesReport:
    """Of a score for each example. Raises UnusablePredictions and BadInput, and EvaluationError when a rank dies."""
    wish = wish or Wish()
    if predictions.has("weight"):
        raise UnusablePredictions("needles are counted, not weighed", remedy="leave --weight out")
    if not predictions.has("score"):
        raise UnusablePredictions(
            "a report of needles wants scores, not only classes",
            where=str(predictions.files[0]),
            remedy="name them: --score",
        )
    with Passes(predictions, ranks, progress) as passes:
        needles = passes.run("finding", Needles(positive), ("label", "score"))
        with blamed(str(predictions.files[0])):
            gaps = passes.run("ranking", needles.gaps(), ("label", "score"))
            curve = gaps.compute()
        here = curve.positives / (curve.positives + curve.negatives)
        base_rate = wish.base_rate if wish.base_rate is not None else here
        threshold, chosen_by = choose(curve, wish, base_rate)
        ends = [float(curve.scores[-1]), float(curve.scores[0]), *([threshold] if math.isfinite(threshold) else [])]
        reach = (max(ends) - min(ends)) * 0.25
        judged = AtThreshold(threshold, min(ends) - reach, max(ends) + reach, positive)
        roles = ("label", "score", *(("slice",) if predictions.has("slice") else ()))
        state = passes.run("judging", judged, roles, shown=True)
        chances = None
        if state.extremes[0] >= 0 and state.extremes[1] <= 1:
            chances = passes.run("calibrating", ChanceStates(positive), ("label", "score")).compute()
    if wish.threshold is not None and not state.extremes[0] <= wish.threshold <= state.extremes[1]:
        raise UnusablePredictions(
            f"the threshold {wish.threshold:g} lies outside the scores, which are {state.extremes[0]:g} to "
            f"{state.extremes[1]:g}: it calls {'all' if wish.threshold < state.extremes[0] else 'none'} a needle",
            where=str(predictions.files[0]),
            remedy="name one between, or let it be chosen: --recall, --alerts-per-day, --cost-miss",
        )
    called, slices, worst = state.compute()
    recall, false_rate = called.recall, called.false_positive_rate
    alerts = false_alarms = None
    if wish.volume is not None:
        found_needles = times(recall, base_rate * wish.volume)
        false_alarms = times(false_rate, (1 - base_rate) * wish.volume)
        alerts = both(found_needles, false_alarms)
    return NeedlesReport(
        source=tuple(map(str, predictions.files)),
        positive=positive,
        called=replace(called, name="all"),
        slices=slices,
        threshold=threshold,
        chosen_by=chosen_by,
        roc_auc=roc_auc_interval(curve, logit=True),
        average_precision=_average_precision(curve),
        recall_at={rate: _recall_at(curve, rate) for rate in FPRS if rate * curve.negatives >= 1},
        base_rate=base_rate,
        precision_there=precision_at(base_rate, recall, false_rate),
        volume=wish.volume,
        alerts_per_day=alerts,
        false_alarms_per_day=false_alarms,
        precision_recall_curve=_thinned(
            curve.true_positives / curve.positives,
            curve.true_positives / (curve.true_positives + curve.false_positives),
        ),
        roc_curve=_thinned(*curve.roc(), closest=0.5 / curve.negatives),
        histogram=state.histogram(),
        chances=chances,
        worst=worst,
    )


def choose(curve: Curve, wish: Wish, base_rate: float) -> tuple[float, str]:
    """A threshold among the needles' scores, infinity to call nothing; and by what it was chosen."""
    recall = curve.true_positives / curve.positives
    false_rate = curve.false_positives / curve.negatives
    if wish.threshold is not None:
        return wish.threshold, AS_GIVEN
    if wish.recall is not None:
        index = int(np.argmax(recall >= wish.recall * (1 - 1e-12)))
        return float(curve.scores[index]), f"the highest that finds {wish.recall:.4g} of the needles"
    if wish.alerts_per_day is not None and wish.volume is not None:
        alerts = (base_rate * recall + (1 - base_rate) * false_rate) * wish.volume
        affordable = np.flatnonzero(alerts <= wish.alerts_per_day)
        words = f"the lowest with at most {amount(wish.alerts_per_day)} alerts a day, of {amount(wish.volume)} examples"
        return (float(curve.scores[affordable[-1]]) if len(affordable) else math.inf), words
    if wish.costs is not None:
        miss, alarm = wish.costs
        costs = base_rate * (1 - recall) * miss + (1 - base_rate) * false_rate * alarm
        words = f"the cheapest, where a missed needle costs {miss:g} and a false alarm {alarm:g}"
        cheapest = int(np.argmin(costs))
        return (float(curve.scores[cheapest]) if costs[cheapest] < base_rate * miss else math.inf), words
    called = curve.true_positives + curve.false_positives
    best = int(np.argmax(2 * curve.true_positives / (called + curve.positives)))
    return float(curve.scores[best]), "the one with the highest F1 here, as no other wish was named"


def precision_at(base_rate: float, recall: ConfidenceInterval, false_rate: ConfidenceInterval) -> ConfidenceInterval:
    """By Bayes: r TPR / (r TPR + (1 - r) FPR). Its ends take the worse, and the better, ends of both shares."""

    def at(found: float, false: float) -> float:
        whole = base_rate * found + (1 - base_rate) * false
        return base_rate * found / whole if whole > 0 else math.nan

    return ConfidenceInterval(
        value=at(recall.value, false_rate.value),
        low=at(recall.low, false_rate.high),
        high=at(recall.high, false_rate.low),
        level=recall.level,
        method="Bayes, of Wilson's ends",
    )


def times(found: ConfidenceInterval, factor: float) -> ConfidenceInterval:
    """`factor` times as much, and so its ends."""
    return replace(found, value=found.value * factor, low=found.low * factor, high=found.high * factor)


def both(one: ConfidenceInterval, other: ConfidenceInterval) -> ConfidenceInterval:
    """The sum, between those of the lower and of the higher ends."""
    return replace(
        one,
        value=one.value + other.value,
        low=one.low + other.low,
        high=one.high + other.high,
        method="sum of Wilson's ends",
    )


def _average_precision(curve: Curve) -> ConfidenceInterval:
    draws = int(min(DRAWS, max(DRAWN_NUMBERS // (3 * len(curve.scores)), 40)))
    return bootstrap_ranking(curve, lambda drawn: drawn.average_precision, repeats=draws)


def _recall_at(curve: Curve, rate: float) -> ConfidenceInterval:
    found = curve.recall_at_fpr(rate)
    return wilson(round(found * curve.positives), curve.positives)


def _thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], closest: float | None = None
) -> tuple[tuple[float, float], ...]:
    """Some of the points, evenly along the curve's length, its ends among them. `closest`: x is looked at in powers of
    ten as well, from there up."""
    if len(x) > POINTS:
        ways = [x] if closest is None else [x, np.log10(np.maximum(x, closest)) / -math.log10(closest)]
        kept = np.unique(np.concatenate([[0, len(x) - 1], *(_evenly(way, y) for way in ways)]))
        x, y = x[kept], y[kept]
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


def _evenly(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    return np.searchsorted(along, np.linspace(0, along[-1], POINTS)).clip(0, len(x) - 1)
