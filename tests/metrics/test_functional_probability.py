"""Metrics of probabilities under scikit-learn's names: its own answers, warnings and refusals, to the word where it speaks."""

import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

import phalanx.metrics
from phalanx.metrics import BadInput, Brier, LogLoss
from tests.metrics.beside_sklearn import Call, same_answer, same_refusal


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.log_loss([0, 1], [0.5, 0.5]),
        lambda m: m.log_loss([0, 1], [1.0, 0.0]),
        lambda m: m.log_loss([0, 0], [0.5, 0.5], labels=[0, 1]),
        lambda m: m.log_loss([0, 1], [[0.5, 0.2]] * 2),
        lambda m: m.log_loss([0, 1], [0.5, 0.6], sample_weight=[1, 3], normalize=False),
        lambda m: m.log_loss(["b", "a"], [[0.3, 0.7], [0.6, 0.4]], labels=["b", "a"]),
        lambda m: m.log_loss([[1, 0], [0, 1]], [[0.3, 0.7], [0.6, 0.4]]),
        lambda m: m.log_loss([[1, 0, 1], [0, 1, 0]], [[0.3, 0.6, 0.1], [0.6, 0.3, 0.1]]),
        lambda m: m.log_loss([0, 1], y_pred=[0.2, 0.7]),
        lambda m: m.log_loss([True, False], [0.5, 0.6]),
        lambda m: m.brier_score_loss([0, 1], [0.5, 0.6]),
        lambda m: m.brier_score_loss([0, 1], [0.5, 0.6], scale_by_half=False),
        lambda m: m.brier_score_loss([0, 1], [[0.5], [0.6]]),
        lambda m: m.brier_score_loss(["a", "b"], [0.5, 0.6], pos_label="b"),
        lambda m: m.brier_score_loss([3, 4], [0.5, 0.6]),
        lambda m: m.brier_score_loss([-1, 0], [0.5, 0.6]),
        lambda m: m.brier_score_loss([0, 1], [0.5, 0.6], sample_weight=[2, 1]),
        lambda m: m.brier_score_loss([0, 1, 2], [[0.5, 0.3, 0.2]] * 3, sample_weight=[2, 1, 0]),
        lambda m: m.brier_score_loss([0, 1, 2], [[0.5, 0.3, 0.2]] * 3, scale_by_half=True),
        lambda m: m.calibration_curve([0, 1, 1], [0.1, 0.5, 0.9]),
        lambda m: m.calibration_curve(["a", "b", "a"], [0.1, 0.5, 0.9], pos_label="a", n_bins=3),
        lambda m: m.calibration_curve([0, 1, 1, 0, 1], [0.1, 0.1, 0.1, 0.1, 0.9], n_bins=4, strategy="quantile"),
    ],
)
def test_the_edges_are_answered_and_warned_of_alike(call: Call) -> None:
    same_answer(call)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.log_loss([0, 0], [0.5, 0.5]),
        lambda m: m.log_loss([0, 0], [0.5, 0.5], labels=[0]),
        lambda m: m.log_loss([0, 2], [0.5, 0.5], labels=[0, 1]),
        lambda m: m.log_loss([0, 1], [[0.5, 0.5, 0.0]] * 2),
        lambda m: m.log_loss([0, 1], [[0.5, 0.5, 0.0]] * 2, labels=[0, 1]),
        lambda m: m.log_loss([0, 1], [0.5, 1.2]),
        lambda m: m.log_loss([0, 1], [0.5, -1.2]),
        lambda m: m.log_loss([], []),
        lambda m: m.log_loss([0, 1], [0.5]),
        lambda m: m.log_loss([0, 1], [0.5, 0.6], sample_weight=[1]),
        lambda m: m.log_loss([0, 1], [0.5, 0.6], sample_weight=[0, 0]),
        lambda m: m.log_loss([0, 1], [0.2, 0.7], y_pred=[0.2, 0.7]),
        lambda m: m.log_loss([0, 1, 2], [0.5, 0.6, 0.7]),
        lambda m: m.brier_score_loss(["a", "b"], [0.5, 0.6]),
        lambda m: m.brier_score_loss([0, 1, 2], [0.5, 0.6, 0.7]),
        lambda m: m.brier_score_loss([0, 1], [0.5, 1.6]),
        lambda m: m.brier_score_loss([0, 1], [0.5, -1.6]),
        lambda m: m.brier_score_loss([], []),
        lambda m: m.calibration_curve([0, 1, 2], [0.1, 0.5, 0.9]),
        lambda m: m.calibration_curve([0, 1, 2], [0.1, 0.5, 0.9], pos_label=1),
        lambda m: m.calibration_curve(["a", "b", "a"], [0.1, 0.5, 0.9]),
        lambda m: m.calibration_curve([0, 1], [0.1, 1.9]),
        lambda m: m.calibration_curve([0, 1], [0.1]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_the_same_words(call: Call) -> None:
    same_refusal(call)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_drawn_data_gives_the_same_answers(classes: int, weighted: bool) -> None:
    draw = np.random.default_rng(classes)
    chances = draw.dirichlet([0.3] * classes, 500)
    truth = np.array([draw.choice(classes, p=each) for each in chances])
    weights = draw.random(500) if weighted else None
    same_answer(lambda m: m.log_loss(truth, chances, sample_weight=weights))
    same_answer(lambda m: m.log_loss(truth, chances, sample_weight=weights, normalize=False))
    words = np.array(list("abcdefg"))[truth]
    same_answer(lambda m: m.log_loss(words, chances, sample_weight=weights, labels=list("abcdefg")[:classes]))
    for half in ("auto", True, False):
        same_answer(lambda m, half=half: m.brier_score_loss(truth, chances, sample_weight=weights, scale_by_half=half))
    event = truth == 0
    same_answer(lambda m: m.brier_score_loss(event, chances[:, 0], sample_weight=weights))
    for strategy in ("uniform", "quantile"):
        same_answer(lambda m, strategy=strategy: m.calibration_curve(event, chances[:, 0], n_bins=7, strategy=strategy))


def test_single_precision_is_kept_off_0_by_its_own_rounding_error() -> None:
    ours = phalanx.metrics.log_loss([0, 1], np.array([1.0, 0.0], np.float32))
    assert ours == pytest.approx(-np.log(np.finfo(np.float32).eps), rel=1e-12)
    assert ours == pytest.approx(sklearn.metrics.log_loss([0, 1], np.array([1.0, 0.0], np.float32)), rel=1e-6)


def test_an_answer_has_the_bits_of_the_state() -> None:
    draw = np.random.default_rng(9)
    chances, weights = draw.uniform(0.01, 0.99, 300), draw.random(300)
    truth = draw.random(300) < chances
    for kind, function in ((LogLoss, phalanx.metrics.log_loss), (Brier, phalanx.metrics.brier_score_loss)):
        state = kind(weighted=True)
        for part in range(5):
            state.update(truth[part::5], chances[part::5], weights[part::5])
        assert state.compute() == function(truth, chances, sample_weight=weights)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: phalanx.metrics.log_loss([0, 1], [0.5, math.nan]), r"NaN.*y_proba\[1\] is nan.*1 of 2"),
        (lambda: phalanx.metrics.log_loss([0, 1]), "y_proba is missing"),
        (lambda: phalanx.metrics.brier_score_loss([0], [[[0.5]]]), "dim 3"),
        (lambda: phalanx.metrics.calibration_curve([0, 1], [0.1, 0.9], strategy="x"), "Strategy must be either"),
        (lambda: phalanx.metrics.calibration_curve([0], [math.inf]), r"y_prob\[0\] is inf"),
        (lambda: phalanx.metrics.calibration_curve(np.array([], int), []), "0 sample"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(call: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()
