"""Longer stories of the same job: everything is killed, paused or deleted, another host name."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
from pathlib import Path

import pytest

from phalanx.foundation import Home
from phalanx.host import identity_of, wait_until_dead
from tests.e2e.terminal import KEY, Terminals, job_document
from tests.processes import left_behind, wait_until, with_argument

LONG = 100_000

pytestmark = pytest.mark.slow


def test_a_killed_agent_takes_its_workers_along_and_another_one_goes_on(
    finished: Terminals, terminals: Terminals
) -> None:
    terminals.prepare(finished)
    command = terminals.phalanx("resume", "small")
    terminals.wait_for_step(25)
    workers = [identity_of(pid) for pid in terminals.pids()]
    os.kill(terminals.agent_pid(), signal.SIGKILL)
    assert all(worker is not None and wait_until_dead(worker, 10) for worker in workers)
    assert command.wait() == 0, command.said
    status = terminals.job().job.status
    assert (status.phase, status.generation, status.restarts) == ("Succeeded", 2, 1)
    assert terminals.losses() == finished.losses()


def test_whatever_is_killed_the_job_ends_with_the_losses_of_an_undisturbed_one(
    finished: Terminals, terminals: Terminals
) -> None:
    """Five times a process of the job, any of them, at a moment of chance; a controller is started again."""
    draw = random.Random(11)
    terminals.prepare(finished, workers={"maxRestarts": 20})
    command = terminals.phalanx("resume", "small")
    for _ in range(5):
        pids = [*with_argument(str(terminals.home.root)), command.process.pid]
        victim = draw.choice(pids)
        terminals.scratch.joinpath("killed").write_text(str(victim))
        if command.process.poll() is None and identity_of(victim):
            os.kill(victim, signal.SIGKILL)
        reached = len(terminals.rows("steps"))
        wait_until(
            lambda: command.process.poll() is not None or len(terminals.rows("steps")) > reached + draw.randint(0, 9),  # noqa: B023
            "nothing goes on",
            90,
        )
        if command.process.poll() is not None:
            if command.process.returncode == 0:
                break
            command = terminals.phalanx("resume", "small")
    assert command.wait() == 0, command.said
    assert terminals.job().job.status.attempt == 1
    assert terminals.losses() == finished.losses()
    doubled = "SELECT count(*) AS n FROM (SELECT source, seq FROM steps GROUP BY source, seq HAVING count(*) > 1)"
    assert terminals.sql(doubled) == [{"n": 0}]


def test_a_worker_killed_while_it_writes_a_checkpoint_leaves_the_one_before(
    finished: Terminals, terminals: Terminals
) -> None:
    terminals.prepare(finished, checkpointEvery=2)
    command = terminals.phalanx("resume", "small")
    terminals.wait_for_step(10)
    checkpoints = Path(terminals.job().job.status.run_dir) / "checkpoints"
    (writer, _) = terminals.pids()
    while not any(name.endswith(".tmp") for name in os.listdir(checkpoints)):
        assert command.process.poll() is None
    os.kill(writer, signal.SIGKILL)
    assert command.wait() == 0, command.said
    assert terminals.job().job.status.restarts == 1
    assert terminals.losses() == finished.losses()
    assert not [name for name in os.listdir(checkpoints) if name.endswith(".tmp")]


def test_a_second_interrupt_leaves_at_once_and_the_agent_finishes_the_stop(
    finished: Terminals, terminals: Terminals
) -> None:
    terminals.prepare(finished, steps=LONG)
    command = terminals.phalanx("resume", "small")
    terminals.wait_for_step(5)
    os.kill(terminals.pids()[0], signal.SIGSTOP)  # the checkpoint has to wait
    command.interrupt()
    wait_until(lambda: "stopping" in command.stderr, "the first interrupt is not heard")
    command.interrupt()
    assert command.wait() == 130
    assert "interrupted" in command.stderr
    os.kill(terminals.pids()[0], signal.SIGCONT)
    wait_until(lambda: terminals.exits() == ["preempted", "preempted"], "the agent does not finish")
    assert left_behind(terminals.home.root) == {}
    assert terminals.checkpointed() >= 5
    assert terminals.run_to_end("stop", "small").stdout == "default/small: Stopped; `phalanx resume small` goes on\n"


def test_a_paused_controller_that_was_replaced_leaves_the_job_alone(finished: Terminals, terminals: Terminals) -> None:
    terminals.prepare(finished, steps=LONG)
    first = terminals.phalanx("resume", "small")
    terminals.wait_for_step(1)
    pids = terminals.pids()
    first.process.send_signal(signal.SIGSTOP)
    second = terminals.phalanx("resume", "small")
    while second.process.wait(30) == 1:  # until the lease of the first has run out
        assert "is running" in second.stderr
        second = terminals.phalanx("resume", "small")
        wait_until(
            lambda: second.process.poll() is not None or "Running" in second.stderr,  # noqa: B023
            "the second controller says nothing",
        )
        if second.process.poll() is None:
            break
    first.process.send_signal(signal.SIGCONT)
    assert first.wait() == 1
    assert "is controlled by another process now" in first.stderr
    assert terminals.pids() == pids
    second.interrupt()
    assert second.wait() == 130


def test_a_job_that_is_deleted_while_it_runs_ends_everywhere(finished: Terminals, terminals: Terminals) -> None:
    terminals.prepare(finished, steps=LONG)
    command = terminals.phalanx("resume", "small")
    terminals.wait_for_step(1)
    deleted = terminals.run_to_end("delete", "job", "small")
    assert deleted.stdout.startswith("default/small: deleted; its files stay in ")
    assert command.wait() == 130, command.said
    assert left_behind(terminals.home.root) == {}
    terminals.prepare(finished, steps=LONG)
    assert terminals.job().job.status.attempt == 2


def test_an_interrupt_while_planning_ends_the_planner_and_what_it_started(terminals: Terminals, text: Path) -> None:
    command = terminals.phalanx("run", terminals.write_job(job_document(text)))
    wait_until(lambda: rehearsing(terminals.home), "no rehearsal is begun", 60)
    tried = [identity_of(pid) for pid in rehearsing(terminals.home)]
    command.interrupt()
    assert command.wait() == 130
    assert all(worker is None or wait_until_dead(worker, 10) for worker in tried)
    assert left_behind(terminals.home.root) == {}


def rehearsing(home: Home) -> list[int]:
    """Children of the home's planner, which try out a few steps."""
    planners = [pid for pid, line in with_argument(str(home.root)).items() if "phalanx.planning --" in line]
    children = []
    for pid in with_argument("phalanx.planning.rehearsal"):
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            children += [pid] if parent in planners else []
    return children


