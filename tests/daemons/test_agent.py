"""The agent with real workers: how they end, and that they end, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phalanx.cluster import delete_objects
from phalanx.daemons.agent import PEER_GRACE_S, exit_of
from phalanx.events import list_files, read_rows
from phalanx.host import identity_of, is_alive, wait_until_dead
from tests.daemons.ground import STUBBORN, UNTIL_STOPPED, Ground, kinds, waiting_for
from tests.processes import wait_until

SLEEP = "echo there; while :; do sleep 0.05; done"


def test_every_way_to_end_is_told_apart(ground: Ground) -> None:
    ground.control()
    ground.place(
        "exit 0",
        "echo 'no text' >&2; exit 65",
        "exit 70",
        "exit 75",
        "exit 76",
        "echo 'it broke'; echo; exit 1",
        "kill -KILL $$",
        "kill -SEGV $$",
        "kill -36 $$",
    )
    agent = ground.agent()
    members = ground.wait_ended(9)
    expected = ["done", "bad_input", "out_of_memory", "preempted", "peer_lost", *["crashed"] * 4]
    assert kinds(members) == expected
    exits = [member.exit for member in members]
    assert [(e.code, e.signal) for e in exits if e][5:] == [(1, None), (None, 9), (None, 11), (None, 36)]
    said = [e.message for e in exits if e]
    assert (said[1], said[5]) == ("no text", "it broke")
    assert [words.split(":")[0] for words in said[6:]] == [
        "killed by SIGKILL",
        "killed by SIGSEGV",
        "killed by signal 36",
    ]
    ground.stop()
    assert agent.wait(20) == 0


def test_what_a_broken_program_said_last_is_kept_beside_the_signal() -> None:
    assert (
        exit_of(-6, "terminate called after throwing").message == "killed by SIGABRT: terminate called after throwing"
    )
    assert exit_of(-9, "step 3").message == "killed by SIGKILL"
    assert exit_of(3, "").message == "exit code 3"


def test_each_rank_has_its_own_log_and_only_the_environment_it_is_given(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    ground.control()
    ground.place('echo "I am $RANK"; env', 'echo "I am $RANK" >&2')
    agent = ground.agent()
    ground.wait_ended(2)
    assert ground.output(0).startswith("I am 0\n")
    assert ground.output(1) == "I am 1\n"
    assert "SECRET_TOKEN" not in ground.output(0)
    assert f"PWD={ground.run_dir}" in ground.output(0)
    ground.stop()
    agent.wait(20)


@pytest.mark.slow
def test_what_ranks_load_is_compiled_before_they_start(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ground.run_dir.parent / "c"
    monkeypatch.setenv("PHALANX_C_CACHE", str(cache))
    ground.control()
    ground.place(*['ls "$PHALANX_C_CACHE"'] * 2)
    agent = ground.agent()
    ground.wait_ended(2)
    assert [name.split("-")[0] for name in ground.output(0).split()] == ["shm"]
    ground.stop()
    agent.wait(20)


def test_the_agent_compiles_without_torch_and_starts_ranks_without_a_compiler(tmp_path: Path) -> None:
    code = """if True:
        import logging, os, sys
        from phalanx.daemons.agent import build_for_ranks
        logging.basicConfig()
        build_for_ranks()
        assert "torch" not in sys.modules
        """
    for more in ({}, {"PATH": str(tmp_path), "PHALANX_C_CACHE": str(tmp_path / "c")}):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | more, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ("compiler" in done.stderr) == bool(more)


def test_one_rank_dies_and_the_others_are_ended_within_seconds(ground: Ground) -> None:
    ground.control()
    ground.place(STUBBORN, f"{SLEEP} & wait", STUBBORN)
    agent = ground.agent()
    victim = ground.wait_running(3)[1]
    began = time.monotonic()
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    assert kinds(ground.wait_ended(3)) == ["crashed"] * 3
    assert time.monotonic() - began > PEER_GRACE_S  # they had their chance to say why
    status = ground.status()
    assert status is not None
    assert status.first_exit_rank == 1
    ground.stop()
    assert agent.wait(20) == 0


def test_the_first_that_ended_by_its_own_fault_is_named(ground: Ground) -> None:
    """Rank 0 is seen first, but it ended only because rank 1 was about to."""
    ground.control()
    file = ground.run_dir / "go"
    ground.place("exit 76", waiting_for(file, "exit 1"), waiting_for(file, "sleep 1; exit 1"))
    agent = ground.agent()
    wait_until(lambda: "peer_lost" in kinds(ground.members()), "rank 0 does not end")
    file.touch()
    ground.wait_ended(3)
    status = ground.status()
    assert status is not None
    assert status.first_exit_rank == 1
    ground.stop()
    agent.wait(20)


@pytest.mark.parametrize("how", ["desired", "signal"])
def test_a_stop_lets_workers_finish_and_then_the_agent_ends(ground: Ground, how: str) -> None:
    ground.control()
    ground.place(UNTIL_STOPPED, "trap 'sleep 1; exit 75' TERM; while :; do sleep 0.05; done")
    agent = ground.agent()
    ground.wait_running(2)
    if how == "desired":
        ground.stop()
    else:
        agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 0
    assert kinds(ground.members()) == ["preempted", "preempted"]
    assert not ground.has_agent()
    assert ground.output(0).endswith("stopped\n")


def test_a_worker_that_does_not_stop_is_killed_in_the_end(ground: Ground) -> None:
    ground.control()
    ground.place(STUBBORN, UNTIL_STOPPED)
    agent = ground.tuned_agent(checkpoint_grace_s=0.5)
    ground.wait_running(2)
    ground.stop()
    assert agent.wait(20) == 0
    assert kinds(ground.members()) == ["crashed", "preempted"]


def test_workers_die_with_an_agent_that_is_killed(ground: Ground) -> None:
    ground.control()
    ground.place(SLEEP, SLEEP)
    agent = ground.agent()
    workers = [identity_of(member.pid or 0) for member in ground.wait_running(2)]
    agent.kill()
    assert agent.wait(20) == -signal.SIGKILL
    assert all(worker is not None and wait_until_dead(worker, 10) for worker in workers)
    assert not ground.has_agent()


def test_an_agent_that_sees_no_controller_stops_its_workers_and_ends(ground: Ground) -> None:
    ground.place(UNTIL_STOPPED, UNTIL_STOPPED)
    agent = ground.agent(timeout_s=1.0)
    assert agent.wait(30) == 0
    assert kinds(ground.members()) == ["preempted", "preempted"]
    status = ground.status()
    assert status is not None
    assert "no controller" in status.message


def test_a_second_agent_of_the_same_name_ends_and_touches_nothing(ground: Ground) -> None:
    ground.control()
    ground.place(SLEEP)
    agent = ground.agent()
    (worker,) = ground.wait_running(1)
    identity = identity_of(worker.pid or 0)
    assert ground.agent().wait(20) == 0
    assert "another agent" in ground.log.read_text()
    assert identity is not None
    assert is_alive(identity)
    assert ground.members() == [worker]
    agent.kill()
    agent.wait()


def test_a_paused_agent_still_owns_its_workers(ground: Ground) -> None:
    ground.control()
    ground.place(SLEEP)
    agent = ground.agent()
    ground.wait_running(1)
    agent.send_signal(signal.SIGSTOP)
    lease = ground.state.holder(f"agent/{ground.name}")
    assert lease is not None
    assert lease.expires_ns > time.time_ns() + 86400 * 10**9
    assert ground.agent().wait(20) == 0
    agent.kill()
    agent.wait()


def test_an_interrupt_from_a_terminal_does_not_reach_the_agent(ground: Ground) -> None:
    ground.control()
    ground.place(SLEEP)
    agent = ground.agent()
    ground.wait_running(1)
    os.killpg(agent.pid, signal.SIGINT)
    ground.stop()
    assert agent.wait(20) == 0


def test_a_new_generation_takes_the_place_of_the_old_one(ground: Ground) -> None:
    ground.control()
    ground.place(SLEEP, SLEEP)
    agent = ground.agent()
    old = [identity_of(member.pid or 0) for member in ground.wait_running(2)]
    ground.place(UNTIL_STOPPED, generation=2)
    ground.wait_running(1, generation=2)
    assert not any(worker is not None and is_alive(worker) for worker in old)
    ground.stop()
    assert agent.wait(20) == 0
    assert kinds(ground.members(2)) == ["preempted"]


@pytest.mark.parametrize("change", ["deleted", "of another attempt"])
def test_an_agent_whose_placement_is_gone_kills_its_workers_and_ends(ground: Ground, change: str) -> None:
    ground.control()
    ground.place(STUBBORN)
    agent = ground.agent()
    ground.wait_running(1)
    if change == "deleted":
        delete_objects(ground.state, ground.key)
    else:
        ground.place(SLEEP, attempt=2, agent="here-2")
        assert ground.status() is None
    assert agent.wait(20) == 0


def test_an_agent_that_finds_a_stop_starts_nothing(ground: Ground) -> None:
    ground.control()
    ground.place(SLEEP)
    ground.stop()
    assert ground.agent().wait(20) == 0
    assert ground.members() == []
    assert not (ground.run_dir / "logs").exists()


def test_an_agent_that_cannot_write_logs_says_so_and_leaves_nothing(ground: Ground) -> None:
    ground.control()
    (ground.run_dir / "logs").write_text("in the way")
    ground.place(SLEEP)
    assert ground.agent().wait(20) == 1
    assert "logs" in ground.log.read_text()
    assert "Traceback" not in ground.log.read_text()


def test_starts_and_ends_are_events(ground: Ground) -> None:
    ground.control()
    ground.place("exit 0", "echo 'it broke'; exit 1", generation=3)
    agent = ground.agent()
    ground.wait_ended(2, generation=3)
    ground.stop()
    agent.wait(20)
    rows = [row for file in list_files(ground.home.spool_dir) for row in read_rows(file.path)]
    said = [
        (row.context["generation"], row.context["rank"], row.fields["event"], row.fields.get("exit_kind"))
        for row in rows
        if row.table == "workers"
    ]
    assert sorted(said[:2]) == [(3, 0, "started", None), (3, 1, "started", None)]
    assert sorted(said[2:]) == [(3, 0, "exited", "done"), (3, 1, "exited", "crashed")]
    assert "it broke" in {row.fields.get("message") for row in rows}
