"""How good probabilities are: log loss, Brier score, and whether what is called 30% happens in 30 of 100.

All sums are exact, so any split and order of the data gives the same bits.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays, products
from phalanx.metrics.errors import BadInput
from phalanx.metrics.products import Floats, add_product
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums

_OFF = 1e-3  # by which the probabilities of an example may miss 1 together, as single precision's do

Label = str | int | float | bool


class _Chances(State):
    """Of probabilities and what happened. Without `labels`, y_prob [n] are chances of the label `positive` (1 or True
    when it is not named); with them, y_prob [n, labels] those of each label, in this order."""

    def __init__(
        self,
        labels: Sequence[Label] | NDArray[Any] | None = None,
        *,
        positive: Label | None = None,
        weighted: bool = False,
    ) -> None:
        self.labels = None if labels is None else arrays.labels("labels", labels).tolist()
        if self.labels is not None and (len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)):
            raise BadInput(f"labels are two or more, each once, not {self.labels}")
        if self.labels is not None and positive is not None:
            raise BadInput("positive names the label that y_prob [n] is of; with labels, y_prob has a column for each")
        self.positive = positive
        self.weighted = weighted
        self.count = 0
        self._weight = ExactSums()

    def update(
        self, y_true: arrays.ArrayLike, y_prob: arrays.ArrayLike, weights: arrays.ArrayLike | None = None
    ) -> Self:
        """What happened [n], probabilities from 0 to 1 [n] or [n, labels], which make up 1 together within 0.001,
        weights [n] where `weighted`. Raises BadInput."""
        found = arrays.array("y_prob", y_prob) if self.labels is not None else arrays.column("y_prob", y_prob)
        chances = arrays.finite("y_prob", arrays.floats("y_prob", found)).astype(np.float64, copy=False)
        truth: NDArray[Any]
        if self.labels is None:
            truth = arrays.needles("y_true", y_true, self.positive)
            chances = chances[:, None]
        else:
            truth = codes("y_true", y_true, self.labels)
            if chances.ndim != 2 or chances.shape[1] != len(self.labels):
                raise BadInput(f"y_prob has the shape {chances.shape}, not [n, {len(self.labels)}]")
        arrays.same_length(y_true=len(truth), y_prob=len(chances))
        _check_chances(chances)
        heavy = arrays.weights_as_made(weights, len(truth), self.weighted)
        return self._add_chances(truth, chances, heavy)

    def _add_chances(self, truth: NDArray[Any], chances: Floats, heavy: Floats | None) -> Self:
        """Of what was found good: `truth` bool or column [n], `chances` [n, 1 or labels]."""
        if heavy is not None:
            there = products.bounded("weights", heavy) > 0
            truth, chances, heavy = truth[there], chances[there], heavy[there]
            self._weight.add(heavy)
        self.count += len(truth)
        step = max(1, products.CHUNK // chances.shape[1])
        for start in range(0, len(truth), step):
            part = slice(start, start + step)
            self._take(truth[part], np.ascontiguousarray(chances[part]), None if heavy is None else heavy[part])
        return self

    @abstractmethod
    def _take(self, truth: NDArray[Any], chances: Floats, heavy: Floats | None) -> None:
        """As `_add_chances`, of a few."""

    def _sums(self) -> dict[str, ExactSums]:
        """All but the weight, by name."""
        return {}

    @property
    def weight(self) -> float:
        """Of all examples together; their number where they have none."""
        return float(self._weight) if self.weighted else float(self.count)

    def _mean(self, sums: ExactSums) -> float:
        weight = self._weight.fractions()[0] if self.weighted else Fraction(self.count)
        return float(sums.fractions()[0] / weight) if weight else math.nan

    def definition(self) -> dict[str, Any]:
        return {"labels": self.labels, "positive": self.positive, "weighted": self.weighted}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"count": np.array(self.count), **products.as_parts(weight=self._weight, **self._sums())}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made.count = int(parts["count"])
        if made.count < 0:
            raise BadInput(f"no probabilities of {made.count} examples")
        made._weight = products.of_parts(parts, "weight", 1)
        for name, sums in made._sums().items():
            sums.merge(products.of_parts(parts, name, sums.cells))
        return made

    def _add(self, other: Self) -> None:
        self.count += other.count
        self._weight.merge(other._weight)
        theirs = other._sums()
        for name, sums in self._sums().items():
            sums.merge(theirs[name])


class LogLoss(_Chances):
    """Mean of -log(chance given to what happened), in nats. Infinite when something happened that had no chance."""

    def __init__(
        self,
        labels: Sequence[Label] | NDArray[Any] | None = None,
        *,
        positive: Label | None = None,
        weighted: bool = False,
    ) -> None:
        super().__init__(labels, positive=positive, weighted=weighted)
        self._loss, self._impossible = ExactSums(), ExactSums()

    def _take(self, truth: NDArray[Any], chances: Floats, heavy: Floats | None) -> None:
        if self.labels is None:
            given = np.where(truth, chances[:, 0], 1 - chances[:, 0])
        else:
            given = np.take_along_axis(chances, truth[:, None], axis=1)[:, 0]
        none = given == 0
        add_product(self._loss, None, -np.log(np.where(none, 1.0, given)), heavy)
        self._impossible.add(none)

    @property
    def impossible(self) -> int:
        """Examples of what happened though it was given no chance at all."""
        return int(float(self._impossible))

    @property
    def total(self) -> float:
        """Nats of all examples, by weight."""
        return math.inf if self.impossible else float(self._loss)

    def compute(self) -> float:
        return math.inf if self.impossible else self._mean(self._loss)

    def _sums(self) -> dict[str, ExactSums]:
        return {"loss": self._loss, "impossible": self._impossible}


class Brier(_Chances):
    """Mean of squared differences between chances and what happened (Brier 1950): 1 or 0, of the one label that y_prob
    [n] is of: from 0 to 1; of each label, added: from 0 to 2."""

    def __init__(
        self,
        labels: Sequence[Label] | NDArray[Any] | None = None,
        *,
        positive: Label | None = None,
        weighted: bool = False,
    ) -> None:
        super().__init__(labels, positive=positive, weighted=weighted)
        self._squares = ExactSums()

    def _take(self, truth: NDArray[Any], chances: Floats, heavy: Floats | None) -> None:
        happened = truth[:, None] if self.labels is None else truth[:, None] == np.arange(chances.shape[1])
        missed = (happened - chances).reshape(-1)
        weight = None if heavy is None else np.repeat(heavy, chances.shape[1])
        add_product(self._squares, None, missed, missed, weight)

    def compute(self) -> float:
        return self._mean(self._squares)

    def _sums(self) -> dict[str, ExactSums]:
        return {"squares": self._squares}


@dataclass(frozen=True)
class Reliability:
    """By bin [bins]: `weight` of the examples (how many), mean `confidence`, share that `happened`; NaN where none are.

    `edges` [bins + 1]: a bin reaches from above one to the next, the first also holds the lowest edge. `expected_error`
    (ECE; Naeini, Cooper and Hauskrecht 2015): mean over examples of how far confidence and share of their bin are
    apart; `largest_error` (MCE): of the bin where they are furthest apart.
    """

    edges: Floats
    weight: Floats
    confidence: Floats
    happened: Floats
    expected_error: float
    largest_error: float


class Calibration(_Chances):
    """Whether events happen as often as their chances say. `bins`: that many of equal width, or their edges, ascending.

    With labels, of the likeliest label of each example (the first of equal ones): whether it was right, and how sure
    it was (Guo et al. 2017).
    """

    def __init__(
        self,
        bins: int | Sequence[float] | Floats = 10,
        *,
        labels: Sequence[Label] | NDArray[Any] | None = None,
        positive: Label | None = None,
        weighted: bool = False,
    ) -> None:
        super().__init__(labels, positive=positive, weighted=weighted)
        if isinstance(bins, int | np.integer):
            if bins < 1:
                raise BadInput(f"there is at least one bin, not {bins}")
            bins = np.linspace(0, 1, int(bins) + 1)
        self._edges = arrays.scores("bins", bins).astype(np.float64)
        if len(self._edges) < 2 or (np.diff(self._edges) < 0).any():
            raise BadInput(f"edges of bins are two or more, ascending, not {self._edges.tolist()}")
        size = len(self._edges) - 1
        self._there, self._confidence, self._happened = ExactSums(size), ExactSums(size), ExactSums(size)

    def _take(self, truth: NDArray[Any], chances: Floats, heavy: Floats | None) -> None:
        if self.labels is None:
            sure, right = chances[:, 0], truth
        else:
            best = chances.argmax(axis=1)
            sure, right = chances.max(axis=1), best == truth
        places = np.searchsorted(self._edges[1:-1], sure)
        add_product(self._there, places, np.ones(len(sure)), heavy)
        add_product(self._confidence, places, sure, heavy)
        add_product(self._happened, places, right.astype(np.float64), heavy)

    def compute(self) -> Reliability:
        weight, sure, right = self._there.values(), self._confidence.values(), self._happened.values()
        apart = [
            abs(float(one - other))
            for one, other in zip(self._confidence.fractions(), self._happened.fractions(), strict=True)
        ]
        some = weight > 0

        def shares(sums: Floats) -> Floats:
            found: Floats = np.divide(sums, weight, out=np.full(len(weight), math.nan), where=some)
            return found

        return Reliability(
            edges=self._edges.copy(),
            weight=weight,
            confidence=shares(sure),
            happened=shares(right),
            expected_error=math.fsum(apart) / self.weight if self.weight else math.nan,
            largest_error=float(shares(np.array(apart))[some].max()) if some.any() else math.nan,
        )

    def _sums(self) -> dict[str, ExactSums]:
        return {"there": self._there, "confidence": self._confidence, "happened": self._happened}

    def definition(self) -> dict[str, Any]:
        return {"bins": self._edges.tolist(), **super().definition()}


def codes(name: str, data: arrays.ArrayLike, labels: Sequence[Label]) -> NDArray[np.int64]:
    """The place of each label [n] among `labels`. Raises BadInput for another."""
    found, known = arrays.labels(name, data), arrays.labels("labels", labels)
    if not len(found):
        return np.zeros(0, np.int64)
    if (found.dtype.kind == "U") != (known.dtype.kind == "U"):
        raise BadInput(f"{name} and labels are not both words or both numbers: {found[0]!s} and {known[0]!s}")
    order = np.argsort(known)
    places = np.minimum(np.searchsorted(known[order], found), len(known) - 1)
    strange = known[order][places] != found
    if strange.any():
        first = int(np.argmax(strange))
        raise BadInput(
            f"{name}[{first}] is {found[first]!s}, none of the labels {list(labels)}; {int(strange.sum()):,} of "
            f"{len(found):,} do not do"
        )
    return order[places].astype(np.int64)


def _check_chances(chances: Floats) -> None:
    """Raises BadInput for what is below 0, above 1, or does not make up 1 by example."""
    outside = (chances < 0) | (chances > 1)
    if outside.any():
        first = int(np.argmax(outside.any(axis=1)))
        raise BadInput(
            f"y_prob[{first}] is {chances[outside][0]:g}, no probability from 0 to 1; {int(outside.sum()):,} of "
            f"{chances.size:,} do not do",
            remedy="give probabilities, as of a sigmoid or softmax, not scores",
        )
    if chances.shape[1] > 1:
        together = chances.sum(axis=1)
        off = np.abs(together - 1) > _OFF
        if off.any():
            first = int(np.argmax(off))
            raise BadInput(
                f"y_prob[{first}] makes up {together[first]:g}, not 1; {int(off.sum()):,} of {len(off):,} do not do",
                remedy="give the probabilities of all labels",
            )
