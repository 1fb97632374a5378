"""The life of a job as a pure function: from what is observed to the next status and the next action.

Level-triggered: `decide` looks at what is, never at what happened, and asks for one idempotent
action at a time. A controller that dies anywhere and starts again observes the same and goes on
where the work stands. Knows no processes, files or clocks; `daemons.controller` observes and acts.

    Pending -> Admitted -> Planned -> Placed -> Running -> Evaluating -> Succeeded
       \\__________\\___________\\_________\\__________\\___________\\____-> Failed | Stopped
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from phalanx.foundation import size_in_words
from phalanx.job import (
    FINAL_PHASES,
    Condition,
    Decision,
    Job,
    JobStatus,
    MemberStatus,
    Placement,
    PlacementStatus,
    Plan,
    WorkerExit,
)
from phalanx.job.spec import Phase

ActionName = Literal[
    "admit", "plan", "check_host", "place", "start_agent", "stop_workers", "evaluate", "report", "wait", "finish"
]
StepResult = Literal["missing", "done", "failed"]
PHASES: tuple[Phase, ...] = get_args(Phase)
_PHASE_OF: Mapping[str, Phase] = {"Admitted": "Admitted", "Planned": "Planned"}


@dataclass(frozen=True)
class Observed:
    """What is, all at one moment.

    `failures` has the messages of steps that ended badly (plan, evaluate, report), by step.
    `agent_alive` is whether the process that owns the placement's workers exists.
    """

    job: Job
    gate_1: Decision | None = None
    plan: Plan | None = None
    gate_2: Decision | None = None
    placement: Placement | None = None
    placement_stopping: bool = False
    placement_status: PlacementStatus | None = None
    agent_alive: bool = False
    evaluation: StepResult = "missing"
    report: StepResult = "missing"
    failures: tuple[tuple[str, str], ...] = ()

    def failure(self, step: str) -> str | None:
        return dict(self.failures).get(step)


@dataclass(frozen=True)
class Action:
    """What to do next; `generation` and `fallback` (of the plan; -1: the plan itself) are for `place`."""

    name: ActionName
    generation: int = 0
    fallback: int = -1
    why: str = ""


def decide(seen: Observed, now_ns: int) -> tuple[JobStatus, Action]:
    """The status that describes `seen`, and the one action that brings the job nearer to what is desired."""
    status = seen.job.status
    if status.phase in FINAL_PHASES:
        return _closing(seen, status, now_ns)
    if seen.job.spec.suspend:
        return _suspended(seen, status, now_ns)
    if seen.gate_1 is None:
        return _or_failed(seen, status, "admit", "Admitted", "GateFailed", now_ns)
    if seen.gate_1.verdict != "allow":
        return _failed(seen, status, "Admitted", "Gate1Blocked", _obstacles(seen.gate_1), now_ns)
    status = _reached(status, "Admitted", "Gate1Allowed", "data, model and demands are in order", now_ns)
    if seen.plan is None:
        return _or_failed(seen, status, "plan", "Planned", "NoPlan", now_ns)
    status = _reached(status, "Planned", "PlanWritten", _words(seen.plan), now_ns)
    if seen.gate_2 is None:
        return _or_failed(seen, status, "check_host", "HostReady", "GateFailed", now_ns)
    if seen.gate_2.verdict != "allow":
        return _failed(seen, status, "HostReady", "Gate2Blocked", _obstacles(seen.gate_2), now_ns)
    status = _reached(status, "HostReady", "Gate2Allowed", "the host has what the plan needs", now_ns)
    if seen.evaluation != "missing" or status.phase == "Evaluating":
        return _evaluating(seen, status, now_ns)
    return _running(seen, status, now_ns)


def _running(seen: Observed, status: JobStatus, now_ns: int) -> tuple[JobStatus, Action]:
    """Workers are wanted: see that one generation of them runs, and judge its end."""
    if seen.placement is None or seen.placement.generation < status.generation:
        generation = max(status.generation, 1)
        if (failure := seen.failure("place")) is not None:
            return _failed(seen, status, "Running", "NotPlaced", failure, now_ns)
        status = _phase(status, "Placed").model_copy(update={"generation": generation})
        return status, Action("place", generation, status.fallback)
    status = status.model_copy(update={"generation": seen.placement.generation})
    members = _members(seen)
    over = bool(members) and all(member.phase == "ended" for member in members)
    if over:
        return _ended(seen, status, members, now_ns)
    if not seen.agent_alive:
        if not members:
            return _or_failed(seen, status, "start_agent", "Running", "AgentNotStarted", now_ns)
        return _restart(seen, status, "AgentLost", "the agent of the host died, and its workers with it", now_ns)
    if members and all(member.phase == "running" for member in members):
        status = _reached(_phase(status, "Running"), "Running", "WorkersRunning", f"{len(members)} running", now_ns)
    return status, Action("wait")


def _ended(
    seen: Observed, status: JobStatus, members: tuple[MemberStatus, ...], now_ns: int
) -> tuple[JobStatus, Action]:
    exits = [member.exit or WorkerExit(kind="crashed") for member in members]
    if all(exit_.kind == "done" for exit_ in exits):
        status = _reached(_phase(status, "Evaluating"), "Trained", "AllWorkersDone", "all steps done", now_ns)
        return _false(status, "Running", "AllWorkersDone", "", now_ns), Action("evaluate")
    rank, cause = _cause(seen, members)
    message = f"rank {rank}: {cause.message or cause.kind}"
    if cause.kind == "bad_input":
        return _failed(seen, status, "Running", "BadInput", message, now_ns)
    if cause.kind == "out_of_memory":
        assert seen.plan is not None
        if status.fallback + 1 >= len(seen.plan.fallbacks):
            return _failed(seen, status, "Running", "OutOfMemory", f"{message}; no smaller plan is left", now_ns)
        status = status.model_copy(update={"fallback": status.fallback + 1})
        return _restart(seen, status, "OutOfMemory", message, now_ns)
    return _restart(seen, status, _reason(cause), message, now_ns)


def _restart(seen: Observed, status: JobStatus, reason: str, message: str, now_ns: int) -> tuple[JobStatus, Action]:
    """A new generation from the last checkpoint, if the job allows one more. A preemption is nobody's fault."""
    allowed = seen.job.spec.workers.max_restarts
    restarts = status.restarts + (reason != "Preempted")
    if restarts > allowed:
        return _failed(seen, status, "Running", reason, f"{message}; {allowed} restarts are used up", now_ns)
    status = _false(status, "Running", reason, message, now_ns)
    update = {"generation": status.generation + 1, "restarts": restarts}
    status = _phase(status, "Placed").model_copy(update=update)
    return status, Action("place", status.generation, status.fallback, why=message)


