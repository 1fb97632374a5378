"""Gate 2: a plan beside what the host has."""

from __future__ import annotations

import pytest

from phalanx.admission import gate_2
from phalanx.admission.gate2 import disk_needed, memory_needed
from phalanx.host import facts_of_host
from phalanx.job import Decision, HostFacts, Job, MemoryPrediction, Plan
from phalanx.job.plan import WORKER_BASELINE_BYTES
from tests.training.values import make_job, make_plan

MIB = 1 << 20


def plan(workers: int = 2, **changes: object) -> Plan:
    """Each worker takes 200 MiB; a checkpoint 50 MiB."""
    memory = MemoryPrediction(
        parameters=50 * MIB, gradients=50 * MIB, optimizer=50 * MIB, activations=40 * MIB, other=10 * MIB
    )
    predicted = {"memory": memory, "step_seconds": 1, "flops": 1, "checkpoint_bytes": 50 * MIB, "parameters": 9}
    return make_plan(workers, predicted=predicted, **changes)


def host(cores: int = 2, memory: int = 1 << 40, disk: int = 1 << 40) -> HostFacts:
    return HostFacts(host="here", cores=cores, memory_bytes=memory, memory_available_bytes=memory, disk_free_bytes=disk)


def job(**training: object) -> Job:
    return make_job("stdlib-source", **training)


def rules(decision: Decision) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in decision.findings}


def test_a_host_with_room_is_allowed_without_findings() -> None:
    decision = gate_2(job(), plan(), host())
    assert (decision.verdict, decision.gate, decision.findings) == ("allow", 2, ())


def test_this_host_is_judged_by_its_own_facts() -> None:
    facts = facts_of_host()
    decision = gate_2(job(), plan(1), facts)
    assert set(decision.coverage.scanned) >= {fact.name for fact in facts.facts}


def test_checkpoints_that_do_not_fit_the_disk_block() -> None:
    needed = disk_needed(job(keep_checkpoints=2), plan())
    assert needed > 3 * 50 * MIB  # two kept and one being written
    assert rules(gate_2(job(keep_checkpoints=2), plan(), host(disk=needed - 1))) == {"disk.too-small": "high"}
    assert gate_2(job(keep_checkpoints=2), plan(), host(disk=needed - 1)).verdict == "block"
    assert rules(gate_2(job(keep_checkpoints=2), plan(), host(disk=needed))) == {"disk.tight": "medium"}


@pytest.mark.parametrize(("steps", "lower"), [(10, "training.keepCheckpoints"), (10_000_000, "training.steps")])
def test_what_takes_most_of_the_disk_is_what_to_lower(steps: int, lower: str) -> None:
    (finding,) = gate_2(job(steps=steps), plan(), host(disk=1)).findings
    assert finding.remedy.endswith(f"or lower {lower}")


def test_more_kept_checkpoints_need_more_disk() -> None:
    assert disk_needed(job(keep_checkpoints=7), plan()) - disk_needed(job(keep_checkpoints=2), plan()) == 5 * 50 * MIB


def test_workers_that_do_not_fit_memory_block() -> None:
    needed = memory_needed(plan(3))
    assert needed == 3 * (200 * MIB + WORKER_BASELINE_BYTES)
    decision = gate_2(job(), plan(3), host(cores=4, memory=needed - 1))
    assert (decision.verdict, rules(decision)) == ("block", {"memory.too-small": "high"})
    assert "fewer workers" in decision.findings[0].remedy
    assert rules(gate_2(job(), plan(3), host(cores=4, memory=needed))) == {"memory.tight": "medium"}


@pytest.mark.parametrize(
    ("workers", "threads", "found"), [(2, 1, {}), (2, 2, {"cores.shared": "low"}), (3, 1, {"cores.shared": "low"})]
)
def test_workers_that_share_cores_are_noted_and_allowed(workers: int, threads: int, found: dict[str, str]) -> None:
    decision = gate_2(job(), plan(workers, threads=threads), host(cores=2))
    assert (decision.verdict, rules(decision)) == ("allow", found)
