"""The controller of one job: observe, decide, act, until what is desired is so.

Everything it needs to go on lies in state and in the run directory, written whole, so that it may be
killed anywhere and started again. It draws nothing: a `Listener` hears of changes. How each step is done
is `daemons.steps`'s; what is next is decided by `cluster.decide`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from phalanx.cluster import (
    Action,
    JobNotFound,
    Observed,
    StoredJob,
    decide,
    read_job,
    read_placement,
    report_status,
    set_suspend,
    stop_placement,
)
from phalanx.daemons.agent import CONTROLLER_TIMEOUT_S, agent_lease
from phalanx.daemons.hold import ControlLost, Hold, open_state
from phalanx.daemons.run_dir import RunDir
from phalanx.daemons.steps import Steps
from phalanx.events import Context, Emitter
from phalanx.foundation import PhalanxError
from phalanx.job import Job, JobStatus
from phalanx.state import Conflict, SqliteState

TICK_S = 0.1

log = logging.getLogger(__name__)


class JobGone(PhalanxError):
    """The job was deleted, or made anew, while it was being controlled."""


class Listener(Protocol):
    """Who wants to know how it goes: the terminal of `phalanx run`, a test."""

    def changed(self, job: Job) -> None:
        """The status of the job is another one now."""

    def acting(self, action: Action) -> None:
        """The controller begins something that takes a while."""

    def stopping(self) -> None:
        """An interrupt asked for a stop, and it is on its way."""

    def tick(self, job: Job) -> None:
        """Called about ten times a second."""


@dataclass
class Controller:
    """Controls the job of `hold`; `run` returns its final form.

    `flush_events` makes the rows that were emitted readable in the store.
    `stop_requested` may be set at any time, by a signal handler too.
    """

    hold: Hold
    listener: Listener
    flush_events: Callable[[], None] = lambda: None
    controller_timeout_s: float = CONTROLLER_TIMEOUT_S
    stop_requested: bool = False
    _stop_said: bool = field(default=False, init=False)

    def run(self) -> Job:
        """Raises JobNotFound, JobGone, ControlLost, StateError and StorageError; workers end by themselves then."""
        with contextlib.ExitStack() as stack:
            self._state = open_state(self.hold.home)
            stack.callback(self._state.close)
            job = read_job(self._state, *self.hold.key).job
            attempt = self._attempt = (job.metadata.uid, job.status.attempt)
            files = RunDir.open(self.hold.home.run_dir(*self.hold.key, job.status.attempt))
            files.forget_refusals()
            host = os.uname().nodename
            context = Context(host, self.hold.key[0], *attempt, program="controller")
            self._emitter = Emitter(self.hold.home.spool_dir, context)
            stack.callback(self._emitter.close)
            agent = f"{host}-{job.metadata.uid}-{job.status.attempt}"
            self._steps = Steps(self.hold, files, agent, self._emitter, self.flush_events, self.controller_timeout_s)
            stack.callback(self._steps.end_child)
            try:
                return self._loop()
            except (ControlLost, JobGone):
                raise
            except PhalanxError:  # state or disk fail: do not let the workers wait a minute to find out
                end_agent(self._state, agent)
                raise

    def _loop(self) -> Job:
        self.listener.changed(self._read().job)  # who begins to listen hears how things stand
        while True:
            self.hold.check(self._state)
            if self.stop_requested and not self._stop_said:
                self._stop_said = True
                self.listener.stopping()
                set_suspend(self._state, self.hold.key, True)
                stop_placement(self._state, self.hold.key)  # at once: whoever is impatient may end this process next
            stored = self._read()
            status, action = decide(self._observe(stored), time.time_ns())
            status = status.model_copy(update={"run_dir": str(self._steps.files.path)})
            if status != stored.job.status and not self._write(stored, status):
                continue
            job = stored.job.model_copy(update={"status": status})
            if action.name == "finish":
                return job
            self._act(job, action)
            self.listener.tick(job)
            time.sleep(TICK_S)

    def _read(self) -> StoredJob:
        key = "/".join(self.hold.key)
        try:
            stored = read_job(self._state, *self.hold.key)
        except JobNotFound:
            raise JobGone(f"job {key} was deleted while it was under way") from None
        if (stored.job.metadata.uid, stored.job.status.attempt) != self._attempt:
            raise JobGone(f"job {key} was replaced by another one of its name while it was under way")
        return stored

    def _observe(self, stored: StoredJob) -> Observed:
        steps, files = self._steps, self._steps.files
        steps.reap()
        placement = read_placement(self._state, self.hold.key)
        self._placement_version = placement.version if placement else 0
        if placement is not None and (placement.placement.job_uid, placement.placement.attempt) != self._attempt:
            placement = None
        report = stored.job.status.report
        return Observed(
            job=stored.job,
            gate_1=files.decision(1),
            plan=files.plan(),
            gate_2=files.decision(2),
            placement=placement.placement if placement else None,
            placement_stopping=placement.stopping if placement else False,
            placement_status=placement.status if placement else None,
            agent_alive=self._state.holder(agent_lease(steps.agent)) is not None or steps.agent_is_starting(),
            evaluation="done" if files.is_evaluated() else steps.result("evaluate"),
            report="done" if report and Path(report).exists() else steps.result("report"),
            failures=tuple(steps.failures.items()),
        )

    def _act(self, job: Job, action: Action) -> None:
        """Do or begin one step. Each may be repeated."""
        if self._steps.is_busy_with(action.name):
            return
        if action.name != "wait":
            self.listener.acting(action)
        try:
            if action.name == "stop_workers":
                stop_placement(self._state, self.hold.key)
            elif action.name == "place":
                self._steps.place(self._state, job, action, self._placement_version)
            else:
                self._steps.do(job, action)
        except Conflict:
            log.info("the placement changed meanwhile; looking again")
        except PhalanxError as error:
            if action.name == "stop_workers":  # nothing else is left to try
                raise
            self._steps.failures[action.name] = str(error)
            log.warning("%s: %s", action.name, error)
            return
        if action.name == "report":
            stored = self._read()
            self._write(stored, stored.job.status.model_copy(update={"report": str(self._steps.files.report)}))

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


def end_agent(state: SqliteState, agent: str) -> None:
    """Ask an agent to have its workers checkpoint and to end; nothing when there is none."""
    with contextlib.suppress(PhalanxError, ProcessLookupError):
        held = state.holder(agent_lease(agent))
        if held is not None:
            os.kill(int(held.holder.partition("@")[0]), signal.SIGTERM)