def _suspended(seen: Observed, status: JobStatus, now_ns: int) -> tuple[JobStatus, Action]:
    """A stop is wanted: workers checkpoint and end; then the job is Stopped."""
    if (ending := _ending(seen, status)) is not None:
        return status, ending
    status = _false(status, "Running", "Suspended", "stopped as asked", now_ns)
    return _closing(seen, _phase(status, "Stopped"), now_ns)


def _ending(seen: Observed, status: JobStatus) -> Action | None:
    """What still has to be done to end the workers; None: they have ended.

    The wish comes first, whether or not an agent is seen: one that is still starting must find it.
    """
    if seen.placement is not None and not seen.placement_stopping:
        return Action("stop_workers", status.generation)
    return Action("wait") if seen.agent_alive else None


def _evaluating(seen: Observed, status: JobStatus, now_ns: int) -> tuple[JobStatus, Action]:
    status = _phase(status, "Evaluating")
    if seen.evaluation == "missing":
        return status, Action("evaluate")
    if seen.evaluation == "failed":
        message = seen.failure("evaluate") or "evaluation failed"
        return _failed(seen, status, "Evaluated", "EvaluationFailed", message, now_ns)
    status = _reached(status, "Evaluated", "ScoresWritten", "", now_ns)
    return _closing(seen, _phase(status, "Succeeded"), now_ns)


