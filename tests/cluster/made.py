"""Jobs, plans and reports of workers, as small as they may be."""

from __future__ import annotations

from typing import Any

from phalanx.cluster import Observed
from phalanx.job import (
    Coverage,
    Decision,
    Finding,
    Job,
    JobStatus,
    Member,
    MemberStatus,
    MeshSpec,
    Placement,
    PlacementStatus,
    Plan,
    WorkerExit,
)
from phalanx.job.plan import MemoryPrediction, Predicted

UID = "0123456789abcdef"


def make_job(
    name: str = "small", *, workers: int = 2, most_restarts: int = 2, suspend: bool = False, **status: Any
) -> Job:
    return Job.model_validate(
        {
            "metadata": {"name": name, "namespace": "tests", "uid": UID if name == "small" else f"uid-of-{name}"},
            "spec": {
                "model": {"name": "gpt-tiny", "objective": "causal-lm"},
                "data": {"source": "stdlib-source"},
                "training": {"steps": 10},
                "workers": {"count": workers, "maxRestarts": most_restarts},
                "suspend": suspend,
            },
            "status": JobStatus(**status).model_dump(),
        }
    )


def make_plan(workers: int = 2, fallbacks: int = 1) -> Plan:
    memory = MemoryPrediction(parameters=1 << 20, gradients=1 << 20, optimizer=2 << 20, activations=4 << 20)
    predicted = Predicted(memory=memory, step_seconds=0.1, flops=1e9, checkpoint_bytes=3 << 20, parameters=262_144)
    plan = Plan(
        mesh=MeshSpec(data=workers),
        global_batch=8,
        micro_batch=2,
        accumulation=2,
        precision="fp32",
        predicted=predicted,
    )
    smaller = plan.model_copy(update={"micro_batch": 1, "accumulation": 4})
    return plan.model_copy(update={"fallbacks": (smaller,) * fallbacks})


def allow(gate: int = 1) -> Decision:
    return Decision(verdict="allow", gate=gate, coverage=Coverage())


def block(gate: int = 1) -> Decision:
    grave = Finding(
        id="f1",
        rule="data.missing",
        severity="high",
        subject="data.source",
        evidence="there is nothing",
        remedy="name a file",
        source="admission",
    )
    slight = grave.model_copy(update={"id": "f0", "severity": "low", "evidence": "it is odd"})
    return Decision(verdict="block", gate=gate, findings=(slight, grave), coverage=Coverage())


def make_placement(generation: int = 1, workers: int = 2, attempt: int = 1) -> Placement:
    members = tuple(Member(rank=rank, local_rank=rank, host="here") for rank in range(workers))
    return Placement(job_uid=UID, attempt=attempt, generation=generation, members=members)


def running(rank: int) -> MemberStatus:
    return MemberStatus(rank=rank, phase="running", pid=100 + rank)


def ended(rank: int, kind: str, message: str = "") -> MemberStatus:
    exit_ = WorkerExit.model_validate({"kind": kind, "message": message})
    return MemberStatus(rank=rank, phase="ended", pid=100 + rank, exit=exit_)


def reported(*members: MemberStatus, generation: int = 1, first: int | None = None) -> PlacementStatus:
    return PlacementStatus(generation=generation, agent_pid=99, members=members, first_exit_rank=first)


def at_work(job: Job, *members: MemberStatus, generation: int = 1, first: int | None = None, **more: Any) -> Observed:
    """Planned, placed, and the agent there, with what it reports of `members`."""
    given: dict[str, Any] = {
        "gate_1": allow(1),
        "plan": make_plan(),
        "gate_2": allow(2),
        "placement": make_placement(generation),
        "placement_status": reported(*members, generation=generation, first=first) if members else None,
        "agent_alive": True,
    }
    return Observed(job=job, **(given | more))
