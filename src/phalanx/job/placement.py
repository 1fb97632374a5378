"""The placement: which member of a job runs where; and one worker's order and end.

`cluster` writes a Placement into state; the agent of the host named in a Member makes it true
and reports. A `generation` is one forming of the group: every relaunch is a new one.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phalanx.job.spec import Value

ExitKind = Literal["done", "preempted", "peer_lost", "out_of_memory", "bad_input", "crashed"]
MemberPhase = Literal["starting", "running", "ended"]

# The exit codes by which a worker tells its agent how it ended (sysexits.h where it has a word for it).
EXIT_CODES: dict[ExitKind, int] = {"done": 0, "bad_input": 65, "out_of_memory": 70, "preempted": 75, "peer_lost": 76}


class Member(Value):
    role: Literal["worker"] = "worker"
    rank: int = Field(ge=0)
    local_rank: int = Field(ge=0)
    host: str = Field(description="Name of the agent that runs it.")
    address: str = "127.0.0.1"
    ports: tuple[int, ...] = ()
    devices: tuple[str, ...] = ("cpu",)


class Placement(Value):
    job_uid: str
    attempt: int
    generation: int
    members: tuple[Member, ...]


class WorkerExit(Value):
    """How a worker ended; `signal` for a crash by one; `message` its last words, for people."""

    kind: ExitKind
    signal: int | None = None
    code: int | None = None
    message: str = ""


class MemberStatus(Value):
    rank: int
    phase: MemberPhase
    pid: int | None = None
    started_ns: int | None = None
    exit: WorkerExit | None = None


class PlacementStatus(Value):
    """Reported by the agent. `first_exit_rank`: whose end came first, so that the cause is shown first."""

    generation: int
    agent_pid: int
    members: tuple[MemberStatus, ...] = ()
    first_exit_rank: int | None = None
    message: str = ""


class WorkerSpec(Value):
    """All that an agent needs to start one process. Secrets go by file, never in `env`."""

    job_uid: str
    attempt: int
    generation: int
    role: Literal["worker"] = "worker"
    rank: int
    argv: tuple[str, ...]
    env: dict[str, str] = Field(default_factory=dict)
    box: str = Field(default="none", description="Isolation the process runs in.")
