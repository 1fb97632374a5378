"""Examples that have any number of labels each: of every label, who has it and who was called it.

Examples themselves are counted by kind: how many labels one has, was called, and both. There are few kinds, and any
average over examples follows from them exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.confusion import Label
from phalanx.metrics.errors import BadInput, DifferentDefinition
from phalanx.metrics.shares import Counts, Floats, Shares, amount, share_of
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums

_CHUNK = 1 << 16  # cells
_MOST_LABELS = 1 << 20  # a kind of example is three numbers up to this in 63 bits


@dataclass(frozen=True)
class LabelConfusion(Shares):
    """`counts` [labels, 2, 2]: of each label a matrix whose rows are the truth (does not have it, has it) and columns
    what was called. `kinds` int64 [kinds, 3]: of how many labels an example was rightly called, was called, and has;
    `many` [kinds]: examples of the kind. Counts are int64, or float64 of weights."""

    labels: tuple[Label, ...]
    counts: NDArray[Any]
    kinds: NDArray[np.int64]
    many: NDArray[Any]

    @property
    def total(self) -> float:
        """Of all examples."""
        return float(self.many.sum())

    @property
    def true_positives(self) -> Floats:
        """By label [labels]."""
        return self.counts[:, 1, 1].astype(np.float64)

    @property
    def support(self) -> Floats:
        """Examples that have each label."""
        found: Floats = self.counts[:, 1].sum(axis=1).astype(np.float64)
        return found

    @property
    def called(self) -> Floats:
        """Examples that were called each label."""
        found: Floats = self.counts[:, :, 1].sum(axis=1).astype(np.float64)
        return found

    @property
    def exact_matches(self) -> float:
        """Share of examples that were called all the labels they have and no others (subset accuracy)."""
        right, called, true = self.kinds.T
        same = (right == called) & (right == true)
        return share_of(float(self.many[same].sum()), self.total)

    @property
    def hamming_loss(self) -> float:
        """Share of labels of examples that are wrong."""
        right, called, true = self.kinds.T
        wrong = (called + true - 2 * right) @ self.many
        return share_of(float(wrong), self.total * len(self.labels))

    def words(self) -> list[str]:
        """A sentence for each label, which names what is what."""
        return [
            f"of {amount(has)} with {label}, {amount(both)} were called {label} and {amount(missed)} were not; "
            f"of {amount(others)} without it, {amount(false)} were called {label}"
            for label, ((neither, false), (missed, both)) in zip(self.labels, self.counts.tolist(), strict=True)
            for has, others in [(missed + both, neither + false)]
        ]

    def _counts(self) -> Counts:
        return Counts(self.true_positives, self.called, self.support, self.total)

    def _counts_of_samples(self) -> tuple[Counts, Floats]:
        right, called, true = self.kinds.T.astype(np.float64)
        return Counts(right, called, true, len(self.labels)), self.many.astype(np.float64)


class MultilabelConfusion(State):
    """Counts of examples with several labels each. `labels`: names of the columns; None: 0, 1, ... as they come.

    Its memory grows with the different kinds of examples, of which there are few unless many have many labels.
    """

    def __init__(self, labels: Sequence[Label] | NDArray[Any] | None = None, *, weighted: bool = False) -> None:
        self._names = None if labels is None else arrays.labels("labels", labels).tolist()
        if self._names is not None and len(set(self._names)) != len(self._names):
            raise BadInput(f"labels has one twice: {self._names}")
        self.weighted = weighted
        self._size = 0  # unknown
        self._begin(len(self._names or ()))

    def _begin(self, size: int) -> None:
        """With so many labels, and nothing seen."""
        if size > _MOST_LABELS:
            raise BadInput(f"{size:,} labels are too many: {_MOST_LABELS:,} at most")
        self._size = size
        self._cells = np.zeros(4 * size, np.int64)  # [truth, called, label]
        self._codes, self._many = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._sums = ExactSums(4 * size) if self.weighted else None
        self._heavy = ExactSums(0) if self.weighted else None

    def update(
        self, y_true: arrays.ArrayLike, y_pred: arrays.ArrayLike, weights: arrays.ArrayLike | None = None
    ) -> Self:
        """0 and 1, or truths, [n, labels] each; weights [n] where `weighted`. Raises BadInput."""
        truth, called = arrays.indicators("y_true", y_true), arrays.indicators("y_pred", y_pred)
        arrays.same_length(y_true=len(truth), y_pred=len(called))
        heavy = arrays.weights_as_made(weights, len(truth), self.weighted)
        size = self._size or truth.shape[1]
        for name, found in (("y_true", truth), ("y_pred", called)):
            if found.shape[1] != size or not size:
                raise BadInput(
                    f"{name} has {found.shape[1]:,} columns, but there are {size:,} labels",
                    remedy="give a column for each label, in the order of labels",
                )
        if not self._size:
            self._begin(size)
        rows = max(1, _CHUNK // size)
        for start in range(0, len(truth), rows):
            part = slice(start, start + rows)
            self._take(truth[part], called[part], None if heavy is None else heavy[part])
        return self

    def _take(self, truth: NDArray[np.bool_], called: NDArray[np.bool_], heavy: NDArray[np.float64] | None) -> None:
        size = self._size
        cells = (truth * np.int64(2 * size) + called * np.int64(size) + np.arange(size)).reshape(-1)
        self._cells += np.bincount(cells, minlength=4 * size)
        right, all_called, all_true = (each.sum(axis=1) for each in (truth & called, called, truth))
        codes = (right * (size + 1) + all_called) * (size + 1) + all_true
        kinds, kind, many = np.unique(codes, return_inverse=True, return_counts=True)
        places = self._learn(kinds)
        self._many[places] += many
        if self._sums is not None and self._heavy is not None and heavy is not None:
            self._sums.add(np.repeat(heavy, size), cells)
            self._heavy.add(heavy, places[kind.reshape(-1)])

    def _learn(self, seen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where these kinds of examples are kept."""
        kinds = np.union1d(self._codes, seen)
        if len(kinds) > len(self._codes):
            places = np.searchsorted(kinds, self._codes)
            many = np.zeros(len(kinds), np.int64)
            many[places] = self._many
            if self._heavy is not None:
                self._heavy = self._heavy.spread(places, len(kinds))
            self._codes, self._many = kinds, many
        return np.searchsorted(kinds, seen)

    def compute(self) -> LabelConfusion:
        """Raises BadInput when the weights are 0 together."""
        names = range(self._size) if self._names is None else self._names
        base = self._size + 1
        kinds = np.column_stack([self._codes // base**2, self._codes // base % base, self._codes % base])
        cells: NDArray[Any] = self._cells.copy()
        many: NDArray[Any] = self._many.copy()
        if self._sums is not None and self._heavy is not None:
            cells, many = self._sums.values(), self._heavy.values()
            if len(many) and not many.any():
                raise BadInput("the weights are 0 together")
        return LabelConfusion(tuple(names), cells.reshape(2, 2, -1).transpose(2, 0, 1), kinds, many)

    def definition(self) -> dict[str, Any]:
        return {"labels": self._names, "weighted": self.weighted}

    def parts(self) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {"cells": self._cells, "kinds": self._codes, "many": self._many}
        for name, sums in (("cells", self._sums), ("many", self._heavy)):
            if sums is not None:
                found |= {f"{name}_{part}": value for part, value in sums.parts().items()}
        return found

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        cells, kinds, many = (parts[name] for name in ("cells", "kinds", "many"))
        if made._names is None:
            made._begin(len(cells) // 4)
        whole = all(each.dtype == np.int64 and (each >= 0).all() for each in (cells, kinds, many))
        if (
            not whole
            or cells.shape != (4 * made._size,)
            or many.shape != kinds.shape
            or (np.diff(kinds) <= 0).any()
            or (kinds >= (made._size + 1) ** 3).any()
            or (cells.reshape(4, -1).sum(axis=0) != many.sum()).any()
        ):
            raise BadInput("no counts of examples with several labels")
        made._cells, made._codes, made._many = cells.copy(), kinds.copy(), many.copy()
        if made.weighted:
            made._sums, made._heavy = (
                ExactSums.of_parts(
                    {part: parts[f"{name}_{part}"] for part in ("low", "digits", "special")}, len(counts)
                )
                for name, counts in (("cells", cells), ("many", many))
            )
        return made

    def _add(self, other: Self) -> None:
        if not other._size:
            return
        if not self._size:
            self._begin(other._size)
        if self._size != other._size:
            raise DifferentDefinition(
                f"states of {self._size:,} and of {other._size:,} labels do not merge",
                remedy="name the labels: labels=...",
            )
        places = self._learn(other._codes)
        self._cells += other._cells
        self._many[places] += other._many
        if self._sums is not None and other._sums is not None:
            self._sums.merge(other._sums)
        if self._heavy is not None and other._heavy is not None:
            self._heavy.merge(other._heavy.spread(places, len(self._codes)))
