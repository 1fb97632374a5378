"""How well scores put what is relevant first, by query: of documents found, or of the labels of an example.

Means over queries are of exact sums, so any split and order of the queries gives the same bits. Scores that tie say
nothing about the order: DCG, precision and recall are means over the orders of what ties; the others count each item
at the worst place that it may have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays, products
from phalanx.metrics.errors import BadInput
from phalanx.metrics.products import Floats, add_product
from phalanx.metrics.state import State
from phalanx.metrics.sums import ExactSums

Indices = NDArray[np.int64]


class Ranked:
    """Queries of equally many items, these by falling score. Values are float64 [queries], NaN where undefined."""

    def __init__(self, relevance: Floats, scores: NDArray[Any]) -> None:
        """Both [queries, items], at least one item, finite; what has a relevance above 0 is relevant."""
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(scores, order, axis=1)
        self._gains = np.take_along_axis(relevance, order, axis=1).astype(np.float64)
        items = scores.shape[1]
        place = np.arange(items)
        other = ranked[:, 1:] != ranked[:, :-1]  # than the one before
        ends = np.ones((len(scores), 1), np.bool_)
        first = np.maximum.accumulate(np.where(np.hstack([ends, other]), place, 0), axis=1)
        last = np.where(np.hstack([other, ends]), place, items)
        self._first: Indices = first  # of those that tie with it
        self._last: Indices = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
        self._relevant = self._gains > 0
        self._many = self._relevant.sum(axis=1)
        upto = np.cumsum(self._relevant, axis=1, dtype=np.int64)
        self._relevant_upto: Indices = np.take_along_axis(upto, self._last, axis=1)  # of this score and above

    def dcg(self, k: int | None = None, base: float = 2) -> Floats:
        """Discounted cumulative gain: the sum of relevance / log(1 + rank), of the first k (Jarvelin, Kekalainen 2002).

        Defined for every query."""
        return self._mean_over_orders(_discount(self._gains.shape[1], k, base))

    def ideal_dcg(self, k: int | None = None, base: float = 2) -> Floats:
        """The largest that any order has."""
        best = -np.sort(-self._gains, axis=1)
        found: Floats = (best * _discount(best.shape[1], k, base)).sum(axis=1)
        return found

    def ndcg(self, k: int | None = None) -> Floats:
        """DCG as a share of the largest; undefined when that is 0."""
        return _share(self.dcg(k), self.ideal_dcg(k))

    def precision(self, k: int) -> Floats:
        """Share of k that are relevant and among the first k. Defined for every query."""
        return self._found(k) / k

    def recall(self, k: int) -> Floats:
        """Share of what is relevant that is among the first k."""
        return _share(self._found(k), self._many)

    def reciprocal_rank(self) -> Floats:
        """1 / rank of the first item that is relevant; what ties with it and is not comes before it."""
        at = self._relevant.argmax(axis=1)[:, None]
        last = np.take_along_axis(self._last, at, axis=1)[:, 0]
        tied = np.take_along_axis(self._relevant_upto, at, axis=1)[:, 0]  # that are relevant
        return _share(self._many > 0, np.where(self._many > 0, last + 2 - tied, 0))

    def average_precision(self) -> Floats:
        """Mean over what is relevant of the share of relevant items down to its score."""
        precision = self._relevant_upto / (self._last + 1)
        return _share((precision * self._relevant).sum(axis=1), self._many)

    def coverage(self) -> Floats:
        """How many of the first items hold all that is relevant."""
        deepest = ((self._last + 1) * self._relevant).max(axis=1)
        return np.where(self._many > 0, deepest, math.nan)

    def ranking_loss(self) -> Floats:
        """Share of pairs of a relevant and another item that are in the wrong order, or tie."""
        others = (self._last + 1 - self._relevant_upto) * self._relevant
        return _share(others.sum(axis=1), self._many * (self._relevant.shape[1] - self._many))

    def _found(self, k: int) -> Floats:
        weights = (np.arange(self._relevant.shape[1]) < k).astype(np.float64)
        return self._mean_over_orders(weights, self._relevant)

    def _mean_over_orders(self, by_place: Floats, gains: NDArray[Any] | None = None) -> Floats:
        """Of each query, gains times what their places weigh; where items tie, the mean of their places."""
        upto = np.append(0.0, np.cumsum(by_place))
        many = self._last - self._first + 1
        mean = np.where(many == 1, by_place, (upto[self._last + 1] - upto[self._first]) / many)
        found: Floats = ((self._gains if gains is None else gains) * mean).sum(axis=1)
        return found


def chunks(relevance: Floats, scores: NDArray[Any]) -> Iterator[Ranked]:
    """Of [queries, items]: some queries at a time."""
    step = max(1, products.CHUNK // scores.shape[1])
    for start in range(0, len(scores), step):
        yield Ranked(relevance[start : start + step], scores[start : start + step])


@dataclass(frozen=True)
class RetrievalScores:
    """Means over the queries on which each is defined, as `Ranked` says; NaN of none. `queries`: how many there were;
    `without_relevant`: of which nothing was relevant, so that most is undefined. DCG, NDCG, precision and recall are of
    the first k; precision and recall of all items without k. `average_precision`: known as MAP, and for labels as
    LRAP; `reciprocal_rank`: as MRR."""

    queries: int
    without_relevant: int
    dcg: float
    ndcg: float
    reciprocal_rank: float
    precision: float
    recall: float
    average_precision: float
    coverage: float
    ranking_loss: float


_NAMES = ("dcg", "ndcg", "reciprocal_rank", "precision", "recall", "average_precision", "coverage", "ranking_loss")


class Retrieval(State):
    """Of queries and their items. `k`: how many of the first items a reader looks at; None: all."""

    def __init__(self, k: int | None = None, *, weighted: bool = False) -> None:
        if k is not None and k < 1:
            raise BadInput(f"the first k items are at least one, not {k}")
        self.k = k
        self.weighted = weighted
        self.queries = 0
        self.without_relevant = 0
        self._sums, self._weights = ExactSums(len(_NAMES)), ExactSums(len(_NAMES))

    def update(
        self, relevance: arrays.ArrayLike, scores: arrays.ArrayLike, weights: arrays.ArrayLike | None = None
    ) -> Self:
        """Relevance (not negative, or truths) and scores [queries, items], or [items] of one query; weights of queries
        [queries] where `weighted`. The next update may have another number of items. Raises BadInput."""
        gains, found = _queries("relevance", relevance), _queries("scores", scores)
        if gains.shape != found.shape:
            raise BadInput(f"relevance and scores have the shapes {gains.shape} and {found.shape}")
        if (gains < 0).any():
            raise BadInput(f"relevance is not negative; {int((gains < 0).sum()):,} of {gains.size:,} are")
        if len(found) and not found.shape[1]:
            raise BadInput("a query has no items", remedy="leave it out, or count it as without an answer yourself")
        heavy = arrays.weights_as_made(weights, len(found), self.weighted)
        if heavy is not None:
            there = products.bounded("weights", heavy) > 0
            gains, found, heavy = gains[there], found[there], heavy[there]
        self.queries += len(found)
        self.without_relevant += int((~(gains > 0).any(axis=1)).sum())
        done = 0
        for ranked in chunks(gains, found):
            values = self._values(ranked, found.shape[1])
            weight = np.ones(values.shape[1]) if heavy is None else heavy[done : done + values.shape[1]]
            done += values.shape[1]
            known = ~np.isnan(values)
            cells = np.nonzero(known)[0]
            each = np.broadcast_to(weight, values.shape)[known]
            add_product(self._sums, cells, values[known], each)
            self._weights.add(each, cells)
        return self

    def _values(self, ranked: Ranked, items: int) -> Floats:
        """[names, queries]."""
        k = self.k or items
        found = {
            "dcg": ranked.dcg(self.k),
            "ndcg": ranked.ndcg(self.k),
            "reciprocal_rank": ranked.reciprocal_rank(),
            "precision": ranked.precision(k),
            "recall": ranked.recall(k),
            "average_precision": ranked.average_precision(),
            "coverage": ranked.coverage(),
            "ranking_loss": ranked.ranking_loss(),
        }
        return np.stack([found[name] for name in _NAMES])

    def compute(self) -> RetrievalScores:
        sums, weights = self._sums.fractions(), self._weights.fractions()
        means = [float(each / weight) if weight else math.nan for each, weight in zip(sums, weights, strict=True)]
        return RetrievalScores(self.queries, self.without_relevant, **dict(zip(_NAMES, means, strict=True)))

    def definition(self) -> dict[str, Any]:
        return {"k": self.k, "weighted": self.weighted}

    def parts(self) -> dict[str, NDArray[Any]]:
        counts = {"queries": np.array(self.queries), "without_relevant": np.array(self.without_relevant)}
        return {**counts, **products.as_parts(sums=self._sums, weights=self._weights)}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made.queries, made.without_relevant = int(parts["queries"]), int(parts["without_relevant"])
        if not 0 <= made.without_relevant <= made.queries:
            raise BadInput(f"no scores of {made.queries} queries, {made.without_relevant} of them without an answer")
        made._sums = products.of_parts(parts, "sums", len(_NAMES))
        made._weights = products.of_parts(parts, "weights", len(_NAMES))
        return made

    def _add(self, other: Self) -> None:
        self.queries += other.queries
        self.without_relevant += other.without_relevant
        self._sums.merge(other._sums)
        self._weights.merge(other._weights)


def _queries(name: str, data: arrays.ArrayLike) -> Floats:
    found = arrays.array(name, data.toarray() if hasattr(data, "toarray") else data)
    found = found[None] if found.ndim == 1 else found
    if found.ndim != 2:
        raise BadInput(f"{name} has the shape {found.shape}, not [queries, items]")
    wide: Floats = arrays.finite(name, arrays.floats(name, found)).astype(np.float64, copy=False)
    return products.bounded(name, wide)


def _discount(items: int, k: int | None, base: float) -> Floats:
    found: Floats = math.log(base) / np.log(np.arange(2, items + 2))
    if k is not None:
        found[k:] = 0
    return found


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    found: Floats = np.divide(part, whole, out=np.full(len(part), math.nan), where=whole > 0)
    return found
