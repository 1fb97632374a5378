"""Errors of forecasts under scikit-learn's names: its own answers, warnings and refusals, to the word where it speaks."""

import math
from typing import Any

import numpy as np
import pytest

import phalanx.metrics
from phalanx.metrics import BadInput, Regression
from tests.metrics.beside_sklearn import Call, same_answer, same_refusal

DRAW = np.random.default_rng(11)
TRUTH, CALLED = DRAW.normal(5, 2, (2, 1_000, 3))
CALLED += TRUTH
WEIGHTS = DRAW.random(1_000)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.mean_squared_error([1, 2], [1, 3], sample_weight=[3, -1]),
        lambda m: m.mean_squared_error([[1, 2], [3, 4]], [[1, 2], [3, 5]], multioutput=[0.3, 0.9]),
        lambda m: m.r2_score([[1, 2], [3, 4]], [[1, 2], [3, 5]], multioutput="variance_weighted"),
        lambda m: m.r2_score([1], [1]),
        lambda m: m.r2_score([[1, 1], [1, 1]], [[1, 2], [1, 1]], multioutput="variance_weighted"),
        lambda m: m.r2_score([0.1, 0.2, 0.3], [0.1, 0.25, 0.3], sample_weight=[1, 2, 0]),
        lambda m: m.r2_score([0.1, 0.1, 0.1], [0.1, 0.1, 0.1]),
        lambda m: m.explained_variance_score([0.1, 0.2, 0.3], [0.2, 0.3, 0.4]),
        lambda m: m.explained_variance_score([1], [1]),
        lambda m: m.max_error([[1], [2]], [[1], [4]]),
        lambda m: m.mean_pinball_loss([1, 2], [1, 3], alpha=0.1),
        lambda m: m.mean_absolute_percentage_error([0, 1], [1, 1]),
        lambda m: m.median_absolute_error([1, 2, 3], [1, 1, 1], sample_weight=[1, 1, 0]),
        lambda m: m.mean_absolute_error(np.array(["1", "2"]), np.array(["1", "3"])),
        lambda m: m.mean_absolute_error(np.array([1, 2], dtype=object), np.array([1, 3], dtype=object)),
        lambda m: m.mean_absolute_error(np.array([1, 2], np.float16), np.array([1, 3], np.float16)),
        lambda m: m.mean_absolute_error(np.array([1, 200], np.uint8), np.array([2, 3], np.uint8)),
    ],
)
def test_the_edges_are_answered_and_warned_of_alike(call: Call) -> None:
    same_answer(call)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.mean_squared_error([], []),
        lambda m: m.mean_squared_error([1], [1, 2]),
        lambda m: m.mean_squared_error([1, 2], [[1, 2], [3, 4]]),
        lambda m: m.mean_squared_error([1, 2], [1, 2], sample_weight=[1]),
        lambda m: m.mean_squared_error([1, 2], [1, 3], sample_weight=[0, 0]),
        lambda m: m.mean_squared_error([1, 2], [1, 3], sample_weight=[1, np.nan]),
        lambda m: m.mean_squared_error([[1, 2], [3, 4]], [[1, 2], [3, 5]], multioutput=[1]),
        lambda m: m.mean_squared_error([1, 2], [1, 2], multioutput=[1]),
        lambda m: m.max_error([[1, 2]], [[1, 2]]),
        lambda m: m.mean_squared_log_error([1, -2], [1, 2]),
        lambda m: m.root_mean_squared_log_error([1, -2], [1, 2]),
        lambda m: m.mean_pinball_loss([1, 2], [1, 3], alpha=2),
        lambda m: m.median_absolute_error([1, 2, 3], [1, 1, 1], sample_weight=[0, 0, 0]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_the_same_words(call: Call) -> None:
    same_refusal(call)


@pytest.mark.parametrize("shape", [(slice(None), 0), (slice(None), slice(None))], ids=["one", "three outputs"])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("weights", [None, WEIGHTS, np.arange(1_000)], ids=["plain", "weighted", "whole weights"])
@pytest.mark.parametrize("multioutput", ["raw_values", "uniform_average", "variance_weighted", [0.2, 0.3, 0.9]])
def test_drawn_data_gives_the_same_answers(multioutput: Any, weights: Any, kind: Any, shape: Any) -> None:
    truth, called = (each[shape].astype(kind).astype(np.float64) for each in (TRUTH, CALLED))
    if truth.ndim == 1 and isinstance(multioutput, list):
        return
    names = ["r2_score", "explained_variance_score"]
    if multioutput != "variance_weighted":
        names += ["mean_squared_error", "root_mean_squared_error", "mean_absolute_error", "median_absolute_error"]
        names += ["mean_absolute_percentage_error", "mean_pinball_loss"]
    options = {"multioutput": multioutput, "sample_weight": weights}
    for name in names:
        same_answer(lambda m, name=name: getattr(m, name)(truth, called, **options))
    if multioutput != "variance_weighted":
        for name in ("mean_squared_log_error", "root_mean_squared_log_error"):
            same_answer(lambda m, name=name: getattr(m, name)(np.abs(truth), np.abs(called), **options))


def test_an_answer_has_the_bits_of_the_state() -> None:
    state = Regression(3, weighted=True)
    for part in range(7):
        state.update(TRUTH[part::7], CALLED[part::7], WEIGHTS[part::7])
    found = state.compute()
    for name, function in (
        ("mean_squared_error", phalanx.metrics.mean_squared_error),
        ("mean_absolute_error", phalanx.metrics.mean_absolute_error),
        ("r2", phalanx.metrics.r2_score),
        ("explained_variance", phalanx.metrics.explained_variance_score),
    ):
        answer = function(TRUTH, CALLED, sample_weight=WEIGHTS, multioutput="raw_values")
        assert answer.tolist() == getattr(found, name).tolist()


def test_what_rounding_hides_is_found() -> None:
    # The same error everywhere: there is nothing left to explain, which rounded means do not see.
    assert phalanx.metrics.explained_variance_score([0.1] * 3, [0.2] * 3) == 1
    far = 1e12 + np.arange(8.0)
    assert phalanx.metrics.r2_score(far, far + 0.5) == 1 - 0.25 * 8 / 42


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: phalanx.metrics.mean_squared_error([1, math.nan], [1, 2]), r"NaN.*y_true\[1\] is nan.*1 of 2"),
        (lambda: phalanx.metrics.r2_score([1, 2], [1, math.inf]), r"infinity.*y_pred\[1\] is inf.*1 of 2"),
        (lambda: phalanx.metrics.mean_absolute_error([1], [1e200]), "beyond 1e100"),
        (lambda: phalanx.metrics.mean_absolute_error([1], [1], multioutput="variance_weighted"), "only for r2_score"),
        (lambda: phalanx.metrics.mean_absolute_error([1], [1], multioutput="nope"), "Allowed 'multioutput'"),
        (lambda: phalanx.metrics.mean_absolute_error([[[1]]], [[[1]]]), "dim 3"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(call: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()


def test_weights_that_sum_to_nothing_cannot_be_averaged_by() -> None:
    with pytest.raises(ZeroDivisionError, match="sum to zero"):
        phalanx.metrics.mean_squared_error([1, 2], [1, 3], sample_weight=[1, -1])
