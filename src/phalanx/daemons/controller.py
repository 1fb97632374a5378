"""The controller of one job: observe, decide, act, until what is desired is so.

Everything it needs to go on lies in state and in the run directory, written whole, so that it may be
killed anywhere and started again. It draws nothing: a `Listener` hears of changes. Planning and
evaluation load torch and are children; workers belong to the agent and outlive it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from phalanx.admission import gate_1, gate_2
from phalanx.cluster import (
    Action,
    Key,
    Observed,
    StoredJob,
    controller_lease,
    decide,
    place,
    read_job,
    read_placement,
    report_status,
    stop_placement,
    worker_specs,
    write_placement,
)
from phalanx.daemons.agent import CONTROLLER_TIMEOUT_S
from phalanx.daemons.words import last_words
from phalanx.events import Context, Emitter
from phalanx.foundation import Home, PhalanxError, ensure_private_directory, write_atomic
from phalanx.host import facts_of_host
from phalanx.host.processes import is_alive, own_identity, start, terminate
from phalanx.job import Decision, Job, JobStatus, Plan
from phalanx.pages import write_report
from phalanx.state import Conflict, SqliteState

LEASE_S = 15.0
TICK_S = 0.1
AGENT_START_S = 30.0

log = logging.getLogger(__name__)


class ControllerBusy(PhalanxError):
    """Another process controls the job."""


class Listener(Protocol):
    """Who wants to know how it goes: the terminal of `phalanx run`, a test."""

    def changed(self, job: Job) -> None:
        """The status of the job is another one now."""

    def acting(self, action: Action) -> None:
        """The controller begins something that takes a while."""

    def tick(self, job: Job) -> None:
        """Called about ten times a second."""


@dataclass
class _Child:
    """A step that runs as a process of its own."""

    step: str
    process: subprocess.Popen[bytes]
    errors: Path
    began: float


@dataclass
class Controller:
    """Controls one job. `run` returns its final form. `flush_events` makes emitted rows readable in the store."""

    home: Home
    key: Key
    listener: Listener
    flush_events: Callable[[], None] = lambda: None
    controller_timeout_s: float = CONTROLLER_TIMEOUT_S
    _failures: dict[str, str] = field(default_factory=dict)
    _child: _Child | None = None
    _agent: subprocess.Popen[bytes] | None = None
    _agent_began: float = 0.0

    def run(self) -> Job:
        """Raises ControllerBusy when another process controls the job, StateError and StorageError."""
        self._state = SqliteState(self.home.state_db, is_alive=is_alive)
        self._identity = own_identity()
        if self._state.lease(controller_lease(self.key), self._identity, LEASE_S) is None:
            raise ControllerBusy(f"job {'/'.join(self.key)} is controlled by another process already")
        job = read_job(self._state, *self.key).job
        self._run_dir = ensure_private_directory(self.home.run_dir(*self.key, job.status.attempt))
        ensure_private_directory(self._run_dir / "logs")
        context = Context(os.uname().nodename, self.key[0], job.metadata.uid, job.status.attempt, program="controller")
        self._emitter = Emitter(self.home.spool_dir, context)
        leased = time.monotonic()
        try:
            while True:
                if time.monotonic() - leased > LEASE_S / 5:
                    self._state.lease(controller_lease(self.key), self._identity, LEASE_S)
                    leased = time.monotonic()
                stored = read_job(self._state, *self.key)
                status, action = decide(self._observe(stored), time.time_ns())
                if status != stored.job.status and not self._write(stored, status):
                    continue
                job = stored.job.model_copy(update={"status": status})
                if action.name == "finish":
                    return job
                self._act(job, action)
                self.listener.tick(job)
                time.sleep(TICK_S)
        finally:
            if self._child is not None:
                terminate(self._child.process, 2.0)
            self._emitter.close()
            self._state.release(controller_lease(self.key), self._identity)

    def _observe(self, stored: StoredJob) -> Observed:
        self._reap()
        placement = read_placement(self._state, self.key)
        if placement is not None and placement.placement.attempt != stored.job.status.attempt:
            placement = None
        report = stored.job.status.report
        return Observed(
            job=stored.job,
            gate_1=self._read_decision(1),
            plan=self._read_plan(),
            gate_2=self._read_decision(2),
            placement=placement.placement if placement else None,
            placement_stopping=placement.stopping if placement else False,
            placement_status=placement.status if placement else None,
            agent_alive=self._state.holder(f"agent/{self._agent_name(stored.job)}") is not None,
            evaluation="done" if self._file("evaluation.json").exists() else self._result("evaluate"),
            report="done" if report and Path(report).exists() else self._result("report"),
            failures=tuple(self._failures.items()),
        )

    def _act(self, job: Job, action: Action) -> None:
        """Do or begin one step. Each may be repeated."""
        if self._child is not None:
            if self._child.step != action.name:  # a stop came while a child was at work
                terminate(self._child.process, 2.0)
                self._child = None
            return
        if action.name != "wait":
            self.listener.acting(action)
        try:
            match action.name:
                case "admit":
                    self._decided(1, gate_1(job))
                case "plan":
                    write_atomic(self._file("job.json"), job.model_dump_json(by_alias=True, indent=1))
                    self._begin("plan", "phalanx.planning", "--spool", str(self.home.spool_dir))
                case "check_host":
                    self._check_host(job)
                case "place":
                    self._place(job, action)
                case "start_agent":
                    self._start_agent(job)
                case "stop_workers":
                    stop_placement(self._state, self.key)
                case "evaluate":
                    self._begin("evaluate", "phalanx.evaluation", "--spool", str(self.home.spool_dir))
                case "report":
                    self._report(job)
                case "wait" | "finish":
                    pass
        except PhalanxError as error:
            self._failures[action.name] = str(error)
            log.warning("%s: %s", action.name, error)

    def _decided(self, gate: int, decision: Decision) -> None:
        for finding in decision.findings:
            row = finding.model_dump(include={"rule", "severity", "subject", "location", "evidence", "remedy"})
            row |= {"finding_id": finding.id, "gate": gate, "verdict": decision.verdict}
            self._emitter.emit("findings", row)
        write_atomic(self._file(f"decision-{gate}.json"), decision.model_dump_json(by_alias=True, indent=1))

    def _check_host(self, job: Job) -> None:
        plan = self._read_plan()
        assert plan is not None
        facts = facts_of_host(self._run_dir)
        for fact in facts.facts:
            self._emitter.emit("host_facts", {"fact": fact.name, "value": fact.value, "evidence": fact.evidence})
        self._decided(2, gate_2(job, plan, facts))

    def _place(self, job: Job, action: Action) -> None:
        plan = self._read_plan()
        assert plan is not None
        placement = place(job, plan, action.generation, self._agent_name(job))
        workers = worker_specs(job, plan, placement, self._run_dir, self.home.spool_dir, action.fallback)
        write_placement(self._state, self.key, placement, workers, self._run_dir)

    def _start_agent(self, job: Job) -> None:
        """Start the agent, once, and give it time to take its lease. It is nobody's child that matters."""
        if self._agent is not None and time.monotonic() - self._agent_began < AGENT_START_S:
            if self._agent.poll() in (None, 0):
                return
            words = last_words(self._run_dir / "logs" / "agent.log")
            raise PhalanxError(f"the agent did not start: {words}", where=str(self._run_dir / "logs" / "agent.log"))
        argv = [sys.executable, "-m", "phalanx.daemons.agent", "--home", str(self.home.root)]
        argv += ["--namespace", self.key[0], "--job", self.key[1], "--name", self._agent_name(job)]
        argv += ["--controller-timeout", str(self.controller_timeout_s)]
        log_file = self._run_dir / "logs" / "agent.log"
        self._agent = start(argv, env=os.environ, output=log_file, die_with_parent=False)
        self._agent_began = time.monotonic()

    def _report(self, job: Job) -> None:
        self.flush_events()
        path = write_report(self.home, job, self._run_dir)
        stored = read_job(self._state, *self.key)
        self._write(stored, stored.job.status.model_copy(update={"report": str(path)}))

    def _begin(self, step: str, module: str, *arguments: str) -> None:
        argv = [sys.executable, "-m", module, "--run-dir", str(self._run_dir), *arguments]
        errors = self._run_dir / "logs" / f"{step}.log"
        self._child = _Child(step, start(argv, env=os.environ, output=errors), errors, time.monotonic())

    def _reap(self) -> None:
        """Take note of a child that ended."""
        if self._child is None or (code := self._child.process.poll()) is None:
            return
        child, self._child = self._child, None
        if code != 0:
            self._failures[child.step] = _failure_words(child.errors, code)

    def _result(self, step: str) -> str:
        return "failed" if step in self._failures else "missing"

    def _write(self, stored: StoredJob, status: JobStatus) -> bool:
        """Write a status and say it; False when the job changed meanwhile."""
        try:
            report_status(self._state, stored, status)
        except Conflict:
            return False
        before = {condition.type: condition for condition in stored.job.status.conditions}
        rows = [c for c in status.conditions if before.get(c.type) != c]
        name = stored.job.metadata.name
        for c in rows:
            row = {"condition": c.type, "status": c.status, "reason": c.reason, "message": c.message}
            self._emitter.emit("states", {"kind": "TrainingJob", "name": name, "phase": status.phase, **row})
        if not rows and status.phase != stored.job.status.phase:
            self._emitter.emit("states", {"kind": "TrainingJob", "name": name, "phase": status.phase})
        self.listener.changed(stored.job.model_copy(update={"status": status}))
        return True

    def _agent_name(self, job: Job) -> str:
        return f"{os.uname().nodename}-{job.metadata.uid[:8]}-{job.status.attempt}"

    def _file(self, name: str) -> Path:
        return self._run_dir / name

    def _read_plan(self) -> Plan | None:
        path = self._file("plan.json")
        return Plan.model_validate_json(path.read_bytes()) if path.exists() else None

    def _read_decision(self, gate: int) -> Decision | None:
        path = self._file(f"decision-{gate}.json")
        return Decision.model_validate_json(path.read_bytes()) if path.exists() else None


def _failure_words(log_file: Path, code: int) -> str:
    """What a child said at its end: its JSON error line, else its last words."""
    words = last_words(log_file)
    try:
        document = json.loads(words)
        message, remedy = document["message"], document.get("remedy", "")
    except (ValueError, KeyError, TypeError):
        return f"{words or f'exit code {code}'} (log: {log_file})"
    return f"{message} (to do: {remedy})" if remedy else str(message)
