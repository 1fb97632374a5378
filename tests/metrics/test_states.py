import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.metrics import BitsPerByte, MeanLoss, TopK

parts = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1000)), min_size=1, max_size=20)


@given(parts, st.integers(0, 20))
def test_merged_losses_equal_the_loss_of_the_whole(parts: list[tuple[float, int]], cut: int) -> None:
    whole = MeanLoss.of([loss for loss, _ in parts], sum(count for _, count in parts))
    one, two = MeanLoss(), MeanLoss()
    for loss, count in parts[:cut]:
        one += MeanLoss.of([loss], count)
    for loss, count in parts[cut:]:
        two += MeanLoss.of([loss], count)
    assert one + two == two + one == whole
    if whole.count:
        assert whole.value == math.fsum(loss for loss, _ in parts) / whole.count


@given(parts)
def test_merged_bits_equal_the_bits_of_the_whole(parts: list[tuple[float, int]]) -> None:
    merged = sum((BitsPerByte.of([nats], size) for nats, size in parts), BitsPerByte())
    assert merged == BitsPerByte.of([nats for nats, _ in parts], sum(size for _, size in parts))


def test_the_mean_of_unequal_parts_is_not_the_mean_of_their_means() -> None:
    merged = MeanLoss.of([1.0], 1) + MeanLoss.of([27.0], 9)
    assert merged.value == 2.8
    assert merged.perplexity == pytest.approx(math.exp(2.8))


def test_a_coin_for_each_bit_costs_eight_bits_a_byte() -> None:
    assert BitsPerByte.of([1000 * math.log(256)], 1000).value == pytest.approx(8)


def test_a_perplexity_beyond_a_double_is_infinite() -> None:
    assert MeanLoss.of([1e6], 1).perplexity == math.inf


@given(
    st.integers(1, 30).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=n, max_size=n),
            st.lists(st.integers(0, 5), min_size=n, max_size=n),
        )
    ),
    st.integers(1, 7),
    st.integers(0, 30),
)
def test_top_k_is_what_sorting_gives_and_parts_merge(case: tuple[list[list[int]], list[int]], k: int, cut: int) -> None:
    scores, targets = np.array(case[0], float), np.array(case[1])
    whole = TopK.of(scores, targets, k)
    # Scores have many ties: sorting stably puts the lower index first.
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert whole.hits == sum(target in row for target, row in zip(targets, best, strict=True))
    assert TopK.of(scores[:cut], targets[:cut], k) + TopK.of(scores[cut:], targets[cut:], k) == whole


def test_a_score_that_is_no_number_is_the_worst_guess() -> None:
    assert TopK.of(np.array([[math.nan, 1.0], [math.nan, -5.0]]), np.array([1, 0])).value == 0.5


def test_the_standard_error_is_the_binomial_one() -> None:
    assert TopK(1, 50, 100).standard_error == pytest.approx(0.05)


def test_nothing_counted_has_no_value() -> None:
    for value in (MeanLoss().value, MeanLoss().perplexity, BitsPerByte().value, TopK().value, TopK().standard_error):
        assert math.isnan(value)


@pytest.mark.parametrize(("shape", "targets", "k"), [((3,), 3, 1), ((3, 2), 2, 1), ((3, 2), 3, 0)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...], targets: int, k: int) -> None:
    with pytest.raises(ValueError, match="scores"):
        TopK.of(np.zeros(shape), np.zeros(targets, int), k)


def test_negative_counts_and_different_ks_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        MeanLoss.of([1.0], -1)
    with pytest.raises(ValueError, match="negative"):
        BitsPerByte.of([1.0], -1)
    with pytest.raises(ValueError, match="do not merge"):
        TopK(1) + TopK(2)
