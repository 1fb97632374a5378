"""The same job, disturbed: workers, controller and agent are killed, a person interrupts. Nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from phalanx.host import identity_of, is_alive, wait_until_dead
from tests.e2e.terminal import Terminals
from tests.processes import wait_until

LONG = 100_000


def test_a_worker_that_is_killed_costs_a_generation_and_no_step(finished: Terminals, terminals: Terminals) -> None:
    terminals.prepare(finished)
    command = terminals.phalanx("resume", "small")
    terminals.wait_for_step(3)
    victims = [identity_of(pid) for pid in terminals.pids()]
    logs = terminals.phalanx("logs", "small", "-f")
    wait_until(lambda: "rank 1 of 2: steps 1 to 120" in logs.stdout, f"the logs do not follow: {logs.said}")
    os.kill(terminals.pids()[1], signal.SIGKILL)
    assert command.wait() == 0, command.said
    assert logs.wait() == 0
    lines = logs.stdout.splitlines()
    assert lines.index("[rank 1] all steps are done") > max(n for n, line in enumerate(lines) if "steps 1 to" in line)
    assert not any(victim is not None and is_alive(victim) for victim in victims)
    status = terminals.job().job.status
    assert (status.phase, status.generation, status.restarts, status.attempt) == ("Succeeded", 2, 1, 1)
    assert "! rank 1: killed by SIGKILL\n  starting again from the last checkpoint, generation 2" in command.stderr
    assert terminals.losses() == finished.losses()
    report = Path(command.stdout.splitlines()[-1]).read_text()
    assert "killed by SIGKILL" in report
    ends = terminals.sql("SELECT rank, exit_kind, exit_signal FROM workers WHERE event = 'exited' AND generation = 1")
    assert {"rank": 1, "exit_kind": "crashed", "exit_signal": 9} in ends


def test_a_controller_that_is_killed_is_started_again_and_finds_the_workers(
    finished: Terminals, terminals: Terminals
) -> None:
    terminals.prepare(finished, steps=LONG)
    command = terminals.phalanx("resume", "small")
    terminals.wait_for_step(1)
    before = terminals.workers()
    command.kill()
    again = terminals.phalanx("resume", "small")
    wait_until(lambda: "Running: 2 running" in again.stderr, "the second controller does not see them run", 60)
    terminals.wait_for_step(30)
    assert terminals.workers() == before
    status = terminals.job().job.status
    assert (status.attempt, status.generation, status.restarts) == (1, 1, 0)
    assert len(terminals.rows("workers", event="started")) == 2

    same = terminals.write_job(json.loads(terminals.job().job.model_dump_json(by_alias=True, exclude={"status"})))
    for verb in (("run", same), ("resume", "small")):
        refused = terminals.run_to_end(*verb, code=1)
        assert "default/small is running" in refused.stderr
        assert "phalanx stop small" in refused.stderr

    again.interrupt()
    assert again.wait() == 130, again.said
    assert "the workers write a checkpoint first" in again.stderr
    assert Path(again.stdout.splitlines()[-1]).name == "report.html"
    assert terminals.exits() == ["preempted", "preempted"]
    stopped_at = terminals.checkpointed()
    assert terminals.rows("steps", rank=0, step=stopped_at)

    terminals.phalanx("resume", "small")
    terminals.wait_for_step(stopped_at + 1, generation=2)
    assert min(row["step"] for row in terminals.rows("steps", generation=2)) == stopped_at + 1
    stopped = terminals.json("stop", "small")
    assert stopped["phase"] == "Stopped"
    assert terminals.commands[-2].wait() == 130
    deleted = terminals.json("delete", "job", "small", "--files")
    assert deleted == {"namespace": "default", "name": "small", "deleted": True, "files": ""}
    assert terminals.json("get") == []


CONTROL = """
import sys
from phalanx.cli._follow import Follower
from phalanx.cluster import read_job
from phalanx.daemons.foreground import control
from phalanx.daemons.hold import hold, open_state
from phalanx.foundation import Home
home, key = Home.find(), ("default", "small")
with hold(home, key) as held, Follower(home, read_job(open_state(home), *key).job) as follower:
    control(held, follower, controller_timeout_s=2.0)
"""


def test_without_a_controller_the_workers_checkpoint_and_end(finished: Terminals, terminals: Terminals) -> None:
    terminals.prepare(finished, steps=LONG)
    command = terminals.phalanx(program=("-c", CONTROL))
    terminals.wait_for_step(1)
    workers = [identity_of(pid) for pid in terminals.pids()]
    command.kill()
    terminals.commands.clear()
    assert all(worker is not None and wait_until_dead(worker, 60) for worker in workers)
    wait_until(lambda: terminals.exits() == ["preempted", "preempted"], "the agent does not say how they ended")
    last = max(row["step"] for row in terminals.rows("steps", rank=0))
    assert terminals.checkpointed() == last