@pytest.mark.root
def test_workers_listen_on_loopback_only_whatever_the_host_is_called(
    finished: Terminals, terminals: Terminals, tmp_path: Path
) -> None:
    """The host's name leads to another address of this host, where gloo would listen by itself."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{outside_address()} elsewhere\n")
    terminals.prepare(finished, steps=LONG)
    enter = f"mount --bind {hosts} /etc/hosts && hostname elsewhere && exec phalanx resume {KEY[1]}"
    program = "import os, sys; os.execvp('unshare', ['unshare', '-um', 'sh', '-c', sys.argv[1]])"
    os.environ["PATH"] = f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"
    command = terminals.phalanx(enter, program=("-c", program))
    terminals.wait_for_step(2)
    assert terminals.rows("steps")[0]["host"] == "elsewhere"
    for pid in terminals.pids():
        addresses = listening(pid)
        assert addresses, "no socket was found: the test looks in the wrong place"
        assert addresses <= {"127.0.0.1", "::1"}
    command.interrupt()
    assert command.wait() == 130


def outside_address() -> str:
    """Of this host, and not loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no address but loopback")
        return str(probe.getsockname()[0])


def listening(pid: int) -> set[str]:
    """Addresses at which the process's own sockets listen."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in own:  # LISTEN
                words = bytes.fromhex(fields[1].split(":")[0])
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.add(socket.inet_ntop(family, packed))
    return found
