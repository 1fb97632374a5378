"""How well a detector finds a few needles in a large haystack, in numbers and words that mean what they say.

Two passes rank exactly (`metrics.ranking`); the threshold is chosen among the needles' scores, since between two of
them only false alarms change; a third pass counts what it calls, by slice, and keeps the worst examples. Shares have
Wilson's interval, the ROC area DeLong's, average precision one by the bootstrap. What is 0/0 is undefined: NaN.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.evaluation.errors import UnusablePredictions
from phalanx.evaluation.passes import Passes, Progress
from phalanx.evaluation.predictions import Batch, Predictions
from phalanx.metrics import BadInput, Curve, Needles, State, arrays
from phalanx.metrics.intervals import ConfidenceInterval, bootstrap_ranking, roc_auc_interval, wilson

POINTS = 400  # of a curve on a page
BINS = 60
WORST = 10
FPRS = (1e-2, 1e-3, 1e-4, 1e-5)
MOST_SLICES = 1000
DRAWS, DRAWN_NUMBERS = 400, 20_000_000

Label = str | int | bool


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
class Called:
    """Of all, or of a slice: needles found and missed, straws called needles and left alone."""

    name: str
    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float

    @property
    def needles(self) -> float:
        return self.true_positives + self.false_negatives

    @property
    def straws(self) -> float:
        return self.false_positives + self.true_negatives

    @property
    def alerts(self) -> float:
        return self.true_positives + self.false_positives

    @property
    def recall(self) -> ConfidenceInterval:
        """Sensitivity: of the needles, the share that was found."""
        return wilson(self.true_positives, self.needles)

    @property
    def false_positive_rate(self) -> ConfidenceInterval:
        """Of the straws, the share that was called needles."""
        return wilson(self.false_positives, self.straws)

    @property
    def specificity(self) -> ConfidenceInterval:
        """Of the straws, the share that was left alone. It is not precision."""
        return wilson(self.true_negatives, self.straws)

    @property
    def precision(self) -> ConfidenceInterval:
        """Of the alerts, the share that are needles; undefined when there is none."""
        return wilson(self.true_positives, self.alerts)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        whole = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / whole if whole else math.nan

    @property
    def accuracy(self) -> float:
        """Share of all that is called what it is."""
        whole = self.needles + self.straws
        return (self.true_positives + self.true_negatives) / whole if whole else math.nan


@dataclass(frozen=True)
class Example:
    """One that was judged wrongly with most conviction; `shown`: columns that a person asked to see."""

    is_needle: bool
    score: float
    file: int
    row: int
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NeedlesReport:
    """`precision_there`: at the base rate `base_rate`. `recall_at`: by false-positive rate. Curves: (x, y) points."""

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
    alerts_per_day: float | None
    false_alarms_per_day: float | None
    precision_recall_curve: tuple[tuple[float, float], ...]
    roc_curve: tuple[tuple[float, float], ...]
    histogram: tuple[tuple[float, float, int, int], ...]
    worst: tuple[Example, ...]

    @property
    def rate_here(self) -> float:
        """Share of needles in these examples."""
        return self.called.needles / (self.called.needles + self.called.straws)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: what is undefined is null."""
        shares = ("recall", "precision", "false_positive_rate", "specificity")

        def counted(each: Called) -> dict[str, Any]:
            return {
                **asdict(each),
                **{name: asdict(getattr(each, name)) for name in shares},
                "f1": each.f1,
                "accuracy": each.accuracy,
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
        for rate, found in self.recall_at.items():
            numbers[f"recall_at_fpr_{rate:g}"] = found
        for each in (self.called, *self.slices):
            here = dict(numbers) if each is self.called else {}
            here |= {name: getattr(each, name) for name in ("recall", "precision", "false_positive_rate")}
            here |= {"f1": each.f1, "accuracy": each.accuracy}
            for name, value in here.items():
                yield row(",".join(self.source), name, value, each.name, self.threshold, each.needles + each.straws)


def row(
    source: str, metric: str, value: float | ConfidenceInterval, slice_: str, threshold: float | None, examples: float
) -> dict[str, Any]:
    """Of the table `metrics`."""
    interval = (
        value if isinstance(value, ConfidenceInterval) else ConfidenceInterval(value, math.nan, math.nan, 0.0, "")
    )
    return {
        "predictions": source,
        "metric": metric,
        "slice": slice_,
        "value": _or_none(interval.value),
        "low": _or_none(interval.low),
        "high": _or_none(interval.high),
        "method": interval.method,
        "threshold": threshold,
        "examples": int(examples),
    }


class AtThreshold(State):
    """The third pass: what is called a needle from `threshold` up, by slice; the worst examples; how scores lie."""

    def __init__(
        self, threshold: float, low: float, high: float, positive: Label | None = None, worst: int = WORST
    ) -> None:
        self.threshold, self.low, self.high = float(threshold), float(low), float(high)
        self.positive, self.worst = positive, worst
        self.slices: dict[str, NDArray[np.int64]] = {}
        self.bins = np.zeros((2, BINS), np.int64)
        self.extremes = [math.inf, -math.inf]
        self._missed: list[tuple[float, int, int, str]] = []
        self._alarms: list[tuple[float, int, int, str]] = []

    def update(self, batch: Batch) -> Self:
        """Roles label and score, and slice if there is one."""
        is_needle = arrays.needles("label", batch["label"], self.positive)
        scores = arrays.scores("score", batch["score"]).astype(np.float64, copy=False)
        called = scores >= self.threshold
        kinds = 2 * is_needle + called
        names = batch.get("slice")
        each = {"": np.bincount(kinds, minlength=4)}
        if names is not None:
            different, codes = np.unique(names.astype(str), return_inverse=True)
            counts = np.bincount(codes * 4 + kinds, minlength=4 * len(different)).reshape(-1, 4)
            each |= {f"={name}": count for name, count in zip(different.tolist(), counts, strict=True)}
        for name, count in each.items():
            self.slices[name] = self.slices.get(name, 0) + count
        if len(self.slices) > MOST_SLICES + 1:
            raise BadInput(f"there are more than {MOST_SLICES:,} slices", remedy="name a column with fewer values")
        width = (self.high - self.low) or 1.0
        places = np.clip((scores - self.low) / width * BINS, 0, BINS - 1).astype(np.int64)
        for kind in (0, 1):
            self.bins[kind] += np.bincount(places[is_needle == bool(kind)], minlength=BINS)
        self.extremes = [min(self.extremes[0], float(scores.min())), max(self.extremes[1], float(scores.max()))]
        self._missed = self._kept(self._missed + self._taken(batch, -scores, is_needle & ~called))
        self._alarms = self._kept(self._alarms + self._taken(batch, scores, ~is_needle & called))
        return self

    def _taken(
        self, batch: Batch, key: NDArray[np.float64], those: NDArray[np.bool_]
    ) -> list[tuple[float, int, int, str]]:
        index = np.flatnonzero(those)
        if len(index) > self.worst:
            index = index[np.argpartition(-key[index], self.worst - 1)[: self.worst]]
        names = [name for name in batch if name.startswith("shown ")]
        return [
            (
                float(key[i]),
                -int(batch["file"][i]),
                -int(batch["row"][i]),
                json.dumps({name.removeprefix("shown "): str(batch[name][i]) for name in names}),
            )
            for i in index.tolist()
        ]

    def _kept(self, found: list[tuple[float, int, int, str]]) -> list[tuple[float, int, int, str]]:
        return heapq.nlargest(self.worst, found)  # of equal scores the first in the files: the same for any split

    def compute(self) -> tuple[Called, tuple[Called, ...], tuple[Example, ...]]:
        """All, each slice, and the worst false alarms and misses."""
        counted = []
        for name in sorted(self.slices):
            straws_left, alarms, missed, hits = map(float, self.slices[name].tolist())
            counted.append(Called(name.removeprefix("="), hits, alarms, missed, straws_left))
        examples = [
            Example(is_needle, -key if is_needle else key, -file, -row_, json.loads(shown))
            for is_needle, kept in ((False, self._alarms), (True, self._missed))
            for key, file, row_, shown in kept
        ]
        return counted[0], tuple(counted[1:]), tuple(examples)

    def histogram(self) -> tuple[tuple[float, float, int, int], ...]:
        """Of each bin its ends, straws and needles."""
        edges = np.linspace(self.low, self.high, BINS + 1).tolist()
        straws, needles = self.bins.tolist()
        return tuple(zip(edges[:-1], edges[1:], straws, needles, strict=True))

    def definition(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold.hex(),
            "low": self.low.hex(),
            "high": self.high.hex(),
            "positive": self.positive,
            "worst": self.worst,
        }

    def parts(self) -> dict[str, NDArray[Any]]:
        names = sorted(self.slices)
        kept = [json.dumps(self._alarms), json.dumps(self._missed)]
        return {
            "slices": np.array(names, np.str_),
            "counts": np.array([self.slices[name] for name in names], np.int64).reshape(-1, 4),
            "bins": self.bins,
            "extremes": np.array(self.extremes),
            "kept": np.array(kept, np.str_),
        }

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        ends = {name: float.fromhex(definition[name]) for name in ("threshold", "low", "high")}
        made = cls(**ends, positive=definition["positive"], worst=definition["worst"])
        made.slices = dict(zip(parts["slices"].tolist(), parts["counts"], strict=True))
        made.bins, made.extremes = parts["bins"], parts["extremes"].tolist()
        made._alarms, made._missed = (
            [(float(key), int(file), int(number), str(shown)) for key, file, number, shown in json.loads(kept)]
            for kept in parts["kept"].tolist()
        )
        return made

    def _add(self, other: Self) -> None:
        for name, count in other.slices.items():
            self.slices[name] = self.slices.get(name, 0) + count
        self.bins = self.bins + other.bins
        self.extremes = [min(self.extremes[0], other.extremes[0]), max(self.extremes[1], other.extremes[1])]
        self._missed = self._kept(self._missed + other._missed)
        self._alarms = self._kept(self._alarms + other._alarms)


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
    if wish.threshold is not None and not state.extremes[0] <= wish.threshold <= state.extremes[1]:
        raise UnusablePredictions(
            f"the threshold {wish.threshold:g} lies outside the scores, which are {state.extremes[0]:g} to "
            f"{state.extremes[1]:g}: it calls {'all' if wish.threshold < state.extremes[0] else 'none'} a needle",
            where=str(predictions.files[0]),
            remedy="name one between, or let it be chosen: --recall, --alerts-per-day, --cost-miss",
        )
    called, slices, worst = state.compute()
    recall, false_rate = called.recall, called.false_positive_rate
    share = base_rate * recall.value + (1 - base_rate) * false_rate.value
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
        alerts_per_day=share * wish.volume if wish.volume is not None else None,
        false_alarms_per_day=(1 - base_rate) * false_rate.value * wish.volume if wish.volume is not None else None,
        precision_recall_curve=_thinned(
            curve.true_positives / curve.positives,
            curve.true_positives / (curve.true_positives + curve.false_positives),
        ),
        roc_curve=_thinned(*curve.roc()),
        histogram=state.histogram(),
        worst=worst,
    )


