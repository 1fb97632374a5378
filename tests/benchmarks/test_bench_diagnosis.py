"""The table of mistakes: ranks that were told the same stand together, and one small run goes through all of it."""

from __future__ import annotations

import pytest

from benchmarks import bench_diagnosis
from benchmarks.bench_diagnosis import in_words, report
from benchmarks.harness import Comparison
from benchmarks.mistakes import Told


def test_ranks_that_were_told_the_same_stand_together_whatever_is_their_own() -> None:
    lost = [
        Told("raised", f"PeerLost: rank {rank} of 3, shared memory: allreduce: rank 1 (pid 7) ended", 0.1)
        for rank in (0, 2)
    ]
    assert in_words([lost[0], Told("died", "exit 0"), lost[1]]) == (
        "**0, 2**: raised: PeerLost: allreduce: rank 1 (pid 7) ended<br>**1**: died: exit 0"
    )


def test_what_another_rank_is_called_stays() -> None:
    words = "PeerLost: rank 0: allreduce: rank 1: ValueError: the batch is empty"
    assert (
        in_words([Told("raised", words)])
        == "**all**: raised: PeerLost: allreduce: rank 1: ValueError: the batch is empty"
    )


def test_a_line_of_the_table_for_each_way() -> None:
    told = [vars(Told("raised", "a | b", 0.25))]
    comparison = Comparison("another shape", "s", {"ours": [0.25], "gloo": [10.0]}, {}, {"ours": told, "gloo": told})
    lines = report([comparison]).splitlines()
    assert lines[-2:] == [
        "| another shape | ours | **all**: raised: a / b | 0.25 |",
        "|  | gloo | **all**: raised: a / b | 10.00 |",
    ]


@pytest.mark.slow
def test_a_quick_run_goes_through_every_way() -> None:
    found = bench_diagnosis.run(bench_diagnosis.Options(quick=True), lambda text: None)
    assert [comparison.name for comparison in found] == ["another shape", "two operations swapped", "it exits"]
    assert all(set(comparison.values) == set(bench_diagnosis.WAYS) for comparison in found)
    assert all(comparison.as_json()["ratios"] for comparison in found)
