"""Which class was taken for which: a matrix whose axes have names, and all that follows from it.

Rows are the truth, columns what it was called. Of a class, needles of it that were called so are true positives, others
called so false positives, those called otherwise false negatives. A share of nothing is undefined: NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.errors import BadInput
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums

Average = Literal["micro", "macro", "weighted"]
Label = str | int | float | bool

_CHUNK = 1 << 16
_RANGE = 1 << 10  # labels that are integers this close together are their own codes


@dataclass(frozen=True)
class Confusion:
    """`counts` [classes, classes]: rows are the truth, columns what it was called; int64, or float64 of weights."""

    labels: tuple[Label, ...]
    counts: NDArray[Any]

    @property
    def total(self) -> float:
        """Of all examples."""
        return float(self.counts.sum())

    @property
    def true_positives(self) -> NDArray[np.float64]:
        """By class [classes]."""
        return np.diag(self.counts).astype(np.float64)

    @property
    def support(self) -> NDArray[np.float64]:
        """Examples of each class."""
        found: NDArray[np.float64] = self.counts.sum(axis=1).astype(np.float64)
        return found

    @property
    def called(self) -> NDArray[np.float64]:
        """How many were called each class."""
        found: NDArray[np.float64] = self.counts.sum(axis=0).astype(np.float64)
        return found

    @property
    def accuracy(self) -> float:
        """Share that was called what it is; of rare needles it says next to nothing, as calling all straw shows."""
        return _share(float(self.true_positives.sum()), self.total)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that there are examples of."""
        there = self.support > 0
        return float(np.mean(self.true_positives[there] / self.support[there])) if there.any() else math.nan

    def precision(self, average: Average | None = None) -> Any:
        """Positive predictive value: of those called the class, the share that is. Float64 [classes], or averaged."""
        return self._averaged(self.true_positives, self.called, average)

    def recall(self, average: Average | None = None) -> Any:
        """Sensitivity: of the class, the share that was called so."""
        return self._averaged(self.true_positives, self.support, average)

    def specificity(self, average: Average | None = None) -> Any:
        """Of all other classes, the share that was not called this one. It is not precision."""
        others = self.total - self.support
        return self._averaged(others - (self.called - self.true_positives), others, average)

    def f_beta(self, beta: float = 1.0, average: Average | None = None) -> Any:
        """(1 + b²) TP / ((1 + b²) TP + b² FN + FP): defined where precision or recall alone is not."""
        square = beta * beta
        return self._averaged((1 + square) * self.true_positives, square * self.support + self.called, average)

    def f1(self, average: Average | None = None) -> Any:
        """2 TP / (2 TP + FP + FN)."""
        return self.f_beta(1.0, average)

    def jaccard(self, average: Average | None = None) -> Any:
        """TP / (TP + FP + FN)."""
        return self._averaged(self.true_positives, self.support + self.called - self.true_positives, average)

    @property
    def mcc(self) -> float:
        """Matthews' correlation coefficient, for several classes by Gorodkin (2004)."""
        exact = self.counts if self.counts.dtype.kind == "f" else self.counts.astype(object)  # int64 would overflow
        truth, called = exact.sum(axis=1), exact.sum(axis=0)
        total = exact.sum()
        joint = np.trace(exact) * total - truth @ called
        spread = (total * total - called @ called) * (total * total - truth @ truth)
        # Of whole numbers the product is exact however large: only its root is rounded.
        return float(joint) / math.sqrt(spread) if spread > 0 else math.nan

    def kappa(self, weights: Literal["linear", "quadratic"] | None = None) -> float:
        """Cohen's kappa (1960), how much better than chance both agree; classes far apart weigh more with `weights`."""
        size = len(self.labels)
        apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float64)
        costs = apart**2 if weights == "quadratic" else apart if weights == "linear" else (apart > 0).astype(np.float64)
        expected = np.outer(self.support, self.called) / self.total if self.total else np.zeros_like(costs)
        chance = float((costs * expected).sum())
        return 1 - float((costs * self.counts).sum()) / chance if chance else math.nan

    def words(self) -> list[str]:
        """A sentence for each class, which names what is what."""
        said = []
        for index, label in enumerate(self.labels):
            here, called, right = (each[index] for each in (self.support, self.called, self.true_positives))
            said.append(
                f"of {_amount(here)} {label}, {_amount(right)} were called {label} and {_amount(here - right)} were "
                f"not; of {_amount(called)} called {label}, {_amount(called - right)} were not"
            )
        return said

    def _averaged(self, part: NDArray[np.float64], whole: NDArray[np.float64], average: Average | None) -> Any:
        if average == "micro":
            return _share(float(part.sum()), float(whole.sum()))
        each = np.full(len(part), math.nan)
        np.divide(part, whole, out=each, where=whole != 0)
        if average is None:
            return each
        if average == "macro":
            return float(each.mean()) if len(each) else math.nan
        if average == "weighted":  # by class size: a class without examples weighs nothing, be it undefined or not
            there = self.support > 0
            return _share(float((each[there] * self.support[there]).sum()), self.total)
        raise BadInput(f"an average is micro, macro, weighted or None, not {average!r}")


