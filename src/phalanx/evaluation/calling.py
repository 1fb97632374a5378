"""What a detector calls a needle from a threshold up: counts by slice, the worst examples, and how scores lie.

A state, so that it is fed by batches and by ranks. Shares have Wilson's interval; what is 0/0 is undefined: NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.evaluation.predictions import Batch
from phalanx.evaluation.worst import Worst
from phalanx.metrics import BadInput, State, arrays
from phalanx.metrics.intervals import ConfidenceInterval, wilson

BINS = 60
WORST = 10
MOST_SLICES = 1000

Label = str | int | bool


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
    def f1(self) -> ConfidenceInterval:
        """2 TP / (2 TP + FP + FN): 2 J / (1 + J) of J, the share of hits among all that is a needle or is called one,
        and so are the ends of its interval."""
        hits = wilson(self.true_positives, self.needles + self.false_positives)
        value, low, high = (2 * each / (1 + each) for each in (hits.value, hits.low, hits.high))
        return replace(hits, value=value, low=low, high=high)

    @property
    def accuracy(self) -> ConfidenceInterval:
        """Share of all that is called what it is."""
        return wilson(self.true_positives + self.true_negatives, self.needles + self.straws)


@dataclass(frozen=True)
class Example:
    """One that was judged wrongly with most conviction; `shown`: columns that a person asked to see."""

    is_needle: bool
    score: float
    file: int
    row: int
    shown: Mapping[str, str] = field(default_factory=dict)


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
        self._missed, self._alarms = Worst(worst), Worst(worst)

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
        self._missed.add(batch, -scores, is_needle & ~called)
        self._alarms.add(batch, scores, ~is_needle & called)
        return self

    def compute(self) -> tuple[Called, tuple[Called, ...], tuple[Example, ...]]:
        """All, each slice, and the worst false alarms and misses."""
        counted = []
        for name in sorted(self.slices):
            straws_left, alarms, missed, hits = map(float, self.slices[name].tolist())
            counted.append(Called(name.removeprefix("="), hits, alarms, missed, straws_left))
        examples = [
            Example(is_needle, -size if is_needle else size, file, row, shown)
            for is_needle, worst in ((False, self._alarms), (True, self._missed))
            for size, file, row, shown in worst.found()
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
        return {
            "slices": np.array(names, np.str_),
            "counts": np.array([self.slices[name] for name in names], np.int64).reshape(-1, 4),
            "bins": self.bins,
            "extremes": np.array(self.extremes),
            "alarms": self._alarms.part(),
            "missed": self._missed.part(),
        }

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        ends = {name: float.fromhex(definition[name]) for name in ("threshold", "low", "high")}
        made = cls(**ends, positive=definition["positive"], worst=definition["worst"])
        made.slices = dict(zip(parts["slices"].tolist(), parts["counts"], strict=True))
        made.bins, made.extremes = parts["bins"], parts["extremes"].tolist()
        made._alarms, made._missed = (Worst.of_part(parts, name, made.worst) for name in ("alarms", "missed"))
        return made

    def _add(self, other: Self) -> None:
        for name, count in other.slices.items():
            self.slices[name] = self.slices.get(name, 0) + count
        self.bins = self.bins + other.bins
        self.extremes = [min(self.extremes[0], other.extremes[0]), max(self.extremes[1], other.extremes[1])]
        self._missed.merge(other._missed)
        self._alarms.merge(other._alarms)
