"""Places among levels, against numpy's binary search."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.metrics.placing import Placing

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [0.0, -0.0, 0.5, 5e-324, 1.7e308, -1.7e308]
)


def expected(levels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.searchsorted(levels, wanted, "left") + np.searchsorted(levels, wanted, "right")


kinds = st.sampled_from([np.float64, np.float32])


@given(st.lists(numbers, max_size=50), st.lists(numbers, max_size=50), kinds, kinds)
def test_each_is_placed_where_a_binary_search_places_it(
    held: list[float], asked: list[float], of_levels: type, of_wanted: type
) -> None:
    with np.errstate(over="ignore"):
        levels, wanted = np.array(held, np.float64).astype(of_levels), np.array(asked + held, np.float64)
        wanted = wanted.astype(of_wanted)
    levels, wanted = np.unique(levels[np.isfinite(levels)]), wanted[np.isfinite(wanted)]
    placing = Placing(levels)
    assert placing.cells_of(wanted).tolist() == expected(levels.astype(np.float64), wanted.astype(np.float64)).tolist()
    assert placing.cells == 2 * len(levels) + 1


@pytest.mark.parametrize("shape", ["normal", "one far away", "steps", "nearly equal", "mixed floats"])
def test_many_levels_of_every_shape(shape: str) -> None:
    random = np.random.default_rng(2)
    levels, wanted = random.standard_normal(5000), random.standard_normal(50_000)
    if shape == "one far away":
        levels[:3] = 1e30, -1e30, 1e300
    if shape == "steps":
        levels, wanted = np.round(levels, 2), np.round(wanted, 2)
    if shape == "nearly equal":
        levels = 1 + np.arange(5000) * 2.0**-52
        wanted = 1 + random.integers(0, 6000, 50_000) * 2.0**-52
    if shape == "mixed floats":
        wanted = wanted.astype(np.float32)
        levels = np.concatenate([levels, wanted[:100], np.nextafter(wanted[:100].astype(np.float64), 1)])
    levels = np.unique(levels)
    assert np.array_equal(Placing(levels).cells_of(wanted), expected(levels, wanted.astype(levels.dtype)))
