"""Placing a plan's workers on a host, and the orders from which the agent starts them.

Knows one host so far: every rank goes to the agent that is named. The environment of a worker is
torchrun's (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE) and Phalanx's own names beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from phalanx.job import Job, Member, Placement, Plan, WorkerSpec


def place(job: Job, plan: Plan, generation: int, agent: str) -> Placement:
    """All ranks of `plan.mesh` on the host of `agent`."""
    members = tuple(Member(rank=rank, local_rank=rank, host=agent) for rank in range(plan.mesh.size))
    return Placement(job_uid=job.metadata.uid, attempt=job.status.attempt, generation=generation, members=members)


def worker_specs(
    job: Job, plan: Plan, placement: Placement, run_dir: Path, spool_dir: Path, fallback: int = -1
) -> list[WorkerSpec]:
    """One order a member. On one host rendezvous is a file, new for every generation, and gloo stays on loopback.

    `fallback`: index of the plan's fallback to carry out; -1: the plan itself.
    """
    local = {host: sum(m.host == host for m in placement.members) for host in {m.host for m in placement.members}}
    specs = []
    for member in placement.members:
        env = {
            "RANK": str(member.rank),
            "WORLD_SIZE": str(len(placement.members)),
            "LOCAL_RANK": str(member.local_rank),
            "LOCAL_WORLD_SIZE": str(local[member.host]),
            "OMP_NUM_THREADS": str(plan.threads),
            "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONUNBUFFERED": "1",
            "PHALANX_JOB_UID": placement.job_uid,
            "PHALANX_NAMESPACE": job.metadata.namespace,
            "PHALANX_ATTEMPT": str(placement.attempt),
            "PHALANX_GENERATION": str(placement.generation),
            "PHALANX_RENDEZVOUS": str(run_dir / "rendezvous" / f"generation-{placement.generation}"),
        }
        argv = [sys.executable, "-m", "phalanx.training.worker", "--run-dir", str(run_dir)]
        argv += ["--spool", str(spool_dir), "--fallback", str(fallback)]
        specs.append(
            WorkerSpec(
                job_uid=placement.job_uid,
                attempt=placement.attempt,
                generation=placement.generation,
                rank=member.rank,
                argv=tuple(argv),
                env=env,
            )
        )
    return specs