def choose(curve: Curve, wish: Wish, base_rate: float) -> tuple[float, str]:
    """A threshold among the needles' scores, infinity to call nothing; and by what it was chosen."""
    recall = curve.true_positives / curve.positives
    false_rate = curve.false_positives / curve.negatives
    if wish.threshold is not None:
        return wish.threshold, "as given"
    if wish.recall is not None:
        index = int(np.argmax(recall >= wish.recall * (1 - 1e-12)))
        return float(curve.scores[index]), f"the highest that finds {wish.recall:.4g} of the needles"
    if wish.alerts_per_day is not None and wish.volume is not None:
        alerts = (base_rate * recall + (1 - base_rate) * false_rate) * wish.volume
        affordable = np.flatnonzero(alerts <= wish.alerts_per_day)
        words = f"the lowest with at most {wish.alerts_per_day:,.6g} alerts a day, of {wish.volume:,.6g} examples"
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


def _average_precision(curve: Curve) -> ConfidenceInterval:
    draws = int(min(DRAWS, max(DRAWN_NUMBERS // (3 * len(curve.scores)), 40)))
    return bootstrap_ranking(curve, lambda drawn: drawn.average_precision, repeats=draws)


def _recall_at(curve: Curve, rate: float) -> ConfidenceInterval:
    found = curve.recall_at_fpr(rate)
    return wilson(round(found * curve.positives), curve.positives)


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Some of the points, evenly along the curve's length, its ends among them."""
    if len(x) > POINTS:
        along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], POINTS)).clip(0, len(x) - 1))
        kept = np.unique(np.concatenate([[0], kept, [len(x) - 1]]))
        x, y = x[kept], y[kept]
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def without_nan(value: Any) -> Any:
    """As JSON can say it: null for what is no finite number."""
    if isinstance(value, float):
        return _or_none(value)
    if isinstance(value, dict):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value
