"""Gate 2, after planning: has this host room for what the plan says?

Compares numbers of the plan with facts of the host; measures nothing itself.
"""

from __future__ import annotations

from phalanx.foundation import size_in_words
from phalanx.job import Coverage, Decision, Finding, HostFacts, Job, Plan
from phalanx.job.plan import WORKER_BASELINE_BYTES

# What a run writes beside its checkpoints: prepared text, logs, events (64 MiB of spool a process at most), report.
RUN_BYTES = 64 << 20
EVENT_BYTES_PER_STEP = 1024
_TIGHT = 0.9


def gate_2(job: Job, plan: Plan, facts: HostFacts) -> Decision:
    """Block what cannot end well on this host; warn of what will be slow or tight.

    `facts.disk_free_bytes` is that of the run directory's file system.
    """
    findings = (*_disk(job, plan, facts), *_memory(plan, facts), *_cores(plan, facts))
    blocked = any(finding.severity in ("high", "critical") for finding in findings)
    return Decision(
        verdict="block" if blocked else "allow",
        gate=2,
        findings=findings,
        coverage=Coverage(
            scanned=("disk", "memory", "cores", *(fact.name for fact in facts.facts)),
            skipped=("ports: workers meet through a file", "other hosts: there is one"),
        ),
    )


def disk_needed(job: Job, plan: Plan) -> int:
    """Bytes a run writes at most: the kept checkpoints and the one being written, events, logs, the report."""
    return checkpoint_bytes(job, plan) + event_bytes(job, plan) + RUN_BYTES


def event_bytes(job: Job, plan: Plan) -> int:
    return job.spec.training.steps * plan.mesh.size * EVENT_BYTES_PER_STEP


def checkpoint_bytes(job: Job, plan: Plan) -> int:
    """Of those that are kept and the one being written."""
    return (job.spec.training.keep_checkpoints + 1) * plan.predicted.checkpoint_bytes


def memory_needed(plan: Plan) -> int:
    """Bytes all workers hold at the peak of a step, their programs included."""
    return plan.mesh.size * (plan.predicted.memory.total + WORKER_BASELINE_BYTES)


def _disk(job: Job, plan: Plan, facts: HostFacts) -> list[Finding]:
    needed, free = disk_needed(job, plan), facts.disk_free_bytes
    kept = job.spec.training.keep_checkpoints
    evidence = (
        f"{size_in_words(needed)} needed: {kept} checkpoints kept and one being written, "
        f"{size_in_words(plan.predicted.checkpoint_bytes)} each, and events and logs; {size_in_words(free)} free"
    )
    if needed > free:
        most = "training.steps" if event_bytes(job, plan) > checkpoint_bytes(job, plan) else "training.keepCheckpoints"
        remedy = f"free space, choose another place with --home, or lower {most}"
        return [_finding("disk.too-small", "high", facts.host, evidence, remedy)]
    if needed > _TIGHT * free:
        return [_finding("disk.tight", "medium", facts.host, evidence, "free some space before a long run")]
    return []


def _memory(plan: Plan, facts: HostFacts) -> list[Finding]:
    needed, available = memory_needed(plan), facts.memory_available_bytes
    evidence = (
        f"{plan.mesh.size} workers take {size_in_words(needed)} at their peak; {size_in_words(available)} is available"
    )
    smaller = " or a smaller training.microBatch" if plan.micro_batch > 1 else ""
    remedy = f"use fewer workers{smaller}, or end other programs"
    if needed > available:
        return [_finding("memory.too-small", "high", facts.host, evidence, remedy)]
    if needed > _TIGHT * available:
        return [_finding("memory.tight", "medium", facts.host, evidence, remedy)]
    return []


def _cores(plan: Plan, facts: HostFacts) -> list[Finding]:
    wanted = plan.mesh.size * plan.threads
    if wanted <= facts.cores:
        return []
    evidence = f"{plan.mesh.size} workers of {plan.threads} threads share {facts.cores} cores"
    remedy = f"nothing if that is meant; {facts.cores} workers or fewer are faster"
    return [_finding("cores.shared", "low", facts.host, evidence, remedy)]


def _finding(rule: str, severity: str, host: str, evidence: str, remedy: str) -> Finding:
    return Finding.model_validate(
        {
            "id": f"{rule}:{host}",
            "rule": rule,
            "severity": severity,
            "subject": host,
            "evidence": evidence,
            "remedy": remedy,
            "source": "admission",
        }
    )
