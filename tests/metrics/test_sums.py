"""Sums without rounding: against `math.fsum`, and the same state from any parts."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.metrics import ExactSums

finite = st.floats(allow_nan=False, allow_infinity=False)


def fsum(values: list[float]) -> float | None:
    try:
        return math.fsum(values)
    except OverflowError:  # fsum gives up on an overflow in between, and on one at the end
        return None


@given(st.lists(finite))
def test_the_sum_is_what_fsum_gives(values: list[float]) -> None:
    expected = fsum(values)
    assert expected is None or float(ExactSums.of(values)) == expected


@given(st.lists(finite, max_size=30), st.randoms(use_true_random=False), st.integers(1, 6))
def test_parts_in_any_order_and_grouping_give_the_same_state(values: list[float], random: object, parts: int) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    merged = ExactSums()
    for part in range(parts):
        merged = ExactSums.of(shuffled[part::parts]).merge(merged)
    assert merged == ExactSums.of(values)


@given(st.lists(st.tuples(st.integers(0, 3), finite), max_size=40))
def test_each_cell_has_the_sum_of_its_own_however_they_are_told_apart(pairs: list[tuple[int, float]]) -> None:
    cells = np.array([cell for cell, _ in pairs], np.int64)
    values = np.array([value for _, value in pairs], np.float64)
    found = ExactSums(4).add(values, cells)
    for cell, total in enumerate(found.values().tolist()):
        expected = fsum(values[cells == cell].tolist())
        assert expected is None or total == expected
    assert ExactSums.of_parts(found.parts(), 4) == found


@given(st.lists(finite, max_size=30))
def test_as_a_fraction_it_is_not_rounded_at_all(values: list[float]) -> None:
    assert ExactSums.of(values).fractions() == [sum(map(Fraction, values), Fraction(0))]


def test_what_is_infinite_is_no_fraction() -> None:
    with pytest.raises(OverflowError, match="no fraction"):
        ExactSums.of([1.0, math.inf]).fractions()


def test_millions_are_carried_in_time() -> None:
    values = np.full(3 << 20, 1 - 2**-53)
    values[::3] = -(2.0**-30)
    sums = ExactSums(2)
    for _ in range(3):
        sums.add(values, np.zeros(len(values), np.int64))
    assert sums.values().tolist() == [math.fsum(values.tolist() * 3), 0.0]
    assert sums == ExactSums(2).merge(sums)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0.0),
        ([1e100, 1.0, -1e100], 1.0),
        ([0.1] * 10, 1.0),
        ([5e-324, 5e-324], 1e-323),
        ([5e-324, 1e308, -1e308], 5e-324),
        ([sys.float_info.max] * 2, math.inf),
        ([-sys.float_info.max] * 2, -math.inf),
        ([sys.float_info.max, sys.float_info.max, -sys.float_info.max], sys.float_info.max),
        ([1.0, math.inf], math.inf),
        (np.array([0.5, -math.inf, 1], np.float32), -math.inf),
    ],
)
def test_known_sums(values: list[float], expected: float) -> None:
    found = float(ExactSums.of(values))
    assert found == expected
    assert type(found) is float


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, -math.inf]])
def test_what_is_no_number_stays_none(values: list[float]) -> None:
    assert math.isnan(float(ExactSums.of(values)))
    parts = ExactSums.of(values[:1]).merge(ExactSums.of(values[1:])).merge(ExactSums.of([2.0]))
    assert math.isnan(float(parts))
    assert parts == ExactSums.of([2.0, *values])


def test_sums_of_other_cells_and_parts_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="2 cells and of 3 do not merge"):
        ExactSums(2).merge(ExactSums(3))
    good = ExactSums(2).add([1.0, 2.0], np.array([0, 1])).parts()
    for wrong in (
        {"digits": good["digits"].astype(float)},
        {"digits": good["digits"][:, :1]},
        {"low": np.array([99])},
        {"special": np.zeros(3)},
    ):
        with pytest.raises(ValueError, match="no sums of 2 cells"):
            ExactSums.of_parts(good | wrong, 2)
