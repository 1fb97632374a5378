"""Moments: against whole numbers and fractions of Python, which do not round, and numpy."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.metrics import BadInput, Moments
from phalanx.metrics.state import State

numbers = st.floats(-1e6, 1e6).map(lambda value: 0.0 if abs(value) < 1e-6 else value)
hard = st.tuples(st.sampled_from([0.0, 1.0, 1e9, -3e12, 1e100]), st.sampled_from([1e-3, 0.7, 1e3]), st.integers(2, 60))


def exactly(values: list[float], weights: list[float] | None = None) -> tuple[float, float]:
    """Mean and variance without rounding until the end."""
    each = [Fraction(weight) for weight in weights or [1.0] * len(values)]
    total = sum(each)
    mean = sum((weight * Fraction(value) for weight, value in zip(each, values, strict=True)), Fraction(0)) / total
    squares = (weight * (Fraction(value) - mean) ** 2 for weight, value in zip(each, values, strict=True))
    return float(mean), float(sum(squares, Fraction(0)) / total)


@settings(deadline=None)
@given(hard, st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_far_from_zero_a_small_spread_survives_any_merges(
    drawn: tuple[float, float, int], seed: int, parts: int
) -> None:
    centre, spread, count = drawn
    values = (centre + spread * np.random.default_rng(seed).normal(size=count)).tolist()
    merged = Moments(1)
    for part in range(parts):
        other = Moments(1)
        for value in values[part::parts]:
            other.update([value])
        merged.merge(other)
    mean, variance = exactly(values)
    batches = Moments(1)
    for part in range(parts):
        batches.update(values[part::parts])
    for found in (merged, batches):
        assert found.count == count
        assert found.mean[0] == pytest.approx(mean, rel=1e-15 * count, abs=1e-15 * spread)
        assert found.variance[0] == pytest.approx(variance, rel=1e-12)
        assert [found.minimum[0], found.maximum[0]] == [min(values), max(values)]


@given(st.lists(st.tuples(numbers, st.floats(1e-3, 1e3)), min_size=1, max_size=40), st.integers(1, 4))
def test_weights_are_how_much_of_each_row_there_is(pairs: list[tuple[float, float]], parts: int) -> None:
    values, weights = np.array(pairs).T
    merged = Moments(1, weighted=True)
    for part in range(parts):
        merged.merge(Moments(1, weighted=True).update(values[part::parts], weights[part::parts]))
    mean, variance = exactly(values.tolist(), weights.tolist())
    assert merged.mean[0] == pytest.approx(mean, rel=1e-12, abs=1e-14 * np.abs(values).max())
    assert merged.variance[0] == pytest.approx(variance, rel=1e-12, abs=1e-28 * np.abs(values).max() ** 2)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 400), max_size=6), st.sampled_from([np.float32, np.float64]))
def test_many_columns_at_once_are_what_numpy_finds_however_they_are_cut(
    seed: int, cuts: list[int], kind: type[np.floating]
) -> None:
    draw = np.random.default_rng(seed)
    rows = (draw.normal(size=(400, 5)) * [1, 1e-3, 1e3, 1, 0] + [0, 10, -1e5, 1e4, 0.1]).astype(kind)
    whole = Moments(5).update(rows)
    merged = Moments(5)
    for part in np.split(rows, sorted(cuts)):
        merged.merge(Moments(5).update(part))
    wide = rows.astype(np.longdouble)
    for found in (whole, merged):
        np.testing.assert_allclose(found.mean, wide.mean(axis=0).astype(float), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(found.variance[:4], wide.var(axis=0).astype(float)[:4], rtol=1e-12)
        assert found.variance[4] == 0  # a column that never changes
        np.testing.assert_array_equal(found.minimum, rows.min(axis=0))
        np.testing.assert_array_equal(found.maximum, rows.max(axis=0))


def test_a_million_rows_in_many_batches_far_from_zero() -> None:
    rows = np.random.default_rng(7).normal(1e8, 1e-2, (1_000_000, 1))
    found = Moments(1)
    for batch in np.split(rows, 500):
        found.update(batch)
    offsets = (rows[:, 0] - 1e8).tolist()  # exact: the numbers lie close together
    mean = math.fsum(offsets) / len(offsets)
    variance = math.fsum((offset - mean) ** 2 for offset in offsets) / len(offsets)
    assert found.mean[0] == 1e8 + mean
    assert found.variance[0] == pytest.approx(variance, rel=1e-13)
    assert Moments(1).update(rows).variance[0] == pytest.approx(variance, rel=1e-13)


def test_an_outlier_among_many_leaves_the_mean_exact() -> None:
    many = np.random.default_rng(3).normal(0, 1e-3, 100_000)
    first = Moments(1).update([1e9]).merge(Moments(1).update(many))
    last = Moments(1).update(many).merge(Moments(1).update([1e9]))
    expected = math.fsum([1e9, *many.tolist()]) / 100_001
    assert first.mean[0] == pytest.approx(expected, rel=1e-14)
    assert last.mean[0] == pytest.approx(expected, rel=1e-14)


def test_what_never_changes_has_no_variance_at_all() -> None:
    weights = np.random.default_rng(1).random(60)
    for count in range(1, 60):
        assert Moments(1).update([0.1] * count).update([0.1] * 7).variance[0] == 0
        assert Moments(1, weighted=True).update([0.1] * count, weights[:count]).variance[0] == 0


def test_of_nothing_all_is_undefined_and_a_weight_of_0_is_nothing() -> None:
    for found in (Moments(2).update(np.zeros((0, 2))), Moments(2, weighted=True).update([[1.0, 2.0]], [0])):
        assert found.count == 0
        for part in ("mean", "variance", "minimum", "maximum"):
            assert np.isnan(getattr(found.compute(), part)).all()
    heavy = Moments(1, weighted=True).update([1.0, 3.0, 99.0], [1, 1, 0]).compute()
    assert (heavy.count, heavy.mean[0], heavy.deviation[0], heavy.maximum[0]) == (2, 2.0, 1.0, 3.0)


def test_bytes_carry_all_of_it() -> None:
    state = Moments(3, weighted=True).update(np.arange(12.0).reshape(4, 3), [1, 2, 3, 4])
    back = State.from_bytes(state.to_bytes())
    assert back == state
    with pytest.raises(BadInput, match="no state"):
        State.from_bytes(state.to_bytes()[:-40])
    for name, value, words in (("mean", np.zeros((2, 2)), "mean has the shape"), ("count", np.array(0), "of 0 rows")):
        with pytest.raises(BadInput, match=words):
            Moments.of_parts(state.definition(), {**state.parts(), name: value})


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1.0, math.nan], [math.inf, 2.0]], r"rows\[\[0, 1\]\] is nan.*2 of 4"),
        ([[1.0]], r"shape \(1, 1\), not \[n, 2\]"),
        ([1.0, 2.0], r"shape \(2,\)"),
        ([["a", "b"]], "words, not numbers"),
        ([[1.0, 1e151]], "beyond 1e150"),
    ],
)
def test_what_is_refused_leaves_no_trace(rows: list[list[float]], words: str) -> None:
    state = Moments(2).update([[1.0, 2.0]])
    with pytest.raises(BadInput, match=words):
        state.update(rows)
    assert state == Moments(2).update([[1.0, 2.0]])


def test_weights_come_where_they_were_announced() -> None:
    with pytest.raises(BadInput, match="given, but this state was made without"):
        Moments(1).update([1.0], [1.0])
    with pytest.raises(BadInput, match="missing, but this state was made with"):
        Moments(1, weighted=True).update([1.0])
    with pytest.raises(BadInput, match="at least one column"):
        Moments(0)
