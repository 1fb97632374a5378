"""What a ranking of needles and straws amounts to: ROC and precision-recall, their areas, intervals and thresholds.

A curve is given by the distinct scores of needles, highest first, and by what lies between them: below each number
is that of thresholds "call everything from this score up a needle". Straws above a needle's score, below the next, can
only add false alarms, so no better threshold lies elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics.errors import BadInput


@dataclass(frozen=True)
class Curve:
    """Arrays float64 [k], by distinct scores of needles, highest first; counts, or weights where `weighted`.

    `needles`, `straws`: of exactly that score; `above`: straws between it and the next higher score of a needle;
    `below`: straws below all needles.
    """

    scores: NDArray[np.float64]
    needles: NDArray[np.float64]
    straws: NDArray[np.float64]
    above: NDArray[np.float64]
    below: float
    weighted: bool = False

    @classmethod
    def of_cells(
        cls,
        levels: NDArray[np.floating],
        needles: NDArray[np.float64],
        cells: NDArray[np.float64],
        *,
        weighted: bool = False,
    ) -> Self:
        """From ascending `levels` [k], the needles [k] and the straws [2k + 1] in gaps and on levels, in turns.

        Raises BadInput when there are no needles or no straws, or they weigh nothing.
        """
        made = cls(
            scores=levels[::-1].astype(np.float64),
            needles=needles[::-1].copy(),
            straws=cells[1::2][::-1].copy(),
            above=cells[2::2][::-1].copy(),
            below=float(cells[0]),
            weighted=weighted,
        )
        for name, amount in (("needles", made.positives), ("straws", made.negatives)):
            if not amount > 0:
                what = "weigh nothing together" if weighted else "are missing"
                raise BadInput(
                    f"the {name} {what}: a ranking needs both classes", remedy="evaluate on data that has both"
                )
        return made

    @cached_property
    def positives(self) -> float:
        """Of all needles."""
        return float(self.true_positives[-1]) if len(self.scores) else 0.0

    @cached_property
    def negatives(self) -> float:
        """Of all straws."""
        # Of the same running sum: weights may round, but no rate shall pass 1.
        return (float(self.false_positives[-1]) if len(self.scores) else 0.0) + self.below

    @cached_property
    def true_positives(self) -> NDArray[np.float64]:
        """Needles found at each threshold [k]."""
        return np.cumsum(self.needles)

    @cached_property
    def false_positives(self) -> NDArray[np.float64]:
        """Straws called needles at each threshold [k]."""
        return np.cumsum(self.above + self.straws)

    @cached_property
    def placements(self) -> NDArray[np.float64]:
        """Of a needle of each score [k]: straws below it, and half of those that tie with it."""
        found: NDArray[np.float64] = self.negatives - self.false_positives + self.straws / 2
        return found

    @cached_property
    def roc_auc(self) -> float:
        """The chance that a needle scores higher than a straw, ties counted half (Mann and Whitney 1947)."""
        return float((self.needles * self.placements).sum()) / (self.positives * self.negatives)

    @cached_property
    def average_precision(self) -> float:
        """Precision at each needle's score, averaged over needles; no interpolation."""
        called = self.true_positives + self.false_positives
        precision = np.divide(self.true_positives, called, out=np.zeros_like(called), where=called > 0)  # weights of 0
        return float((self.needles * precision).sum()) / self.positives

    @cached_property
    def roc_auc_error(self) -> float:
        """Standard error of the area (DeLong, DeLong and Clarke-Pearson 1988, in the form of Sun and Xu 2014).

        NaN for fewer than two needles or straws, and for weighted ones, where it is not defined.
        """
        if self.weighted or self.positives < 2 or self.negatives < 2:
            return math.nan
        area = self.roc_auc
        of_needles = self.needles @ (self.placements / self.negatives - area) ** 2 / (self.positives - 1)
        found = np.append(0.0, self.true_positives)
        # A straw in the gap above threshold i lies below the needles found before it; one on it, below half of its own.
        in_gaps, tied = found / self.positives, (found[:-1] + self.needles / 2) / self.positives
        amounts = np.append(self.above, self.below)
        of_straws = (amounts @ (in_gaps - area) ** 2 + self.straws @ (tied - area) ** 2) / (self.negatives - 1)
        return math.sqrt(float(of_needles / self.positives + of_straws / self.negatives))

    def roc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Every corner of the ROC curve: false- and true-positive rates, ascending, from (0, 0) to (1, 1)."""
        false = np.empty(2 * len(self.scores) + 2)
        true = np.empty_like(false)
        before = np.append(0.0, self.true_positives)
        false[0], true[0] = 0.0, 0.0
        false[1:-1:2], true[1:-1:2] = self.false_positives - self.straws, before[:-1]
        false[2::2], true[2::2] = self.false_positives, before[1:]
        false[-1], true[-1] = self.negatives, self.positives
        return false / self.negatives, true / self.positives

    def partial_auc(self, max_fpr: float, *, standardized: bool = True) -> float:
        """Area up to a false-positive rate; `standardized` so that chance is 0.5 and the best 1 (McClish 1989).

        Raises BadInput unless 0 < max_fpr <= 1.
        """
        if not 0 < max_fpr <= 1:
            raise BadInput(f"a largest false-positive rate lies above 0 and up to 1, not {max_fpr}")
        if max_fpr == 1:
            return self.roc_auc
        false, true = self.roc()
        stop = int(np.searchsorted(false, max_fpr, "right"))
        height = float(np.interp(max_fpr, false[stop - 1 : stop + 1], true[stop - 1 : stop + 1]))
        false, true = np.append(false[:stop], max_fpr), np.append(true[:stop], height)
        area = float(np.diff(false) @ (true[1:] + true[:-1]) / 2)
        least, most = max_fpr**2 / 2, max_fpr
        return (1 + (area - least) / (most - least)) / 2 if standardized else area

    def recall_at_fpr(self, rate: float) -> float:
        """The largest share of needles found by a threshold whose false-positive rate is at most `rate`."""
        if not 0 <= rate <= 1:
            raise BadInput(f"a false-positive rate lies from 0 to 1, not {rate}")
        affordable = self.false_positives / self.negatives <= rate
        return float(self.true_positives[affordable].max(initial=0.0)) / self.positives
