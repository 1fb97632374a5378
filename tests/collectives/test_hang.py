"""What is said of an operation that hangs, for each way in which another rank can be late; real processes' states."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from phalanx.collectives.hang import in_words, late_report, process_state, ranks_in_words, report, waited_on
from phalanx.collectives.transports.transport import RankState, Record


def record(sequence: int = 17, **fields: object) -> Record:
    values: dict[str, object] = {
        "kind": "allreduce",
        "name": "grad.a",
        "op": "sum",
        "dtype": "float32",
        "shape": (1024,),
        "bytes": 4096,
        "submitted_ns": 1,
        "arrived_ns": 2,
        "started_ns": 0,
        "finished_ns": 0,
    }
    return Record(sequence=sequence, **(values | fields))  # type: ignore[arg-type]


def state(rank: int, sequence: int, **fields: object) -> RankState:
    values: dict[str, object] = {
        "pid": 4000 + rank,
        "operation": "broadcast float32[8] 'parameters'" if sequence < 17 else in_words(record()),
        "inside": sequence == 17,
        "alive": True,
        "whereabouts": "train.py:80 in main > train.py:31 in load_batch",
        "whereabouts_age_s": 1.0,
    }
    return RankState(rank=rank, sequence=sequence, **(values | fields))  # type: ignore[arg-type]


def say(*states: RankState, process: str = "sleeping") -> str:
    return report(record(), states, 0, 3.21, "world", state_of=lambda pid: process)


def test_a_stopped_rank_is_named_with_what_it_did_last_and_where_it_stood() -> None:
    assert say(state(0, 17), state(1, 16), process="stopped by a signal") == (
        "world: allreduce sum float32[1024] 'grad.a' (operation 17) of rank 0: waiting 3.21 s for rank 1 (pid 4001, "
        "stopped by a signal), which finished operation 16 (broadcast float32[8] 'parameters') and stood at "
        "train.py:80 in main > train.py:31 in load_batch 1.00 s ago"
    )


def test_a_rank_whose_python_does_not_run_is_said_so_unless_it_is_stopped() -> None:
    silent = state(1, 16, whereabouts_age_s=12.0)
    assert say(state(0, 17), silent, process="running").endswith("12.0 s ago; its Python has not run since")
    assert say(state(0, 17), silent, process="stopped by a signal").endswith("12.0 s ago")


def test_only_those_who_have_not_come_are_named() -> None:
    said = say(state(0, 17), state(1, 17), state(2, 16), state(3, 16))
    assert "rank 1" not in said
    assert said.index("rank 2") < said.index("rank 3")


def test_when_all_have_come_those_who_are_still_inside_are_named() -> None:
    said = say(state(0, 17), state(1, 17), state(2, 17, inside=False), process="stopped by a signal")
    assert "all ranks have come; waiting 3.21 s for rank 1 (pid 4001, stopped by a signal), which is inside it" in said
    assert "rank 2" not in said


def test_a_rank_in_an_earlier_operation_one_that_began_none_and_a_dead_one() -> None:
    assert "which is still in operation 16 (broadcast" in say(state(0, 17), state(1, 16, inside=True))
    assert "which has begun no operation" in say(state(0, 17), state(1, 0, operation="", whereabouts=""))
    assert "(pid 4001, ended)" in say(state(0, 17), state(1, 16, alive=False))


def test_the_pid_of_another_host_is_not_looked_up_here() -> None:
    said = report(record(), [state(0, 17), state(1, 16, here=False)], 0, 4.0, state_of=lambda pid: pytest.fail("asked"))
    assert "rank 1 (pid 4001), which finished" in said


def test_a_late_rank_learns_who_waits_for_it_and_in_what() -> None:
    said = late_report([state(0, 17), state(1, 16), state(2, 17)], 1, 3.0, "train.py:31 in load_batch", "world")
    assert said == (
        "world: ranks 0, 2 have waited 3.00 s for this rank (1), which stands at train.py:31 in load_batch, in "
        "allreduce sum float32[1024] 'grad.a' (operation 17)"
    )


def test_ranks_of_a_subgroup_are_called_as_in_the_world() -> None:
    states = [state(0, 17), state(1, 16)]
    said = report(record(), states, 0, 4.0, "ranks 2, 5", (2, 5), lambda pid: "running")
    assert "of rank 2: waiting 4.00 s for rank 5 (pid 4001" in said
    assert "rank 2 has waited 4.00 s for this rank (5)" in late_report(states, 1, 4.0, "", "ranks 2, 5", (2, 5))


def test_who_is_waited_for_is_empty_when_everybody_else_has_finished() -> None:
    assert waited_on(record(), [state(0, 17), state(1, 17, inside=False)], 0) == []


def test_operations_and_ranks_in_words() -> None:
    assert in_words(record(kind="barrier", op="", dtype="", shape=(), name="")) == "barrier"
    assert in_words(record(kind="allgather", op="", shape=(2, 3), name="")) == "allgather float32[2, 3]"
    assert [ranks_in_words(ranks) for ranks in ([1], [0, 2], [0, 1, 2])] == [
        "rank 1",
        "ranks 0, 2",
        "ranks 0, 1, 2",
    ]


def test_the_kernel_says_whether_a_process_is_stopped_asleep_or_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def becomes(expected: str) -> bool:
        deadline = time.monotonic() + 20
        while process_state(process.pid) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        return process_state(process.pid) == expected

    try:
        assert becomes("sleeping")
        os.kill(process.pid, signal.SIGSTOP)
        assert becomes("stopped by a signal")
        process.kill()
        assert becomes("ended")  # a zombie
    finally:
        process.kill()
        process.wait()
    assert process_state(process.pid) == "ended"
    assert process_state(os.getpid()) == "running"
