"""How well scores rank a few needles above a large haystack: exactly, with memory by the number of needles.

    needles = Needles()                         first pass: keeps the scores of the needles, counts the rest
    for labels, scores in open_scores(): needles.update(labels, scores)
    gaps = needles.gaps()                       second pass: counts the straws in the gaps between them
    for labels, scores in open_scores(): gaps.update(labels, scores)
    gaps.compute().roc_auc

Both are states that merge, so ranks may each read a part. Only what lies between which needles matters to ROC-AUC,
average precision, DeLong's variance and every threshold worth choosing, so nothing is lost. For scores that pass only
once see `histogram`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.curve import Curve
from phalanx.metrics.errors import BadInput
from phalanx.metrics.placing import Placing
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums

_CHUNK = 1 << 16  # scores that are placed together: what is made of them stays in a core's cache

Batches = Iterable[tuple[Any, ...]]
"""Of (labels, scores) or (labels, scores, weights)."""


class Needles(State):
    """The first pass: the needles' scores. `positive`: the label of a needle; without it 1 or True."""

    def __init__(self, positive: str | int | bool | None = None, *, weighted: bool = False) -> None:
        self.positive = positive
        self.weighted = weighted
        self.straws = 0
        self._scores: list[NDArray[Any]] = []
        self._weights: list[NDArray[np.float64]] = []

    def update(
        self, labels: arrays.ArrayLike, scores: arrays.ArrayLike, weights: arrays.ArrayLike | None = None
    ) -> Self:
        """Labels and scores [n], weights [n] where `weighted`. Raises BadInput."""
        is_needle, found, heavy = _taken(self, labels, scores, weights)
        self.straws += int(len(is_needle) - is_needle.sum())
        self._scores.append(found[is_needle] + 0)  # -0 becomes 0: equal scores have equal bits
        if heavy is not None:
            self._weights.append(heavy[is_needle])
        return self

    def compute(self) -> NDArray[Any]:
        """The scores of all needles, ascending."""
        return self._sorted()[0]

    def gaps(self) -> Gaps:
        """The second pass over the same scores."""
        scores, weights = self._sorted()
        return Gaps(scores, weights, self.straws, self.positive)

    def _sorted(self) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        scores = np.concatenate(self._scores) if self._scores else np.empty(0, np.float32)
        if not self.weighted:
            return np.sort(scores), None
        weights = np.concatenate(self._weights) if self._weights else np.empty(0)
        order = np.lexsort((weights, scores))  # by weight too: the same order however the scores came
        return scores[order], weights[order]

    def definition(self) -> dict[str, Any]:
        return {"positive": self.positive, "weighted": self.weighted}

    def parts(self) -> dict[str, NDArray[Any]]:
        scores, weights = self._sorted()
        return {
            "scores": scores,
            "weights": np.empty(0) if weights is None else weights,
            "straws": np.array(self.straws),
        }

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made.straws = int(parts["straws"])
        made._scores = [arrays.scores("scores", parts["scores"])]
        made._weights = [parts["weights"].astype(np.float64)] if made.weighted else []
        return made

    def _add(self, other: Self) -> None:
        self.straws += other.straws
        self._scores += other._scores
        self._weights += other._weights


