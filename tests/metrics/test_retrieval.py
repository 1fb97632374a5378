"""Rankings by query: against scikit-learn, every order of what ties, and themselves however the queries are cut."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.metrics import BadInput, DifferentDefinition, Retrieval
from phalanx.metrics.retrieval import Ranked
from phalanx.metrics.state import State


def drawn(seed: int, queries: int, items: int) -> tuple[Any, Any, Any]:
    """Relevance of whole numbers, scores that tie often, weights."""
    draw = np.random.default_rng(seed)
    relevance = draw.integers(0, 3, (queries, items)) * draw.integers(0, 2, (queries, items))
    return relevance, np.round(draw.normal(size=(queries, items)), 1), draw.integers(0, 3, queries) / 2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [None, 3])
def test_they_agree_with_scikit_learn_where_something_is_relevant(k: int | None, weighted: bool) -> None:
    relevance, scores, weights = drawn(1, 3_000, 15)
    relevance[:, 0], relevance[:, 1] = 1, 0  # something, not all
    heavy = weights if weighted else None
    found = Retrieval(k, weighted=weighted).update(relevance, scores, heavy).compute()
    labels = relevance > 0
    theirs = sklearn.metrics
    expected = {
        "dcg": theirs.dcg_score(relevance, scores, k=k, sample_weight=heavy),
        "ndcg": theirs.ndcg_score(relevance, scores, k=k, sample_weight=heavy),
        "average_precision": theirs.label_ranking_average_precision_score(labels, scores, sample_weight=heavy),
        "coverage": theirs.coverage_error(labels, scores, sample_weight=heavy),
        "ranking_loss": theirs.label_ranking_loss(labels, scores, sample_weight=heavy),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-12)
    assert found.queries == (weights > 0).sum() if weighted else 3_000


def over_orders(
    value: Callable[[tuple[int, ...]], float], scores: tuple[int, ...], relevance: tuple[int, ...]
) -> list[float]:
    """Of every order in which no score is above an earlier one, the value of the relevance in this order."""
    orders = itertools.permutations(range(len(scores)))
    falling = (each for each in orders if all(scores[a] >= scores[b] for a, b in itertools.pairwise(each)))
    return [value(tuple(relevance[place] for place in order)) for order in falling]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6), st.integers(1, 7))
def test_of_what_ties_all_orders_count_or_the_worst(rows: list[tuple[int, int]], k: int) -> None:
    relevance, scores = zip(*rows, strict=True)
    ranked = Ranked(np.array([relevance], float), np.array([scores], float))
    relevant = sum(grade > 0 for grade in relevance)

    def among_the_first(order: tuple[int, ...]) -> float:
        return sum(grade > 0 for grade in order[:k])

    def gain(order: tuple[int, ...]) -> float:
        return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(order[:k]))

    hits = np.mean(over_orders(among_the_first, scores, relevance))
    gains = over_orders(gain, scores, relevance)
    assert ranked.precision(k)[0] == pytest.approx(hits / k)
    assert ranked.dcg(k)[0] == pytest.approx(np.mean(gains))
    if not relevant:
        undefined = [ranked.reciprocal_rank(), ranked.recall(k), ranked.ndcg(k), ranked.average_precision()]
        assert np.isnan([*undefined, ranked.coverage(), ranked.ranking_loss()]).all()
        return
    assert ranked.recall(k)[0] == pytest.approx(hits / relevant)
    ranks = over_orders(lambda order: 1 / (1 + [grade > 0 for grade in order].index(True)), scores, relevance)
    assert ranked.reciprocal_rank()[0] == pytest.approx(min(ranks))
    best = gain(tuple(sorted(relevance, reverse=True)))
    assert ranked.ndcg(k)[0] == pytest.approx(np.mean(gains) / best)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(1, 20), st.integers(1, 4), st.booleans())
def test_any_split_and_order_gives_the_same_bits(
    seed: int, queries: int, items: int, parts: int, weighted: bool
) -> None:
    relevance, scores, weights = drawn(seed, queries, items)
    whole = Retrieval(4, weighted=weighted).update(relevance, scores, weights if weighted else None)
    merged = Retrieval(4, weighted=weighted)
    for part in np.array_split(np.random.default_rng(seed).permutation(queries), parts):
        other = Retrieval(4, weighted=weighted)
        other.update(relevance[part], scores[part], weights[part] if weighted else None)
        merged = State.from_bytes(other.to_bytes()).merge(merged)
    one_by_one = Retrieval(4, weighted=weighted)
    for query in range(queries):
        one_by_one.update(relevance[query], scores[query], weights[[query]] if weighted else None)
    assert merged == whole == one_by_one
    assert repr(merged.compute()) == repr(whole.compute())


def test_a_query_without_an_answer_is_told_and_leaves_the_means_alone() -> None:
    state = Retrieval().update([[1, 0], [0, 0]], [[0.9, 0.1], [0.9, 0.1]]).update([0, 0, 1], [3, 2, 1])
    found = state.compute()
    assert (found.queries, found.without_relevant) == (3, 1)
    assert found.reciprocal_rank == pytest.approx((1 + 1 / 3) / 2)
    assert found.recall == 1
    assert found.precision == pytest.approx((1 / 2 + 0 + 1 / 3) / 3)
    all_relevant = Retrieval().update([1, 1], [1, 2]).compute()
    assert math.isnan(all_relevant.ranking_loss)
    nothing = Retrieval().compute()
    assert nothing.queries == 0
    assert math.isnan(nothing.dcg)


@pytest.mark.parametrize(
    ("relevance", "scores", "words"),
    [
        ([[1, 0]], [[1.0, math.inf]], r"scores\[\[0, 1\]\] is inf"),
        ([[-1, 0]], [[1, 2]], "relevance is not negative; 1 of 2"),
        ([[1, 0]], [[1, 2, 3]], r"shapes \(1, 2\) and \(1, 3\)"),
        ([[[1]]], [[[1]]], r"not \[queries, items\]"),
        (np.zeros((2, 0)), np.zeros((2, 0)), "no items"),
    ],
)
def test_what_cannot_be_meant_is_refused(relevance: Any, scores: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Retrieval().update(relevance, scores)


def test_settings_and_states_of_others_are_refused() -> None:
    with pytest.raises(BadInput, match="at least one"):
        Retrieval(0)
    with pytest.raises(DifferentDefinition, match="k is 1 here and 2 there"):
        Retrieval(1).merge(Retrieval(2))
    with pytest.raises(BadInput, match="given, but this state was made without"):
        Retrieval().update([[1, 0]], [[1, 2]], [1])
    with pytest.raises(BadInput, match="no scores of 0 queries, 1"):
        Retrieval.of_parts({}, {**Retrieval().parts(), "without_relevant": np.array(1)})
