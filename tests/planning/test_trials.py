"""The search for the best micro-batch: against trying everything, on speeds of every shape it may meet."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from phalanx.planning.planner import sizes_of
from phalanx.planning.trials import Trial, best, next_trial


def search(seconds: dict[tuple[int, str], float], sizes: tuple[int, ...], precisions: tuple[str, ...]) -> list[Trial]:
    done: list[Trial] = []
    while (wanted := next_trial(done, sizes, precisions)) is not None:  # type: ignore[arg-type]
        assert wanted not in {(trial.micro_batch, trial.precision) for trial in done}
        done.append(Trial(*wanted, seconds[wanted]))
    return done


@given(st.integers(0, 6), st.integers(1, 7), st.floats(1.1, 3))
def test_a_single_best_size_is_found_wherever_it_lies(top: int, count: int, slope: float) -> None:
    sizes = tuple(2**power for power in range(count))
    seconds = {(size, "fp32"): slope ** abs(place - top) for place, size in enumerate(sizes)}
    found = best(search(seconds, sizes, ("fp32",)))
    assert found.step_seconds == min(seconds.values())


def test_both_precisions_are_tried_at_the_same_size_and_the_rest_in_the_faster_one() -> None:
    sizes = (1, 2, 4)
    seconds = {(size, kind): (1.0 if kind == "bf16" else 2.0) for size in sizes for kind in ("fp32", "bf16")}
    done = search(seconds, sizes, ("fp32", "bf16"))
    assert [(trial.micro_batch, trial.precision) for trial in done[:2]] == [(2, "fp32"), (2, "bf16")]
    assert {trial.precision for trial in done[2:]} == {"bf16"}


def test_a_direction_that_gets_worse_is_left() -> None:
    seconds = {(1, "fp32"): 9.0, (2, "fp32"): 1.0, (4, "fp32"): 2.0, (8, "fp32"): 3.0, (16, "fp32"): 4.0}
    assert [trial.micro_batch for trial in search(seconds, (1, 2, 4, 8, 16), ("fp32",))] == [4, 8, 2, 1]


def test_half_the_digits_must_be_worth_it() -> None:
    assert best([Trial(4, "fp32", 1.0), Trial(4, "bf16", 0.95)]).precision == "fp32"
    assert best([Trial(4, "fp32", 1.0), Trial(4, "bf16", 0.80)]).precision == "bf16"
    assert best([Trial(4, "bf16", 1.0)]).precision == "bf16"


def test_of_two_that_are_nearly_as_fast_the_smaller_is_taken() -> None:
    assert best([Trial(4, "fp32", 1.01), Trial(8, "fp32", 1.0)]).micro_batch == 4
    assert best([Trial(4, "fp32", 1.10), Trial(8, "fp32", 1.0)]).micro_batch == 8


@given(st.integers(1, 5000))
def test_the_sizes_split_a_share_evenly_from_one_sequence_to_all(share: int) -> None:
    sizes = sizes_of(share)
    assert sizes[0] == 1
    assert sizes[-1] == share
    assert list(sizes) == sorted(set(sizes))
    assert all(large <= 2 * small for small, large in itertools.pairwise(sizes))
