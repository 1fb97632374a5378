"""Which class was taken for which: a matrix whose axes have names, and all that follows from it.

Rows are the truth, columns what it was called. Of a class, needles of it that were called so are true positives, others
called so false positives, those called otherwise false negatives. Shares of them are in `shares`.
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
from phalanx.metrics.shares import Counts, Shares, amount, share_of
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums

Label = str | int | float | bool

_CHUNK = 1 << 16
_LARGEST_CHUNK = 1 << 22
_CLASSES = 1 << 13  # the counts of so many take 512 MiB
_RANGE = 1 << 10  # labels that are integers this close together are their own codes


@dataclass(frozen=True)
class Confusion(Shares):
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
        return share_of(float(self.true_positives.sum()), self.total)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that there are examples of."""
        there = self.support != 0
        return float(np.mean(self.true_positives[there] / self.support[there])) if there.any() else math.nan

    def _counts(self) -> Counts:
        return Counts(self.true_positives, self.called, self.support, self.total)

    @property
    def mcc(self) -> float:
        """Matthews' correlation coefficient, for several classes by Gorodkin (2004)."""
        if self.counts.dtype.kind == "f":  # the largest as 1: squares of squares of large weights are beyond a double
            exact = self.counts / (np.abs(self.counts).max(initial=0) or 1)
        else:
            exact = self.counts.astype(object)  # int64 would overflow
        truth, called = exact.sum(axis=1), exact.sum(axis=0)
        total = exact.sum()
        joint = np.trace(exact) * total - truth @ called
        spread = (total * total - called @ called) * (total * total - truth @ truth)
        # Of whole numbers the product is exact however large: only its root is rounded.
        return float(joint) / math.sqrt(spread) if spread > 0 else math.nan

    def kappa(self, weights: Literal["linear", "quadratic"] | None = None) -> float:
        """Cohen's kappa (1960), how much better than chance both agree; classes far apart weigh more with `weights`."""
        if weights not in (None, "linear", "quadratic"):
            raise BadInput(f"the weights of kappa are linear, quadratic or None, not {weights!r}")
        size = len(self.labels)
        apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float64)
        costs = apart**2 if weights == "quadratic" else apart if weights == "linear" else (apart > 0).astype(np.float64)
        expected = np.outer(self.support / self.total, self.called) if self.total else np.zeros_like(costs)
        chance = float((costs * expected).sum())
        return 1 - float((costs * self.counts).sum()) / chance if chance else math.nan

    def words(self) -> list[str]:
        """A sentence for each class, which names what is what."""
        said = []
        for index, label in enumerate(self.labels):
            here, called, right = (each[index] for each in (self.support, self.called, self.true_positives))
            said.append(
                f"of {amount(here)} {label}, {amount(right)} were called {label} and {amount(here - right)} were "
                f"not; of {amount(called)} called {label}, {amount(called - right)} were not"
            )
        return said


