"""A job whose processes are given: starts one for each slot, shows what they write, and sees that all end together.

The first that fails ends the job, and so do Ctrl-C, SIGTERM, and the launcher's own end. Knows nothing of what the
processes do; jobs whose processes come and go are `runner.elastic`'s.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import ClassVar

from phalanx.foundation import PhalanxError, UsageError
from phalanx.horovod.runner import spawn
from phalanx.horovod.runner.hosts import Slot, assign, is_local
from phalanx.horovod.runner.output import Lines, Terminal, rank_directory
from phalanx.horovod.runner.reach import HostUnreachable, address_for_others, reach
from phalanx.horovod.runner.settings import Settings
from phalanx.horovod.runner.spawn import Worker

Say = Callable[[str], None]

GRACE_S = 5.0  # between SIGTERM and SIGKILL
_EVERY_S = 0.02
_CAUSE_S = 2.0
_TORCH_SAYS = "TORCH_CPP_LOG_LEVEL"
_OF_OTHERS = "HorovodInternalError"  # what a rank says whose operation failed, mostly because another is gone


class WorkerFailed(PhalanxError, RuntimeError):
    """A process of the job ended badly, and the others were stopped. A RuntimeError, as Horovod's launcher raises."""


class Terminated(PhalanxError):
    """The launcher was told to end."""

    exit_code: ClassVar[int] = 128 + signal.SIGTERM


class Job:
    """A context: the hosts of a job, reached; or a directory for what its processes share, of which nothing is left.

    `address`: of us, for processes on other hosts. "" when all are on this one: then they share `scratch`.
    """

    scratch: Path | None = None

    def __init__(self, settings: Settings, say: Say, terminal: Terminal | None = None) -> None:
        self._settings = settings
        self._say = say if settings.verbose else lambda _: None
        self._terminal = terminal or Terminal(sys.stdout, sys.stderr)
        self._started_by = time.monotonic() + settings.start_timeout_s
        self.slots = assign(settings.hosts, settings.num_proc)
        self.address = ""

    def __enter__(self) -> Job:
        with contextlib.ExitStack() as stack:
            stack.enter_context(ended_by_signals())
            hosts = list(dict.fromkeys(slot.host for slot in self.slots))
            if all(is_local(host) for host in hosts):
                self.scratch = Path(tempfile.mkdtemp(prefix="phalanx-"))
                stack.callback(shutil.rmtree, self.scratch, ignore_errors=True)
                self._meeting = {"PHALANX_RENDEZVOUS": str(self.scratch / "rendezvous")}
            else:
                self._meeting = self._meet(hosts)
            self._leave = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.close()

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None, secret: str = "") -> None:
        """Run `argv` on every slot, to its end.

        Raises WorkerFailed for the first process that fails, HostUnreachable for a host that went away, Terminated
        after a SIGTERM, OSError when what we write goes nowhere (BrokenPipeError: nobody reads it); in each case none
        is left running.
        """
        workers: list[Worker] = []
        try:
            for slot in self.slots:
                workers.append(self._start(slot, argv, env or {}, secret))  # noqa: PERF401 - those are stopped
            self._wait(workers)
        finally:
            stop(workers)

    def _meet(self, hosts: Sequence[str]) -> dict[str, str]:
        """Where processes of several hosts find each other, in the variables that say so."""
        self._say(f"asking {', '.join(hosts)}")
        reached = reach(hosts, self._settings.ssh, self._settings.start_timeout_s, self._say)
        address = address_for_others(reached, hosts[0], self._settings.interfaces)
        self.address = next(host.launcher for host in reached.values() if host.launcher)
        self._say(f"rank 0 will listen at {address}, port {reached[hosts[0]].port}")
        return {"MASTER_ADDR": address, "MASTER_PORT": str(reached[hosts[0]].port)}

    def _start(self, slot: Slot, argv: Sequence[str], env: Mapping[str, str], secret: str) -> Worker:
        settings = self._settings
        directory = None
        if settings.output is not None:
            directory = rank_directory(settings.output, slot.rank, slot.size)
        worker = spawn.start(
            slot.host,
            argv,
            place(slot) | common(settings) | self._meeting | dict(env),
            name=f"rank {slot.rank}",
            output=Lines(slot.rank, self._terminal, timestamps=settings.timestamps, directory=directory),
            secret=secret,
            ssh=settings.ssh,
            scratch=self.scratch,
        )
        self._say(f"{worker.name} of {slot.size} starts on {slot.host}")
        return worker

    def _wait(self, workers: Sequence[Worker]) -> None:
        """Until all have ended well."""
        running = list(workers)
        while running:
            ended = {worker: worker.poll() for worker in running}
            if self._terminal.lost is not None:
                raise self._terminal.lost
            if any(ended.values()):
                _let_the_cause_end(workers)
                raise failure(workers, self._settings.output)
            if time.monotonic() > self._started_by:
                late = [worker for worker in running if worker.pid is None and ended[worker] is None]
                if late:
                    raise _not_started(late, self._settings)
            running = [worker for worker in running if ended[worker] is None]
            time.sleep(_EVERY_S)