class ConfusionMatrix(State):
    """Counts of (truth, called) pairs. `labels`: the only ones there are; None: learned as they come, and sorted."""

    def __init__(self, labels: Sequence[Label] | None = None, *, weighted: bool = False) -> None:
        self.fixed = labels is not None
        self.weighted = weighted
        self._labels = arrays.column("labels", labels) if labels is not None and len(labels) else np.zeros(0, np.int64)
        if len(np.unique(self._labels)) != len(self._labels):
            raise BadInput(f"labels has one twice: {list(labels or [])}")
        self._counts = np.zeros((len(self._labels),) * 2, np.int64)
        self._sums = ExactSums(self._counts.size) if weighted else None

    def update(
        self, y_true: arrays.ArrayLike, y_pred: arrays.ArrayLike, weights: arrays.ArrayLike | None = None
    ) -> Self:
        """Classes [n] each, weights [n] where `weighted`. Raises BadInput."""
        truth, called = arrays.column("y_true", y_true), arrays.column("y_pred", y_pred)
        arrays.same_length(y_true=len(truth), y_pred=len(called))
        heavy = arrays.weights(weights, len(truth), "weights")
        if (heavy is not None) != self.weighted:
            raise BadInput(
                f"weights are {'given' if heavy is not None else 'missing'}, but this state was made "
                f"{'without' if heavy is not None else 'with'} them",
                remedy="make it with weighted=True, and give them with every batch, or give none",
            )
        for start in range(0, len(truth), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._take(truth[part], called[part], None if heavy is None else heavy[part], start)
        return self

    def _take(self, truth: NDArray[Any], called: NDArray[Any], heavy: NDArray[np.float64] | None, start: int) -> None:
        local, rows, columns = _coded(truth, called)
        pairs = rows * len(local) + columns
        counts = np.bincount(pairs, minlength=len(local) ** 2).reshape(len(local), -1)
        there = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
        self._refuse_other_kind(local)
        if not self.fixed:
            self._learn(local[there])
        index = {label: place for place, label in enumerate(self._labels.tolist())}
        places = np.array(
            [index.get(label, -1) if seen else -1 for label, seen in zip(local.tolist(), there, strict=True)]
        )
        if (places[there] < 0).any():
            self._refuse_strangers(places, rows, columns, truth, called, start)
        where = places[there]
        self._counts[np.ix_(where, where)] += counts[np.ix_(there, there)]
        if self._sums is not None and heavy is not None:
            self._sums.add(heavy, places[rows] * len(self._labels) + places[columns])

    def _learn(self, seen: NDArray[Any]) -> None:
        labels = np.union1d(self._labels, seen) if len(self._labels) else np.unique(seen)
        if len(labels) == len(self._labels):
            return
        places = np.searchsorted(labels, self._labels)
        counts = np.zeros((len(labels),) * 2, np.int64)
        counts[np.ix_(places, places)] = self._counts
        if self._sums is not None:
            self._sums = self._sums.spread((places[:, None] * len(labels) + places).reshape(-1), counts.size)
        self._labels, self._counts = labels, counts

    def _refuse_other_kind(self, labels: NDArray[Any]) -> None:
        if len(self._labels) and len(labels) and _is_word(self._labels) != _is_word(labels):
            mine, theirs = ("words" if _is_word(each) else "numbers" for each in (self._labels, labels))
            raise BadInput(f"the labels so far are {mine}, but these are {theirs}", remedy="use one kind of labels")

    def _refuse_strangers(
        self,
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        truth: NDArray[Any],
        called: NDArray[Any],
        start: int,
    ) -> None:
        for name, codes, column in (("y_true", rows, truth), ("y_pred", columns, called)):
            strange = places[codes] < 0
            if strange.any():
                first = int(np.argmax(strange))
                raise BadInput(
                    f"{name}[{start + first}] is {column[first].item()!r}, which is none of the labels "
                    f"{self._labels.tolist()}; {int(strange.sum()):,} of {len(column):,} do not do",
                    remedy="add it to labels, or leave labels out to learn them",
                )

    def compute(self) -> Confusion:
        """Raises BadInput when the weights are 0 together."""
        labels = tuple(self._labels.tolist())
        if self._sums is None:
            return Confusion(labels, self._counts.copy())
        sums = self._sums.values().reshape(self._counts.shape)
        if self._counts.any() and not sums.any():
            raise BadInput("the weights are 0 together")
        return Confusion(labels, sums)

    def definition(self) -> dict[str, Any]:
        return {"labels": self._labels.tolist() if self.fixed else None, "weighted": self.weighted}

    def parts(self) -> dict[str, NDArray[Any]]:
        sums = self._sums.parts() if self._sums is not None else {}
        return {"names": self._labels, "counts": self._counts, **sums}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made._labels, counts = arrays.column("names", parts["names"]), parts["counts"]
        if counts.shape != (len(made._labels),) * 2 or counts.dtype != np.int64 or (counts < 0).any():
            raise BadInput("no counts of a confusion matrix")
        made._counts = counts.copy()
        if made.weighted:
            made._sums = ExactSums.of_parts(parts, counts.size)
        return made

    def _add(self, other: Self) -> None:
        self._refuse_other_kind(other._labels)
        if not self.fixed:
            self._learn(other._labels)
        places = np.searchsorted(self._labels, other._labels) if not self.fixed else np.arange(len(self._labels))
        self._counts[np.ix_(places, places)] += other._counts
        if self._sums is not None and other._sums is not None:
            cells = (places[:, None] * len(self._labels) + places).reshape(-1)
            self._sums.merge(other._sums.spread(cells, self._counts.size))


def _coded(truth: NDArray[Any], called: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Labels that may occur, ascending, and the index of each example's in them."""
    if _is_word(truth) != _is_word(called) and len(truth):
        raise BadInput("y_true and y_pred hold different kinds of labels: words and numbers", remedy="use one kind")
    if truth.dtype.kind in "iub" and called.dtype.kind in "iub" and len(truth):
        low = min(int(truth.min()), int(called.min()))
        high = max(int(truth.max()), int(called.max()))
        if high - low < _RANGE:
            rows, columns = truth.astype(np.int64, copy=False) - low, called.astype(np.int64, copy=False) - low
            return np.arange(low, high + 1), rows, columns
    labels, codes_of_both = np.unique(np.concatenate([truth, called]), return_inverse=True)
    codes_of_both = codes_of_both.reshape(-1).astype(np.int64)
    return labels, codes_of_both[: len(truth)], codes_of_both[len(truth) :]


def _is_word(labels: NDArray[Any]) -> bool:
    return labels.dtype.kind in "US"


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _amount(number: float) -> str:
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.3f}"