def _closing(seen: Observed, status: JobStatus, now_ns: int) -> tuple[JobStatus, Action]:
    """A final phase still sees its workers end and writes its report."""
    if (ending := _ending(seen, status)) is not None:
        return status, ending
    match seen.report:
        case "missing":
            return status, Action("report")
        case "failed":
            message = seen.failure("report") or "the report could not be written"
            return _false(status, "Reported", "ReportFailed", message, now_ns), Action("finish")
        case "done":
            return _reached(status, "Reported", "ReportWritten", status.report, now_ns), Action("finish")
        case _:
            assert_never(seen.report)


def _members(seen: Observed) -> tuple[MemberStatus, ...]:
    """Reports that belong to the placement as it is desired now; an older generation's say nothing about it."""
    reported = seen.placement_status
    if seen.placement is None or reported is None or reported.generation != seen.placement.generation:
        return ()
    return reported.members


def _cause(seen: Observed, members: tuple[MemberStatus, ...]) -> tuple[int, WorkerExit]:
    """The end that explains the others: the first that was not `done`, `peer_lost` being only a consequence."""
    first = seen.placement_status.first_exit_rank if seen.placement_status is not None else None
    bad = [m for m in members if m.exit is None or m.exit.kind != "done"]
    own = [m for m in bad if m.exit is None or m.exit.kind != "peer_lost"]
    candidates = own or bad
    chosen = next((m for m in candidates if m.rank == first), candidates[0])
    return chosen.rank, chosen.exit or WorkerExit(kind="crashed")


def _reason(cause: WorkerExit) -> str:
    return {"peer_lost": "PeerLost", "preempted": "Preempted", "crashed": "WorkerCrashed"}.get(
        cause.kind, "WorkerEnded"
    )


def _obstacles(decision: Decision) -> str:
    grave = [f for f in decision.findings if f.severity in ("high", "critical")] or decision.findings
    return "; ".join(f"{f.subject}: {f.evidence} (to do: {f.remedy})" for f in grave) or "held back"


def _words(plan: Plan) -> str:
    return (
        f"{plan.mesh.size} workers, micro-batch {plan.micro_batch} x {plan.accumulation}, {plan.precision}, "
        f"{size_in_words(plan.predicted.memory.total)} each"
    )


def _phase(status: JobStatus, phase: Phase) -> JobStatus:
    return status if status.phase == phase else status.model_copy(update={"phase": phase})


def _set(status: JobStatus, condition: Condition) -> JobStatus:
    """`status` with `condition`; its time changes only when what it says changes."""
    before = status.condition(condition.type)
    if before is not None and before.model_copy(update={"time_ns": condition.time_ns}) == condition:
        return status
    if before is not None and before.status == condition.status:
        condition = condition.model_copy(update={"time_ns": before.time_ns})
    others = tuple(c for c in status.conditions if c.type != condition.type)
    return status.model_copy(update={"conditions": (*others, condition)})


def _reached(status: JobStatus, type_: str, reason: str, message: str, now_ns: int) -> JobStatus:
    """`type_` is True; a phase of that name is entered from an earlier one."""
    phase = _PHASE_OF.get(type_)
    if phase is not None and PHASES.index(status.phase) < PHASES.index(phase):
        status = _phase(status, phase)
    return _set(status, Condition(type=type_, status="True", reason=reason, message=message, time_ns=now_ns))


def _false(status: JobStatus, type_: str, reason: str, message: str, now_ns: int) -> JobStatus:
    return _set(status, Condition(type=type_, status="False", reason=reason, message=message, time_ns=now_ns))


def _or_failed(
    seen: Observed, status: JobStatus, action: ActionName, type_: str, reason: str, now_ns: int
) -> tuple[JobStatus, Action]:
    """`action`, unless it was tried and failed."""
    failure = seen.failure(action)
    return (status, Action(action)) if failure is None else _failed(seen, status, type_, reason, failure, now_ns)


def _failed(
    seen: Observed, status: JobStatus, type_: str, reason: str, message: str, now_ns: int
) -> tuple[JobStatus, Action]:
    status = _false(status, type_, reason, message, now_ns)
    return _closing(seen, _phase(status, "Failed"), now_ns)
