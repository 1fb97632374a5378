"""Exact sums of products: against fractions of Python."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.metrics import BadInput, ExactSums
from phalanx.metrics.products import add_product, bounded, numbers, root, spreads, total

# Up to 1e100 and, so that products of three are exact, not below 1e-80.
plain = st.floats(-1e100, 1e100).map(lambda value: 0.0 if abs(value) < 1e-80 else value)


@given(st.lists(st.tuples(plain, plain, plain), max_size=20))
def test_products_of_three_are_not_rounded(rows: list[tuple[float, float, float]]) -> None:
    sums = ExactSums()
    columns = np.array(rows, np.float64).reshape(-1, 3).T
    add_product(sums, None, *columns)
    assert sums.fractions() == [sum((Fraction(a) * Fraction(b) * Fraction(c) for a, b, c in rows), Fraction(0))]


def test_none_is_one() -> None:
    sums = ExactSums(2)
    add_product(sums, np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0]), None, np.array([0.5, 0.25, 2.0]))
    assert sums.values().tolist() == [0.5, 6.5]


def test_a_total_by_weight() -> None:
    weights, values = np.linspace(0, 2, 70_000), np.linspace(-1, 3, 70_000)
    assert total(weights, values) == sum(Fraction(a) * Fraction(b) for a, b in zip(weights, values, strict=True))
    assert total(None, np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 11
    assert total(None, np.zeros(0)) == 0


def spread(values: list[float]) -> float:
    column = np.array(values)
    once, twice = ExactSums(), ExactSums()
    add_product(once, None, column)
    add_product(twice, None, column, column)
    return float(spreads(twice, once, once, Fraction(len(values)))[0])


def test_far_from_zero_a_spread_is_exact_and_what_never_changes_has_none() -> None:
    assert spread([2.0**80 + 2.0**30, 2.0**80, 2.0**80 - 2.0**30]) == 2.0**61
    for same in (0.1, 1e-200, 1e100, -3e12, 5e-324):
        assert spread([same] * 7) == 0
    assert spread([0.1, 1e-200]) == pytest.approx(0.005, rel=1e-15)


@given(st.fractions(min_value=0).filter(lambda value: value > 0))
def test_roots_are_good_to_64_binary_digits(square: Fraction) -> None:
    assert abs(root(square) ** 2 / square - 1) < Fraction(1, 1 << 64)


def test_a_root_of_what_no_double_holds() -> None:
    assert root(Fraction(1, 10**400)) * 10**200 == pytest.approx(1, rel=1e-15)
    assert root(Fraction(10**700)) == pytest.approx(Fraction(10**350), rel=1e-15)
    assert root(Fraction(0)) == 0


def test_numbers_of_other_shapes_and_beyond_a_double_s_square_are_refused() -> None:
    assert numbers("x", [1, 2]).dtype == np.float64
    with pytest.raises(BadInput, match=r"x has the shape \(2,\), not \[n, 2\]"):
        numbers("x", [1, 2], 2)
    with pytest.raises(BadInput, match="x holds 2e\\+100"):
        bounded("x", np.array([1.0, -2e100]))
    with pytest.raises(BadInput, match=r"x\[1\] is inf"):
        numbers("x", [1, math.inf])
