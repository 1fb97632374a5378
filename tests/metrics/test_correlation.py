"""Correlations: against scipy, fractions of Python, and themselves however the data is cut."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.metrics import BadInput, Pearson, Spearman
from phalanx.metrics.state import State

pairs = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=40)


@pytest.mark.parametrize("ties", [False, True])
def test_they_agree_with_scipy(ties: bool) -> None:
    draw = np.random.default_rng(2)
    x = draw.normal(size=50_000)
    y = x + draw.normal(size=50_000)
    if ties:
        x, y = np.round(x, 1), np.round(y)
    assert Pearson().update(x, y).compute() == pytest.approx(scipy.stats.pearsonr(x, y).statistic, rel=1e-12)
    assert Spearman().update(x, y).compute() == pytest.approx(scipy.stats.spearmanr(x, y).statistic, rel=1e-12)


@given(pairs, st.integers(0, 40))
def test_pearson_is_exact_however_far_from_zero(drawn: list[tuple[int, int]], power: int) -> None:
    found = Pearson().update(*(np.array(drawn, np.float64).T + 2.0**power)).compute()
    count = len(drawn)
    means = [Fraction(sum(column), count) for column in zip(*drawn, strict=True)]
    (xx, xy), (_, yy) = [
        [sum((row[i] - means[i]) * (row[j] - means[j]) for row in drawn) for j in range(2)] for i in range(2)
    ]
    if xx and yy:
        assert found == pytest.approx(float(xy) / math.sqrt(xx * yy), rel=1e-15)
        assert abs(found) <= 1
    else:
        assert math.isnan(found)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 4), st.booleans())
def test_any_split_and_order_gives_the_same_bits(seed: int, count: int, parts: int, spearman: bool) -> None:
    draw = np.random.default_rng(seed)
    x, y = np.round(draw.normal(size=(2, count)), draw.integers(0, 3))
    make = Spearman if spearman else Pearson
    whole, merged = make().update(x, y), make()
    for part in np.array_split(draw.permutation(count), parts):
        merged = State.from_bytes(make().update(x[part], y[part]).to_bytes()).merge(merged)
    assert merged == whole
    assert repr(merged.compute()) == repr(whole.compute())


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 5)), max_size=20))
def test_a_weight_is_how_often_a_pair_was_seen(rows: list[tuple[int, int, int]]) -> None:
    x, y, weights = np.array(rows, np.float64).reshape(-1, 3).T
    heavy = Pearson(weighted=True).update(x, y, weights).compute()
    often = weights.astype(int)
    assert repr(heavy) == repr(Pearson().update(np.repeat(x, often), np.repeat(y, often)).compute())


@pytest.mark.slow
def test_ranks_of_many_do_not_overflow() -> None:
    count = 5_000_000  # whose squares sum to more than 64 bits
    x = np.arange(count) % 1_000_003
    assert Spearman().update(x, -x).compute() == -1
    assert Spearman().update(x, x**2).compute() == 1


def test_undefined_and_refused() -> None:
    for state in (Pearson(), Spearman(), Pearson(weighted=True)):
        assert math.isnan(state.compute())
    assert math.isnan(Pearson().update([0.1] * 3, [1, 2, 3]).compute())
    assert math.isnan(Spearman().update([1, 2, 3], [0.1] * 3).compute())
    assert Pearson().update([1, 2], [-0.0, 1e-90]).compute() == 1
    with pytest.raises(BadInput, match=r"x\[0\] is inf"):
        Spearman().update([math.inf], [1])
    with pytest.raises(BadInput, match="x has 1, y has 2"):
        Pearson().update([1], [1, 2])
    with pytest.raises(BadInput, match="missing, but this state was made with"):
        Pearson(weighted=True).update([1], [1])
    with pytest.raises(BadInput, match="-1 pairs"):
        Pearson.of_parts({}, {**Pearson().parts(), "count": np.array(-1)})
