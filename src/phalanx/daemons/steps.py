"""The steps of a job, each done or begun once it has been decided: gates, plan, placement, agent, scores, report.

Planning and evaluation load torch and are children that die with this process. The agent is started here
and outlives it. Knows nothing of what comes next.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.admission import gate_1, gate_2
from phalanx.cluster import Action, place, worker_specs, write_placement
from phalanx.cluster.lifecycle import ActionName, StepResult
from phalanx.daemons.hold import Hold
from phalanx.daemons.run_dir import RunDir
from phalanx.daemons.words import last_words, signal_name
from phalanx.events import Emitter
from phalanx.foundation import PhalanxError, writing
from phalanx.host import facts_of_host
from phalanx.host.processes import signal_group, start, terminate
from phalanx.job import Decision, Job
from phalanx.pages import write_report
from phalanx.state import SqliteState
from phalanx.telemetry import Reader

AGENT_START_S = 30.0
AGENT_TRIES = 3
CHILD_GRACE_S = 2.0

_MODULES: dict[ActionName, str] = {"plan": "phalanx.planning", "evaluate": "phalanx.evaluation"}


@dataclass
class _Child:
    """A step that runs as a process of its own."""

    step: ActionName
    process: subprocess.Popen[bytes]
    log_file: Path


@dataclass
class Steps:
    """`agent`: the name of the agent that carries the job's workers. `failures`: what went wrong, by step."""

    hold: Hold
    files: RunDir
    agent: str
    emitter: Emitter
    flush_events: Callable[[], None]
    controller_timeout_s: float
    failures: dict[str, str] = field(default_factory=dict)
    _child: _Child | None = None
    _agent: subprocess.Popen[bytes] | None = None
    _agent_began: float = 0.0
    _agent_tries: int = 0

    def is_busy_with(self, step: ActionName) -> bool:
        """Whether a child does that step; one that does another step is ended, for it is no longer wanted."""
        if self._child is None:
            return False
        if self._child.step != step:
            self.end_child()
            return False
        return True

    def reap(self) -> None:
        """Take note of a child that ended."""
        if self._child is None or (code := self._child.process.poll()) is None:
            return
        child, self._child = self._child, None
        if code != 0:
            self.failures[child.step] = failure_words(child.log_file, code)

    def end_child(self) -> None:
        if self._child is not None:
            terminate(self._child.process, CHILD_GRACE_S)
            self._child = None

    def result(self, step: ActionName) -> StepResult:
        """Of a step that has left nothing to be seen."""
        return "failed" if step in self.failures else "missing"

    def do(self, job: Job, action: Action) -> None:
        """Raises PhalanxError when the step cannot be done, or not begun."""
        match action.name:
            case "admit":
                self._decided(1, gate_1(job))
            case "check_host":
                self._check_host(job)
            case "plan" | "evaluate":
                self.files.write_job(job)
                self._begin(action.name)
            case "start_agent":
                self._start_agent()
            case "report":
                self.flush_events()
                write_report(job, self.files.path, Reader(self.hold.home.store_dir).rows, self.files.report)

    def place(self, state: SqliteState, job: Job, action: Action, expect: int) -> None:
        """Write where the workers of a new generation go. `expect`: version of the placement read. Raises Conflict."""
        plan = self.files.plan()
        assert plan is not None
        placement = place(job, plan, action.generation, self.agent)
        workers = worker_specs(job, plan, placement, self.files.path, self.hold.home.spool_dir, action.fallback)
        write_placement(state, self.hold.key, placement, workers, self.files.path, expect=expect)
        self._agent_tries = 0

    def agent_is_starting(self) -> bool:
        """Whether the agent begun here lives and may still take its lease."""
        young = time.monotonic() - self._agent_began < AGENT_START_S
        return self._agent is not None and self._agent.poll() is None and young

    def _decided(self, gate: int, decision: Decision) -> None:
        for finding in decision.findings:
            row = finding.model_dump(include={"rule", "severity", "subject", "location", "evidence", "remedy"})
            row |= {"finding_id": finding.id, "gate": gate, "verdict": decision.verdict}
            self.emitter.emit("findings", row)
        self.files.write_decision(gate, decision)

    def _check_host(self, job: Job) -> None:
        plan = self.files.plan()
        assert plan is not None
        facts = facts_of_host(self.files.path)
        for fact in facts.facts:
            self.emitter.emit("host_facts", {"fact": fact.name, "value": fact.value, "evidence": fact.evidence})
        self._decided(2, gate_2(job, plan, facts))

    def _start_agent(self) -> None:
        """Begin a process that outlives this one. One that ended or hangs without its lease is tried again, twice."""
        log_file = self.files.log("agent")
        if self._agent is not None and self._agent.poll() is None:
            signal_group(self._agent.pid, signal.SIGKILL)
            self._agent.wait()
        if self._agent_tries == AGENT_TRIES:
            raise PhalanxError(f"the agent did not start: {last_words(log_file)}", where=str(log_file))
        self._agent_tries += 1
        argv = [sys.executable, "-m", "phalanx.daemons.agent", "--home", str(self.hold.home.root)]
        argv += ["--namespace", self.hold.key[0], "--job", self.hold.key[1], "--name", self.agent]
        argv += ["--controller-timeout", str(self.controller_timeout_s)]
        self._agent = start(argv, env=os.environ, output=log_file, die_with_parent=False)
        self._agent_began = time.monotonic()

    def _begin(self, step: ActionName) -> None:
        log_file = self.files.log(step)
        with writing(log_file):
            log_file.unlink(missing_ok=True)  # its last line is to be this child's
        argv = [sys.executable, "-m", _MODULES[step], "--run-dir", str(self.files.path)]
        argv += ["--spool", str(self.hold.home.spool_dir)]
        self._child = _Child(step, start(argv, env=os.environ, output=log_file), log_file)


def failure_words(log_file: Path, code: int) -> str:
    """What a child said at its end: its JSON error line, else its last words."""
    words = last_words(log_file)
    if code < 0:
        return f"killed by {signal_name(-code)}" + (f", after: {words}" if words else "") + f" (log: {log_file})"
    try:
        document = json.loads(words)
        message, remedy, where = document["message"], document.get("remedy"), document.get("where")
    except (ValueError, KeyError, TypeError):
        return f"{words or f'exit code {code}'} (log: {log_file})"
    said = f"{where}: {message}" if where else str(message)
    return f"{said} (to do: {remedy})" if remedy else said