class ConfusionMatrix(State):
    """Counts of (truth, called) pairs. `labels`: the only ones there are; None: learned as they come, and sorted."""

    def __init__(self, labels: Sequence[Label] | NDArray[Any] | None = None, *, weighted: bool = False) -> None:
        self.fixed = labels is not None
        self.weighted = weighted
        self._labels = arrays.labels("labels", labels) if labels is not None and len(labels) else np.zeros(0, np.int64)
        if len(np.unique(self._labels)) != len(self._labels):
            raise BadInput(f"labels has one twice: {self._labels.tolist()}")
        _refuse_too_many(len(self._labels))
        self._counts = np.zeros((len(self._labels),) * 2, np.int64)
        self._sums = ExactSums(self._counts.size) if weighted else None

    def update(
        self, y_true: arrays.ArrayLike, y_pred: arrays.ArrayLike, weights: arrays.ArrayLike | None = None
    ) -> Self:
        """Classes [n] each, weights [n] where `weighted`. Raises BadInput."""
        truth, called = arrays.labels("y_true", y_true), arrays.labels("y_pred", y_pred)
        arrays.same_length(y_true=len(truth), y_pred=len(called))
        heavy = arrays.weights_as_made(weights, len(truth), self.weighted)
        # What is refused in a later part leaves no trace of the earlier ones.
        seen = (
            self if len(truth) <= _CHUNK else type(self)(self._labels if self.fixed else None, weighted=self.weighted)
        )
        start, buffer = 0, np.empty(min(len(truth), _CHUNK), np.int64)
        while start < len(truth):
            size = min(max(_CHUNK, len(seen._labels) ** 2), _LARGEST_CHUNK)  # so that most cells are not empty
            part = slice(start, start + size)
            if len(buffer) < len(truth[part]):
                buffer = np.empty(size, np.int64)
            seen._take(truth[part], called[part], None if heavy is None else heavy[part], start, buffer)
            start = part.stop
        if seen is not self:
            self._add(seen)
        return self

    def _take(
        self,
        truth: NDArray[Any],
        called: NDArray[Any],
        heavy: NDArray[np.float64] | None,
        start: int,
        buffer: NDArray[np.int64],
    ) -> None:
        local, pairs = _paired(truth, called, buffer)
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
            self._refuse_strangers(places, pairs, truth, called, start)
        where = places[there]
        self._counts[np.ix_(where, where)] += counts[np.ix_(there, there)]
        if self._sums is not None and heavy is not None:
            cells = (places[:, None] * len(self._labels) + places).reshape(-1)
            self._sums.add(heavy, cells[pairs])

    def _learn(self, seen: NDArray[Any]) -> None:
        labels = np.union1d(self._labels, seen) if len(self._labels) else np.unique(seen)
        if not len(seen) or (labels.dtype == self._labels.dtype and len(labels) == len(self._labels)):
            return
        _refuse_too_many(len(labels))
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
        pairs: NDArray[np.int64],
        truth: NDArray[Any],
        called: NDArray[Any],
        start: int,
    ) -> None:
        rows, columns = np.divmod(pairs, len(places))
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
        names = np.array(self._labels.tolist(), None if len(self._labels) else np.int64)  # words no wider than they are
        return {"names": names, "counts": self._counts, **sums}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made._labels, counts = arrays.labels("names", parts["names"]), parts["counts"]
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


def _paired(
    truth: NDArray[Any], called: NDArray[Any], buffer: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Labels that may occur, ascending; of each example, index of its truth * labels + index of what it was called."""
    if _is_word(truth) != _is_word(called):
        raise BadInput("y_true and y_pred hold different kinds of labels: words and numbers", remedy="use one kind")
    if truth.dtype.kind in "ib" and called.dtype.kind in "ib":
        low = min(int(truth.min()), int(called.min()))
        high = max(int(truth.max()), int(called.max()))
        if high - low < _RANGE:
            between = np.arange(low, high + 1)
            pairs = buffer[: len(truth)]  # no memory is taken for each step, which costs as much as the step
            np.multiply(truth, len(between), out=pairs, dtype=np.int64)
            np.add(pairs, called, out=pairs)
            lowest = low * (len(between) + 1)  # all of this may go round 64 bits, and comes back
            np.subtract(pairs, (lowest + (1 << 63)) % (1 << 64) - (1 << 63), out=pairs)
            return between.astype(bool) if truth.dtype == called.dtype == bool else between, pairs
    labels, codes = np.unique(np.concatenate([truth, called]), return_inverse=True)
    _refuse_too_many(len(labels))
    return labels, codes[: len(truth)] * len(labels) + codes[len(truth) :]


def _refuse_too_many(labels: int) -> None:
    if labels > _CLASSES:
        raise BadInput(
            f"a matrix of {labels:,} classes is too large: {_CLASSES:,} at most",
            remedy="are these scores or identifiers? Give classes",
        )


def _is_word(labels: NDArray[Any]) -> bool:
    return labels.dtype.kind == "U"
