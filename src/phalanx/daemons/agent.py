"""The agent of a host: it owns the life of the workers that placements put there.

    state: Placement (desired)  --->  agent  --->  worker processes
    state: PlacementStatus      <---

Workers are its children and the kernel kills them when it dies, so there is no orphan and no second
copy: whoever finds the agent alive finds the workers. It outlives the controller; when it sees none
for `controller_timeout_s` it has the workers checkpoint, stops them and ends. One rank's end ends the
others. Knows nothing of models, plans or why.

By hand: python -m phalanx.daemons.agent --home DIR --namespace NS --job NAME --name AGENT
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import phalanx
from phalanx.cluster.objects import PLACEMENT, controller_lease
from phalanx.daemons.words import last_words, signal_name
from phalanx.events import Context, Emitter
from phalanx.foundation import BuildError, Home, PhalanxError, ensure_private_directory
from phalanx.host.processes import is_alive, own_identity, reap, signal_group, start
from phalanx.job import EXIT_CODES, MemberStatus, PlacementStatus, WorkerExit, WorkerSpec
from phalanx.state import Conflict, SqliteState, Stored

TICK_S = 0.1
# Its process is the lease: whoever looks sees whether it lives. One that is merely paused still owns its workers,
# so the lease must not run out under it, or a second agent would start theirs a second time.
LEASE_S = 365 * 86400.0
CONTROLLER_TIMEOUT_S = 60.0
CHECKPOINT_GRACE_S = 60.0  # from the signal to the end of a step and of writing a checkpoint
PEER_GRACE_S = 5.0  # from the end of one rank to that of the others, which see it by themselves in about one

log = logging.getLogger(__name__)


def agent_lease(name: str) -> str:
    return f"agent/{name}"


@dataclass
class _Worker:
    spec: WorkerSpec
    process: subprocess.Popen[bytes]
    log_file: Path
    started_ns: int
    exit: WorkerExit | None = None


@dataclass
class Agent:
    """One agent; `run` returns when its placement is gone, stopped or somebody else's, or nobody controls it.

    `stop_requested` may be set at any time, by a signal handler too.
    """

    home: Home
    namespace: str
    job: str
    name: str
    controller_timeout_s: float = CONTROLLER_TIMEOUT_S
    checkpoint_grace_s: float = CHECKPOINT_GRACE_S
    peer_grace_s: float = PEER_GRACE_S
    stop_requested: bool = False
    _workers: list[_Worker] = field(default_factory=list, init=False)
    _generation: int = field(default=0, init=False)
    _first_exit: int | None = field(default=None, init=False)
    _end_by: float = field(default=math.inf, init=False)
    _stop_signalled: bool = field(default=False, init=False)
    _message: str = field(default="", init=False)
    _reported: PlacementStatus | None = field(default=None, init=False)
    _emitter: Emitter | None = field(default=None, init=False)

    def run(self) -> None:
        """Raises StateError, StorageError; the kernel ends the workers then, as the process ends."""
        self._state = SqliteState(self.home.state_db, is_alive=is_alive)
        identity = own_identity()
        if self._state.lease(agent_lease(self.name), identity, LEASE_S) is None:
            log.info("another agent named %s is at work", self.name)
            return
        self._loop()
        if self._emitter is not None:
            self._emitter.close()
        self._state.release(agent_lease(self.name), identity)

    def _loop(self) -> None:
        controller_seen = time.monotonic()
        orphaned = False
        while True:
            stored = self._state.get(PLACEMENT, self.namespace, self.job)
            if stored is None or not self._is_meant(stored):
                self._kill_all()
                return
            if self._state.holder(controller_lease((self.namespace, self.job))) is not None:
                controller_seen = time.monotonic()
            elif not orphaned and time.monotonic() - controller_seen > self.controller_timeout_s:
                orphaned = True
                self._message = f"no controller for {self.controller_timeout_s:.0f} s: checkpointed and stopped"
                log.warning("%s", self._message)
            stopping = orphaned or self.stop_requested or bool(stored.spec["stopping"])
            self._step(stored, stopping=stopping)
            reported = self._report(stored)
            if stopping and reported and all(worker.exit is not None for worker in self._workers):
                return
            time.sleep(TICK_S)

    def _is_meant(self, stored: Stored) -> bool:
        """Whether the placement names this agent; that of a later attempt does not."""
        return any(member["host"] == self.name for member in stored.spec["placement"]["members"])

    def _step(self, stored: Stored, *, stopping: bool) -> None:
        """Bring the workers one step nearer to the placement."""
        desired = int(stored.spec["placement"]["generation"])
        if desired != self._generation:
            self._kill_all()
            if not stopping:
                self._start(stored, desired)
        for worker in self._workers:
            self._reap(worker)
        alive = [worker for worker in self._workers if worker.exit is None]
        if alive and stopping and not self._stop_signalled:
            self._stop_signalled = True
            self._end_within(self.checkpoint_grace_s)
            for worker in alive:
                signal_group(worker.process.pid, signal.SIGTERM)
        if alive and time.monotonic() > self._end_by:
            self._kill_all()

    def _end_within(self, seconds: float) -> None:
        self._end_by = min(self._end_by, time.monotonic() + seconds)

    def _start(self, stored: Stored, generation: int) -> None:
        self._generation, self._workers, self._first_exit, self._end_by = generation, [], None, math.inf
        self._stop_signalled = False
        run_dir = Path(stored.spec["run_dir"])
        logs = ensure_private_directory(run_dir / "logs" / f"generation-{generation}")
        ensure_private_directory(run_dir / "rendezvous")
        if len(stored.spec["workers"]) > 1:
            build_for_ranks()
        hosts = {member["rank"]: member["host"] for member in stored.spec["placement"]["members"]}
        for document in stored.spec["workers"]:
            spec = WorkerSpec.model_validate(document)
            if hosts[spec.rank] != self.name:
                continue
            log_file = logs / f"rank-{spec.rank}.log"
            environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ} | spec.env
            process = start(spec.argv, env=environment, output=log_file, cwd=run_dir)
            self._workers.append(_Worker(spec, process, log_file, time.time_ns()))
            self._emit(spec, {"event": "started", "pid": process.pid})

    def _reap(self, worker: _Worker) -> None:
        if worker.exit is not None or (code := reap(worker.process)) is None:
            return
        worker.exit = exit_of(code, last_words(worker.log_file))
        # The others cannot go on without it. They are patient with one that ended as it should: they are about to.
        self._end_within(self.checkpoint_grace_s if worker.exit.kind in ("done", "preempted") else self.peer_grace_s)
        first = self._workers[self._first_exit].exit if self._first_exit is not None else None
        if first is None or (_innocent(first) and not _innocent(worker.exit)):
            self._first_exit = self._workers.index(worker)
        row = {"event": "exited", "pid": worker.process.pid, "exit_kind": worker.exit.kind}
        row |= {"exit_signal": worker.exit.signal, "exit_code": worker.exit.code, "message": worker.exit.message}
        self._emit(worker.spec, row)

    def _kill_all(self) -> None:
        for worker in self._workers:
            if worker.exit is None:
                signal_group(worker.process.pid, signal.SIGKILL)
        for worker in self._workers:
            worker.process.wait()
            self._reap(worker)

    def _report(self, stored: Stored) -> bool:
        """Write what is; False when the placement changed meanwhile."""
        members = tuple(
            MemberStatus(
                rank=worker.spec.rank,
                phase="running" if worker.exit is None else "ended",
                pid=worker.process.pid,
                started_ns=worker.started_ns,
                exit=worker.exit,
            )
            for worker in self._workers
        )
        first = self._workers[self._first_exit].spec.rank if self._first_exit is not None else None
        status = PlacementStatus(
            generation=self._generation,
            agent_pid=os.getpid(),
            members=members,
            first_exit_rank=first,
            message=self._message,
        )
        if status == self._reported:
            return True
        try:
            self._state.report(
                PLACEMENT, self.namespace, self.job, status.model_dump(mode="json"), expect=stored.version
            )
        except Conflict:
            log.info("the placement changed meanwhile; reporting on the new one next")
            return False
        self._reported = status
        return True

    def _emit(self, spec: WorkerSpec, row: dict[str, object]) -> None:
        if self._emitter is None:
            host = os.uname().nodename
            context = Context(host, self.namespace, spec.job_uid, spec.attempt, program="agent")
            self._emitter = Emitter(self.home.spool_dir, context)
        self._emitter.emit("workers", row, generation=spec.generation, rank=spec.rank)


# A worker gets its spec's environment and these only: no token of the person's shell travels with a job.
_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
    "PHALANX_C_CACHE", "XDG_CACHE_HOME", "PHALANX_TRANSPORT",
)  # fmt: skip


def build_for_ranks() -> None:
    """Compile what the ranks will load, so that they do not wait for one another's compiler.

    Its room loads torch, which the agent must not: the file that knows how is run alone. Without a compiler the
    ranks go on over gloo and say so.
    """
    try:
        runpy.run_path(str(_LIBRARY))["build_library"]()
    except BuildError as error:
        log.warning("%s", error)


_LIBRARY = Path(phalanx.__file__).parent / "collectives" / "transports" / "library.py"


def _innocent(exit_: WorkerExit | None) -> bool:
    """Ended well, or only because somebody else ended."""
    return exit_ is not None and exit_.kind in ("done", "peer_lost")


def exit_of(code: int, message: str) -> WorkerExit:
    """What a return code as `Popen` gives it means; `message`: the worker's last words."""
    kind = next((kind for kind, exit_code in EXIT_CODES.items() if exit_code == code), None)
    if kind is not None:
        return WorkerExit(kind=kind, code=code, message=message)
    if code < 0:
        said = f"killed by {signal_name(-code)}"
        # Who is killed from outside had no time to say why; what a program that breaks says last is the reason.
        outside = -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        return WorkerExit(
            kind="crashed", signal=-code, message=said if outside or not message else f"{said}: {message}"
        )
    return WorkerExit(kind="crashed", code=code, message=message or f"exit code {code}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="phalanx.daemons.agent")
    parser.add_argument("--home", required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--controller-timeout", type=float, default=CONTROLLER_TIMEOUT_S, help="seconds")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent = Agent(Home.find(options.home), options.namespace, options.job, options.name, options.controller_timeout)

    def request_stop(signal_number: int, frame: object) -> None:
        agent.stop_requested = True

    signal.signal(signal.SIGTERM, request_stop)
    try:
        agent.run()
    except PhalanxError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
