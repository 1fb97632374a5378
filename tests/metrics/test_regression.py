"""Errors of forecasts: against scikit-learn, fractions of Python, and themselves however the data is cut."""

import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.metrics import BadInput, DifferentDefinition, MedianAbsoluteError, Regression, mean_squared_error, r2_score
from phalanx.metrics.state import State

NAMES = {
    "mean_squared_error": sklearn.metrics.mean_squared_error,
    "root_mean_squared_error": sklearn.metrics.root_mean_squared_error,
    "mean_absolute_error": sklearn.metrics.mean_absolute_error,
    "mean_absolute_percentage_error": sklearn.metrics.mean_absolute_percentage_error,
    "r2": sklearn.metrics.r2_score,
    "explained_variance": sklearn.metrics.explained_variance_score,
}


def drawn(seed: int, count: int, outputs: int | None) -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(seed)
    shape = count if outputs is None else (count, outputs)
    truth = draw.normal(3, 2, shape)
    return truth, truth + draw.normal(0.2, 0.5, shape), draw.integers(0, 4, count) / 2


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [None, 1, 3])
def test_all_of_them_agree_with_scikit_learn(outputs: int | None, weighted: bool) -> None:
    truth, called, weights = drawn(5, 70_000, outputs)
    given_weights = weights if weighted else None
    found = Regression(outputs, weighted=weighted).update(truth, called, given_weights).compute()
    for name, theirs in NAMES.items():
        expected = theirs(truth, called, sample_weight=given_weights, multioutput="raw_values")
        np.testing.assert_allclose(getattr(found, name), expected if outputs else expected[0], rtol=1e-12)
    kept = weights > 0 if weighted else np.ones(len(truth), bool)
    np.testing.assert_array_equal(found.max_error, np.abs(truth - called)[kept].max(axis=0))
    assert found.count == kept.sum()
    median = MedianAbsoluteError(outputs, weighted=weighted).update(truth, called, given_weights).compute()
    theirs = sklearn.metrics.median_absolute_error(truth, called, sample_weight=given_weights, multioutput="raw_values")
    np.testing.assert_allclose(median, theirs if outputs else theirs[0], rtol=1e-12)


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 60),
    st.sampled_from([None, 2]),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([Regression, MedianAbsoluteError]),
)
def test_any_split_and_order_gives_the_same_bits(
    seed: int, count: int, outputs: int | None, weighted: bool, parts: int, kind: Any
) -> None:
    truth, called, weights = drawn(seed, count, outputs)
    whole = kind(outputs, weighted=weighted).update(truth, called, weights if weighted else None)
    merged = kind(outputs, weighted=weighted)
    order = np.random.default_rng(seed).permutation(count)
    for part in np.array_split(order, parts):
        other = kind(outputs, weighted=weighted)
        other.update(truth[part], called[part], weights[part] if weighted else None)
        merged = State.from_bytes(other.to_bytes()).merge(merged)
    assert merged == whole
    assert repr(merged.compute()) == repr(whole.compute())


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=20), st.integers(0, 40))
def test_r2_is_exact_however_far_from_zero(pairs: list[tuple[int, int]], power: int) -> None:
    far = 2.0**power
    truth, called = np.array(pairs, np.float64).T
    found = Regression().update(truth + far, called + far).compute()
    exact = [Fraction(value) for value in truth]
    mean = sum(exact) / len(exact)
    there = sum((value - mean) ** 2 for value in exact)
    lost = sum((value - Fraction(other)) ** 2 for value, other in zip(exact, called, strict=True))
    assert math.isnan(found.r2) if not there else found.r2 == float(1 - lost / there)
    assert found.mean_squared_error == float(lost / len(exact))


