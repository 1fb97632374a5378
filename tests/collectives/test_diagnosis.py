"""Each kind of mistake that one of three ranks can make, over each of our ways of calling: who is told what, and how soon.

The table that people read is `python -m benchmarks diagnosis`, which has gloo beside them.
"""

from __future__ import annotations

import itertools

import pytest

from benchmarks.mistakes import DEATHS, HANGS, MISTAKES, Told, make

SOON_S = 1.0  # after the last rank's arrival, by the issue
TORCHS = "torch.distributed, phalanx"  # which takes no names
OURS = ("shared memory", "our transport over gloo", TORCHS)
UNSEEN = ("two operations swapped", TORCHS)  # of one shape, and nameless: nothing tells them apart
MISMATCHES = [name for name in MISTAKES if name not in (*HANGS, *DEATHS, "splits that do not fit")]


def all_were_told(told: list[Told]) -> bool:
    return all(one.how == "raised" and one.after_s is not None and one.after_s < SOON_S for one in told)


@pytest.mark.parametrize(("mistake", "way"), [pair for pair in itertools.product(MISMATCHES, OURS) if pair != UNSEEN])
def test_a_mismatch_is_told_to_every_rank_with_the_ranks_and_what_each_did(way: str, mistake: str) -> None:
    told = make(way, mistake)
    assert all_were_told(told), told
    for one in told:
        assert one.words.startswith("Mismatch")
        assert "ranks 0, 2: " in one.words
        assert "; rank 1: " in one.words
    what = told[0].words.partition("ranks 0, 2: ")[2].split("; rank 1: ")
    assert what[0] != what[1]
    assert way == TORCHS or all("'" in words for words in what)  # the tensors' names


@pytest.mark.parametrize("way", OURS[:2])
def test_splits_that_do_not_fit_stop_the_rank_that_gave_them_and_the_others_hear_of_it(way: str) -> None:
    told = make(way, "splits that do not fit")
    assert all_were_told(told), told
    assert "splits [1, 1, 2]" in told[1].words
    assert "rank 1" in told[0].words
    assert "rank 1" in told[2].words


@pytest.mark.parametrize("way", OURS)
@pytest.mark.parametrize("mistake", DEATHS)
def test_a_rank_that_ends_is_named_to_those_who_wait_for_it(way: str, mistake: str) -> None:
    told = make(way, mistake)
    assert told[1].how == "died"
    for one in (told[0], told[2]):
        assert one.words.startswith("PeerLost")
        assert "rank 1 (pid" in one.words
        assert "allreduce sum float32[1024]" in one.words
        assert one.after_s is not None
        assert one.after_s < SOON_S


STATES = {
    "it is stopped (SIGSTOP)": "stopped by a signal",
    "it is in an endless loop": "running",
    "it sleeps": "sleeping",
}


@pytest.mark.parametrize("way", OURS)
@pytest.mark.parametrize("mistake", HANGS)
def test_a_hang_is_told_within_five_seconds_with_the_state_of_the_rank_and_its_line(way: str, mistake: str) -> None:
    told = make(way, mistake)
    for one in (told[0], told[2]):
        assert one.how == "warned"
        assert one.after_s is not None
        assert one.after_s < 5.0
        name = "" if way == TORCHS else " 'grad.a'"
        assert f"allreduce sum float32[1024]{name} (operation 2)" in one.words
        assert f", {STATES[mistake]}), which finished operation 1" in one.words
        assert "mistakes.py:" in one.words
