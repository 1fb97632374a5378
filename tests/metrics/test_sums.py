import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.metrics import ExactSum

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite))
def test_the_sum_is_what_fsum_gives(values: list[float]) -> None:
    try:
        expected = math.fsum(values)
    except OverflowError:  # fsum gives up on an overflow in between, and on one at the end
        return
    assert float(ExactSum.of(values)) == expected


@given(st.lists(finite, max_size=30), st.randoms(use_true_random=False), st.integers(1, 6))
def test_parts_in_any_order_and_grouping_give_the_same_state(values: list[float], random: object, parts: int) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    merged = ExactSum()
    for part in range(parts):
        merged = ExactSum.of(shuffled[part::parts]) + merged
    assert merged == ExactSum.of(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0.0),
        ([1e100, 1.0, -1e100], 1.0),
        ([0.1] * 10, 1.0),
        ([5e-324, 5e-324], 1e-323),
        ([sys.float_info.max] * 2, math.inf),
        ([-sys.float_info.max] * 2, -math.inf),
        ([sys.float_info.max, sys.float_info.max, -sys.float_info.max], sys.float_info.max),
        ([1.0, math.inf], math.inf),
    ],
)
def test_known_sums(values: list[float], expected: float) -> None:
    assert float(ExactSum.of(values)) == expected


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, -math.inf]])
def test_what_is_no_number_stays_none(values: list[float]) -> None:
    assert math.isnan(float(ExactSum.of(values)))
    assert math.isnan(float(ExactSum.of(values[:1]) + ExactSum.of(values[1:]) + ExactSum.of([2.0])))


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_the_state_is_plain_whatever_kind_of_float_it_is_fed(kind: type[np.floating]) -> None:
    values = [kind(0.5), kind(math.inf), kind(1)]
    for part in (ExactSum.of(values), ExactSum.of(values[:2]) + ExactSum.of(values[1:])):
        assert type(part.units) is int
        assert type(part.special) is float
        assert type(float(part)) is float
    assert ExactSum.of(values) == ExactSum.of([0.5, math.inf, 1.0])
