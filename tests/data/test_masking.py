import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.draws import generator
from phalanx.data.masking import mask_count, mask_row

SPECIAL = np.array([0, 1, 2, 3, 4])
ORDINARY = np.arange(5, 100)
MASK = 4

rows = st.lists(st.integers(0, 99), min_size=1, max_size=60).map(np.array)


@given(rows, st.floats(0.01, 0.99), st.integers(0, 1000))
def test_targets_are_the_true_tokens_and_all_else_is_left_alone(tokens: np.ndarray, share: float, seed: int) -> None:
    before = tokens.copy()
    seen, positions, targets = mask_row(tokens, SPECIAL, ORDINARY, MASK, share, generator(seed, 1))
    assert (tokens == before).all()
    assert (targets == tokens[positions]).all()
    assert not np.isin(targets, SPECIAL).any()
    assert len(set(positions.tolist())) == len(positions)
    assert positions.tolist() == sorted(positions.tolist())
    others = np.setdiff1d(np.arange(len(tokens)), positions)
    assert (seen[others] == tokens[others]).all()
    assert set(seen[positions].tolist()) <= {MASK, *ORDINARY.tolist()}


@given(rows, st.floats(0.01, 0.99), st.integers(0, 1000))
def test_the_number_masked_is_known_beforehand(tokens: np.ndarray, share: float, seed: int) -> None:
    ordinary = np.array([np.isin(tokens, ORDINARY).sum()])
    _, positions, _ = mask_row(tokens, SPECIAL, ORDINARY, MASK, share, generator(seed, 1))
    assert mask_count(ordinary, share).tolist() == [len(positions)]


@pytest.mark.parametrize(("ordinary", "expected"), [(0, 0), (1, 1), (3, 1), (10, 2), (100, 15), (103, 15), (104, 16)])
def test_the_count_is_the_rounded_share_and_at_least_one(ordinary: int, expected: int) -> None:
    assert mask_count(np.array([ordinary]), 0.15).tolist() == [expected]


def test_eight_of_ten_are_masked_one_replaced_one_kept() -> None:
    tokens = np.tile(ORDINARY, 20)
    fates = np.zeros(3)
    replaced = []
    for seed in range(100):
        seen, positions, targets = mask_row(tokens, SPECIAL, ORDINARY, MASK, 0.15, generator(seed, 1))
        masked, kept = seen[positions] == MASK, seen[positions] == targets
        fates += [masked.sum(), (~masked & ~kept).sum(), kept.sum()]
        replaced.append(seen[positions][~masked & ~kept])
    share = fates / fates.sum()
    # 28,500 draws: standard deviation 0.0024; one replacement of 95 is the true token by chance.
    assert share == pytest.approx([0.8, 0.1 * 94 / 95, 0.1 + 0.1 / 95], abs=0.01)
    counts = np.bincount(np.concatenate(replaced), minlength=100)[5:]
    assert counts.min() > 0


def test_every_position_is_chosen_equally_often() -> None:
    tokens = np.full(40, 50)
    counts = np.zeros(40)
    for seed in range(4000):
        _, positions, _ = mask_row(tokens, SPECIAL, ORDINARY, MASK, 0.15, generator(seed, 1))
        counts[positions] += 1
    # Binomial(4000, 0.15): mean 600, standard deviation 22.6.
    assert abs(counts - 600).max() < 5 * 22.6