def run_command(settings: Settings, argv: Sequence[str], say: Say) -> None:
    """Run `argv` as the job of `settings`, to its end. Raises PhalanxError; see `Job.run`."""
    hosts = [host.host for host in settings.hosts]  # none where they are discovered
    if hosts and all(map(is_local, hosts)) and shutil.which(argv[0]) is None:
        raise UsageError(f"there is no program {argv[0]!r}", remedy="check its name, and PATH")
    if hosts and is_local(hosts[0]):
        _refuse_timeline(settings.variables.get("HOROVOD_TIMELINE") or os.environ.get("HOROVOD_TIMELINE", ""))
    if settings.elastic:
        from phalanx.horovod.runner.elastic.driver import run_elastic

        run_elastic(settings, argv, say)
        return
    with Job(settings, say) as job:
        job.run(argv)


def _refuse_timeline(path: str) -> None:
    """Rank 0 would find out only when all have been started."""
    directory = Path(path).absolute().parent
    if path not in ("", "DYNAMIC") and not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(
            f"the timeline {path} cannot be written: {directory} is no directory that this user can write to",
            remedy="name a file in one that is (--timeline-filename, HOROVOD_TIMELINE)",
        )


def place(slot: Slot) -> dict[str, str]:
    """The variables that tell a process its place: ours, and Horovod's."""
    several = {"PHALANX_HOST": slot.host} if slot.local_size < slot.size else {}
    return several | {
        "RANK": str(slot.rank),
        "WORLD_SIZE": str(slot.size),
        "LOCAL_RANK": str(slot.local_rank),
        "LOCAL_WORLD_SIZE": str(slot.local_size),
        "HOROVOD_HOSTNAME": slot.host,
        "HOROVOD_RANK": str(slot.rank),
        "HOROVOD_SIZE": str(slot.size),
        "HOROVOD_LOCAL_RANK": str(slot.local_rank),
        "HOROVOD_LOCAL_SIZE": str(slot.local_size),
        "HOROVOD_CROSS_RANK": str(slot.cross_rank),
        "HOROVOD_CROSS_SIZE": str(slot.cross_size),
    }


def common(settings: Settings) -> dict[str, str]:
    """The variables that all processes of a job have: how they communicate, and what the options say."""
    told = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"} | dict(settings.variables)
    if _TORCH_SAYS not in os.environ:  # a stack of C++ for each connection that a lost rank leaves behind
        told[_TORCH_SAYS] = "ERROR"
    if settings.interfaces:
        told |= {"HOROVOD_GLOO_IFACE": settings.interfaces[0], "GLOO_SOCKET_IFNAME": settings.interfaces[0]}
        told["NCCL_SOCKET_IFNAME"] = ",".join(settings.interfaces)
    return told


def _failed(workers: Sequence[Worker]) -> list[Worker]:
    """Those that ended badly: first those that did so by themselves, then those whose operations failed of others."""
    failed = [worker for worker in workers if worker.poll() not in (None, 0)]
    return sorted(failed, key=lambda worker: (_OF_OTHERS in worker.last_words(), worker.ended_at))


def _let_the_cause_end(workers: Sequence[Worker]) -> None:
    """Who fails because of another may be done before that other is."""
    deadline = time.monotonic() + _CAUSE_S
    while time.monotonic() < deadline and _OF_OTHERS in _failed(workers)[0].last_words():
        if all(worker.poll() is not None for worker in workers):
            return
        time.sleep(_EVERY_S)


def failure(workers: Sequence[Worker], output: Path | None) -> PhalanxError:
    """What the worker that ended badly, and first, has to say."""
    first = _failed(workers)[0]
    words = first.last_words()
    done = [worker.name for worker in workers if worker.poll() == 0]
    if done and _OF_OTHERS in words:
        words += f" ({', '.join(done)} had ended before, with exit code 0)"
    if first.remote and first.pid is None:
        return HostUnreachable(f"{first.host} cannot be reached: {words}", remedy=f"check `ssh {first.host} true`")
    remedy = "look at what it wrote, above"
    if output is not None:
        remedy = f"look at what it wrote, above or in {output}"
    return WorkerFailed(
        f"{how_it_ended(first)}{f': {words}' if words else ''}", where=f"{first.name} on {first.host}", remedy=remedy
    )


def how_it_ended(worker: Worker) -> str:
    """Such as `ended with exit code 1` or `was killed by SIGKILL`."""
    code = worker.poll()
    if code is None:
        return "runs"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    lost = " (of ssh, when the connection is lost)" if code == 255 and worker.remote else ""
    return f"ended with exit code {code}{lost}"


def new_secret() -> str:
    """A key for what is said between the processes of one job."""
    return secrets.token_hex(32)


def _not_started(late: Sequence[Worker], settings: Settings) -> HostUnreachable:
    names = ", ".join(f"{worker.name} on {worker.host}" for worker in late)
    words = late[0].last_words()
    return HostUnreachable(
        f"{names} did not start within {settings.start_timeout_s:g} s{f': {words}' if words else ''}",
        remedy="check the connection to that host, or raise --start-timeout",
    )


def stop(workers: Sequence[Worker]) -> None:
    """Stop what still runs; a second Ctrl-C does not wait."""
    try:
        spawn.stop_all(workers, GRACE_S)
    except (KeyboardInterrupt, Terminated):
        spawn.stop_all(workers, 0)
        raise


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM, and the end of our terminal, end the block as Ctrl-C does; in the main thread, where signals arrive."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        raise Terminated(f"ended by {signal.Signals(number).name}")

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