def test_what_is_undefined_says_so() -> None:
    nothing = Regression().compute()
    assert nothing.count == 0
    assert all(math.isnan(getattr(nothing, name)) for name in (*NAMES, "max_error"))
    assert math.isnan(MedianAbsoluteError().compute())
    assert np.isnan(MedianAbsoluteError(2).compute()).tolist() == [True, True]
    weightless = Regression(weighted=True).update([1.0], [2.0], [0]).compute()
    assert weightless.count == 0
    assert math.isnan(weightless.mean_squared_error)
    one = Regression().update([0.1], [0.3]).compute()
    assert math.isnan(one.r2)
    assert math.isnan(one.explained_variance)
    assert one.max_error == one.mean_absolute_error == pytest.approx(0.2)
    same = Regression().update([0.1] * 9, np.arange(9)).compute()
    assert math.isnan(same.r2)
    zero = Regression().update([0.0, 1.0], [0.0, 1.5]).compute()
    assert math.isnan(zero.mean_absolute_percentage_error)
    assert zero.mean_absolute_error == 0.25


def test_a_share_of_next_to_nothing_is_infinite_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Regression().update([1e-320, 1.0], [1.0, 1.0]).compute()
    assert found.mean_absolute_percentage_error == math.inf


def test_what_explains_less_than_a_double_holds_is_infinitely_bad() -> None:
    truth, called = [0.0, 1e-140], [1e100, 1e100]
    assert Regression().update(truth, called).compute().r2 == -math.inf
    assert r2_score(truth, called) == -math.inf
    assert -1e282 < Regression().update([0.0, 1e-140], [1.0, 1.0]).compute().r2 < -1e280


@pytest.mark.parametrize(
    "kind",
    [list, np.array, pd.Series, pl.Series, pa.array, torch.tensor],
    ids=["list", "numpy", "pandas", "polars", "arrow", "torch"],
)
def test_columns_of_any_library_are_the_same(kind: Any) -> None:
    truth, called = [1.0, 2.0, 4.0, 3.0], [1.5, 2.0, 3.0, 3.5]
    assert Regression().update(kind(truth), kind(called)) == Regression().update(truth, called)
    assert mean_squared_error(kind(truth), kind(called)) == 0.375


@pytest.mark.parametrize("weights", [[0.1] * 10, [0.1] * 5 + [0.5], [1, 1, 2], [3, 1, 1, 1], [0, 1, 0, 1, 0], [2.0]])
def test_a_median_where_half_of_the_weight_lies_between_two(weights: list[float]) -> None:
    errors = np.arange(len(weights), dtype=np.float64)
    found = MedianAbsoluteError(weighted=True).update(errors, 0 * errors, weights).compute()
    exact = [Fraction(weight) for weight in weights]
    below = [float(error) for error in range(len(weights)) if 2 * sum(exact[: error + 1]) >= sum(exact)]
    above = [float(error) for error in range(len(weights)) if 2 * sum(exact[error:]) >= sum(exact) and exact[error]]
    assert found == (below[0] + above[-1]) / 2


def test_states_of_other_definitions_and_wrong_inputs_are_refused() -> None:
    with pytest.raises(DifferentDefinition, match="outputs is None here and 2 there"):
        Regression().merge(Regression(2))
    with pytest.raises(BadInput, match="at least one output"):
        Regression(0)
    with pytest.raises(BadInput, match=r"y_pred\[1\] is nan.*1 of 2"):
        Regression().update([1.0, 2.0], [1.0, math.nan])
    with pytest.raises(BadInput, match="y_true has 1, y_pred has 2"):
        MedianAbsoluteError().update([1.0], [1.0, 2.0])
    with pytest.raises(BadInput, match="given, but this state was made without"):
        Regression().update([1.0], [1.0], [1.0])
    with pytest.raises(BadInput, match="beyond 1e100"):
        Regression().update([1e101], [1.0])
    for state in (Regression(2).update([[1, 2]], [[3, 4]]), MedianAbsoluteError(2).update([[1, 2]], [[3, 4]])):
        name = "largest" if isinstance(state, Regression) else "sizes"
        with pytest.raises(BadInput, match="of 2 outputs"):
            type(state).of_parts(state.definition(), {**state.parts(), name: np.zeros((1, 3))})
