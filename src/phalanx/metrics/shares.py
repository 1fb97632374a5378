"""Precision, recall and their like: shares that follow from counts, by class or averaged over classes or examples.

A share of nothing is undefined: NaN; so is an average that it would be part of.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics.errors import BadInput

Average = Literal["micro", "macro", "weighted", "samples"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """Float64 [n], of each class, or of each example with several labels: how many are `true`, were `called` so,
    and both (`right`: true positives), of `total`."""

    right: Floats
    called: Floats
    true: Floats
    total: float


class Shares(ABC):
    """What follows from counts. `average`: None (each class), "micro" (all classes in one), "macro" (their mean) or
    "weighted" (by how many are of each); where examples have several labels also "samples" (mean over examples)."""

    @abstractmethod
    def _counts(self) -> Counts:
        """Of each class."""

    def _counts_of_samples(self) -> tuple[Counts, Floats]:
        """Of each kind of example, and how many there are of it."""
        raise BadInput(
            "only examples with several labels are averaged by samples", remedy="use micro, macro or weighted"
        )

    def precision(self, average: Average | None = None) -> Any:
        """Positive predictive value: of those called the class, the share that is. Float64 [classes], or averaged."""
        return self._averaged(lambda of: (of.right, of.called), average)

    def recall(self, average: Average | None = None) -> Any:
        """Sensitivity: of the class, the share that was called so."""
        return self._averaged(lambda of: (of.right, of.true), average)

    def specificity(self, average: Average | None = None) -> Any:
        """Of all other classes, the share that was not called this one. It is not precision."""
        return self._averaged(
            lambda of: (of.total - of.true - (of.called - of.right), of.total - of.true),
            average,
        )

    def f_beta(self, beta: float = 1.0, average: Average | None = None) -> Any:
        """(1 + b²) TP / ((1 + b²) TP + b² FN + FP): defined where precision or recall alone is not."""
        if not 0 <= beta < math.inf:
            raise BadInput(f"beta is a finite number from 0, not {beta}", remedy="its limit, as beta grows, is recall")
        square = beta * beta
        return self._averaged(lambda of: ((1 + square) * of.right, square * of.true + of.called), average)

    def f1(self, average: Average | None = None) -> Any:
        """2 TP / (2 TP + FP + FN)."""
        return self.f_beta(1.0, average)

    def jaccard(self, average: Average | None = None) -> Any:
        """TP / (TP + FP + FN)."""
        return self._averaged(lambda of: (of.right, of.true + of.called - of.right), average)

    def _averaged(self, share: Callable[[Counts], tuple[Floats, Floats]], average: Average | None) -> Any:
        if average == "samples":
            counts, many = self._counts_of_samples()
            return _mean(_each(*share(counts)), many)
        counts = self._counts()
        part, whole = share(counts)
        if average is None:
            return _each(part, whole)
        if average == "micro":
            return share_of(float(part.sum()), float(whole.sum()))
        if average == "macro":
            return _mean(_each(part, whole), np.ones(len(part)))
        if average == "weighted":
            return _mean(_each(part, whole), counts.true)
        raise BadInput(f"an average is micro, macro, weighted, samples or None, not {average!r}")


def share_of(part: float, whole: float) -> float:
    """NaN of nothing."""
    return part / whole if whole else math.nan


def amount(number: float) -> str:
    """In words: whole where it is."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.3f}"


def _each(part: Floats, whole: Floats) -> Floats:
    each = np.full(len(part), math.nan)
    np.divide(part, whole, out=each, where=whole != 0)
    return each


def _mean(each: Floats, weights: Floats) -> float:
    """What weighs nothing does not count, be it undefined or not."""
    there = weights > 0
    return share_of(float((each[there] * weights[there]).sum()), float(weights.sum()))