class Gaps(State):
    """The second pass: of each gap between needles' scores, and of each score of a needle, how many straws it has.

    `needles` [m], ascending, `weights` [m] or None. `straws`: that the first pass counted, so that a source that
    gives other scores the second time is noticed.
    """

    def __init__(
        self,
        needles: NDArray[Any],
        weights: NDArray[np.float64] | None,
        straws: int,
        positive: str | int | bool | None = None,
    ) -> None:
        self.positive = positive
        self.weighted = weights is not None
        self._needles, self._needle_weights, self._expected = needles, weights, straws
        self._levels, counts = np.unique(needles, return_counts=True)
        self._counts = counts.astype(np.int64)
        self._seen = np.zeros(2, np.int64)  # needles, straws
        self._placing = Placing(self._levels)
        self._cells = self._placing.cells
        self._straws = np.zeros(self._cells, np.int64)
        self._heavy = ExactSums(self._cells) if self.weighted else None

    def update(
        self, labels: arrays.ArrayLike, scores: arrays.ArrayLike, weights: arrays.ArrayLike | None = None
    ) -> Self:
        """As in the first pass."""
        is_needle, found, heavy = _taken(self, labels, scores, weights)
        needles = int(is_needle.sum())
        self._seen += needles, len(is_needle) - needles
        for start in range(0, len(found), _CHUNK):
            part = slice(start, start + _CHUNK)
            chunk, marked = found[part], is_needle[part]
            cells = self._placing.cells_of(chunk)
            self._straws += np.bincount(cells, minlength=self._cells)
            self._straws -= np.bincount(cells[marked], minlength=self._cells)
            if self._heavy is not None and heavy is not None:
                self._heavy.add(np.where(marked, 0.0, heavy[part]), cells)
        return self

    def compute(self) -> Curve:
        """Raises BadInput when the second pass did not see what the first saw, or there are no needles or no straws."""
        if self._seen.tolist() != [len(self._needles), self._expected]:
            raise BadInput(
                f"the second pass saw {self._seen[0]:,} needles and {self._seen[1]:,} straws, the first "
                f"{len(self._needles):,} and {self._expected:,}",
                remedy="open the same scores for both passes, and merge the states of all parts before and after",
            )
        if self._heavy is None or self._needle_weights is None:
            return Curve.of_cells(self._levels, self._counts.astype(np.float64), self._straws.astype(np.float64))
        needles = ExactSums(len(self._levels)).add(
            self._needle_weights, np.repeat(np.arange(len(self._levels)), self._counts)
        )
        return Curve.of_cells(self._levels, needles.values(), self._heavy.values(), weighted=True)

    def definition(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._needles.astype(np.float64).tobytes())
        digest.update(b"" if self._needle_weights is None else self._needle_weights.tobytes())
        return {"positive": self.positive, "needles": digest.hexdigest(), "straws": self._expected}

    def parts(self) -> dict[str, NDArray[Any]]:
        heavy = self._heavy.parts() if self._heavy is not None else {}
        return {
            "needles": self._needles,
            "weights": np.empty(0) if self._needle_weights is None else self._needle_weights,
            "weighted": np.array(self.weighted),
            "seen": self._seen,
            "straws": self._straws,
            **{f"heavy_{name}": part for name, part in heavy.items()},
        }

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        weighted = bool(parts["weighted"])
        made = cls(
            parts["needles"], parts["weights"] if weighted else None, definition["straws"], definition["positive"]
        )
        if made.definition() != dict(definition) or parts["straws"].shape != made._straws.shape:
            raise BadInput("a state of gaps whose needles are not those that it is defined by")
        made._seen, made._straws = parts["seen"].astype(np.int64), parts["straws"].astype(np.int64)
        if weighted:
            heavy = {name.removeprefix("heavy_"): part for name, part in parts.items() if name.startswith("heavy_")}
            made._heavy = ExactSums.of_parts(heavy, made._cells)
        return made

    def _add(self, other: Self) -> None:
        self._seen += other._seen
        self._straws += other._straws
        if self._heavy is not None and other._heavy is not None:
            self._heavy.merge(other._heavy)


def rank(open_scores: Callable[[], Batches], positive: str | int | bool | None = None) -> Curve:
    """Both passes: `open_scores` is called twice, and gives batches of (labels, scores) or (labels, scores, weights).

    Raises BadInput for what the states refuse.
    """
    needles: Needles | None = None
    for batch in open_scores():
        needles = needles or Needles(positive, weighted=len(batch) > 2)
        needles.update(*batch)
    if needles is None:
        raise BadInput("there are no scores")
    gaps = needles.gaps()
    for batch in open_scores():
        gaps.update(*batch)
    return gaps.compute()


def _taken(
    state: Needles | Gaps, labels: arrays.ArrayLike, scores: arrays.ArrayLike, weights: arrays.ArrayLike | None
) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[np.float64] | None]:
    is_needle = arrays.needles("labels", labels, state.positive)
    found = arrays.scores("scores", scores)
    arrays.same_length(labels=len(is_needle), scores=len(found))
    heavy = arrays.weights_as_made(weights, len(found), state.weighted)
    return is_needle, found, heavy
