"""Each kind of mistake that one rank can make, over each of our ways of calling: who is told what, and how soon.

The table that people read is `python -m benchmarks diagnosis`, which has gloo beside them.
"""

from __future__ import annotations

import itertools

import pytest

from benchmarks.mistakes import DEATHS, HANGS, MISTAKES, make

SOON_S = 1.0  # for errors, after the last rank's arrival
HANG_S = 5.0
TORCHS = "torch.distributed, phalanx"  # which takes no names
WAYS = ("our group, shared memory", "our group, gloo", "our group, two hosts of two", TORCHS)
UNSEEN = ("two operations swapped", TORCHS)  # of one shape, and nameless: nothing tells them apart
SPLITS = "splits that do not fit"
MISMATCHES = [name for name in MISTAKES if name not in (*HANGS, *DEATHS, SPLITS)]

# Those that take seconds each are in the quick suite over one way only.
every_way = pytest.mark.parametrize("way", [WAYS[0], *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[1:])])


@pytest.mark.parametrize(("mistake", "way"), [pair for pair in itertools.product(MISMATCHES, WAYS) if pair != UNSEEN])
def test_a_mismatch_is_told_to_every_rank_with_the_ranks_and_what_each_did(mistake: str, way: str) -> None:
    for one in make(way, mistake):
        assert one.how == "raised"
        assert one.words.startswith("Mismatch")
        right, wrong = one.words.partition(": ranks 0, 2")[2].split("; rank 1: ")
        assert right != wrong
        assert way == TORCHS or ("'" in right and "'" in wrong)  # the tensors' names


@pytest.mark.parametrize("way", WAYS[:3])
def test_splits_that_do_not_fit_stop_the_rank_that_gave_them_and_the_others_hear_of_it(way: str) -> None:
    told = make(way, SPLITS)
    assert {one.how for one in told} == {"raised"}
    assert "splits [2, 1, 1" in told[1].words
    assert all("rank 1" in one.words for one in told)


@every_way
@pytest.mark.parametrize("mistake", DEATHS)
def test_a_rank_that_ends_is_named_to_those_who_wait_for_it(mistake: str, way: str) -> None:
    told = make(way, mistake)
    assert told[1].how == "died"
    for one in (told[0], *told[2:]):
        assert one.words.startswith("PeerLost")
        assert ("rank 1: ValueError: the batch is empty" if mistake == "it raises" else "rank 1 (pid") in one.words
        assert "allreduce sum float32[1024]" in one.words


STATES = {
    "it is stopped (SIGSTOP)": "stopped by a signal",
    "it is in an endless loop": "running",
    "it sleeps": "sleeping",
}


@every_way
@pytest.mark.parametrize("mistake", HANGS)
def test_a_hang_is_told_with_the_state_of_the_rank_that_is_missing_and_its_line(mistake: str, way: str) -> None:
    told = make(way, mistake)
    name = "" if way == TORCHS else " 'grad.a'"
    for one in (told[0], *told[2:]):
        assert one.how == "warned"
        assert f"allreduce sum float32[1024]{name} (operation 2)" in one.words
        assert f", {STATES[mistake]}), which finished operation 1" in one.words
        assert "mistakes.py:" in one.words


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_errors_come_within_a_second_of_the_last_arrival_and_hangs_are_told_within_five(way: str) -> None:
    for mistake in MISTAKES:
        if (mistake, way) == UNSEEN or mistake == SPLITS:
            continue
        limit_s = HANG_S if mistake in HANGS else SOON_S
        others = [one for rank, one in enumerate(make(way, mistake)) if rank != 1 or mistake in MISMATCHES]
        assert all(one.after_s is not None and one.after_s < limit_s for one in others), (mistake, others)
