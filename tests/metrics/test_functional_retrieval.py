"""Rankings by query under scikit-learn's names: its own answers, warnings and refusals, to the word where it speaks."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

import phalanx.metrics
from phalanx.metrics import BadInput
from tests.metrics.beside_sklearn import Call, same_answer, same_refusal


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.ndcg_score([[1, 0]], [[0.1, 0.2]], k=5),
        lambda m: m.ndcg_score([[0, 0]], [[0.1, 0.2]]),
        lambda m: m.ndcg_score([[1, 0], [2, 3]], [[0.1, 1], [1, 1]], sample_weight=[1, 2], ignore_ties=True),
        lambda m: m.dcg_score([[1, 0], [2, -3]], [[0.1, 1], [1, 1]], log_base=10),
        lambda m: m.dcg_score([[1, 0, 3], [2, -3, 4.5]], [[0.1, 1, 1], [1, 1, 1]], k=2),
        lambda m: m.label_ranking_average_precision_score([[0, 0], [1, 1]], [[1, 2], [2, 1]]),
        lambda m: m.label_ranking_average_precision_score([[0], [1]], [[1], [2]]),
        lambda m: m.label_ranking_average_precision_score(csr_array(np.eye(2)), [[1, 2], [2, 1]]),
        lambda m: m.coverage_error([[0, 0], [1, 1]], [[1, 2], [2, 1]], sample_weight=[1, 3]),
        lambda m: m.label_ranking_loss([[0, 0], [1, 0]], [[1, 2], [2, 2]], sample_weight=[1, 3]),
    ],
)
def test_the_edges_are_answered_and_warned_of_alike(call: Call) -> None:
    same_answer(call)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.ndcg_score([[-1, 0]], [[0.1, 0.2]]),
        lambda m: m.ndcg_score([[1]], [[0.1]]),
        lambda m: m.ndcg_score([1, 0], [0.1, 0.2]),
        lambda m: m.label_ranking_average_precision_score([0, 1], [1, 2]),
        lambda m: m.label_ranking_average_precision_score([[0, 2], [1, 1]], [[1, 2], [2, 1]]),
        lambda m: m.coverage_error([[0], [1]], [[1], [2]]),
        lambda m: m.label_ranking_loss([[0, 1]], [[1, 2, 3]]),
        lambda m: m.label_ranking_loss([[0, 1]], [[1, 2], [3, 4]]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_the_same_words(call: Call) -> None:
    same_refusal(call)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("items", [2, 9])
def test_drawn_data_gives_the_same_answers(items: int, ties: bool, weighted: bool) -> None:
    draw = np.random.default_rng(items)
    grades, scores = draw.integers(0, 3, (400, items)), draw.normal(size=(400, items))
    scores = np.round(scores) if ties else scores
    weights = draw.random(400) if weighted else None
    for k in (None, 1, 3, 20):
        for ignored in (False,) if ties else (False, True):  # theirs leaves the order of ties to the sort
            options = {"k": k, "sample_weight": weights, "ignore_ties": ignored}
            same_answer(lambda m, options=options: m.ndcg_score(grades, scores, **options))
            same_answer(lambda m, options=options: m.dcg_score(grades - 1.5, scores, log_base=3, **options))
    labels = grades > 0
    for name in ("label_ranking_average_precision_score", "coverage_error", "label_ranking_loss"):
        same_answer(lambda m, name=name: getattr(m, name)(labels, scores, sample_weight=weights))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: phalanx.metrics.ndcg_score([[1, 0]], [[0.1, math.nan]]), r"NaN.*y_score\[\[0, 1\]\] is nan.*1 of 2"),
        (lambda: phalanx.metrics.dcg_score([[1, 0]], [[1, 2, 3]]), "different shapes"),
        (lambda: phalanx.metrics.dcg_score([[1, 0]], [[1, 2]], k=0), "Got 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(call: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()


def test_weights_that_sum_to_nothing_cannot_be_averaged_by() -> None:
    with pytest.raises(ZeroDivisionError, match="sum to zero"):
        phalanx.metrics.coverage_error([[0, 1]], [[1, 2]], sample_weight=[0])
