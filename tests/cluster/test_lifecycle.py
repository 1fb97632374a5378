"""What comes next, case by case: the phase, the action, and the condition that says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from phalanx.cluster import Observed, decide
from phalanx.job import JobStatus
from tests.cluster.made import (
    allow,
    at_work,
    block,
    ended,
    make_job,
    make_placement,
    make_plan,
    reported,
    running,
)

READY = {"gate_1": allow(1), "plan": make_plan(), "gate_2": allow(2)}


def after(seen: Observed) -> JobStatus:
    return decide(seen, 5)[0]


def words(seen: Observed) -> tuple[str, str]:
    """(phase, action)"""
    status, action = decide(seen, 5)
    return status.phase, action.name


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, ("Pending", "admit")),
        ({"gate_1": allow(1)}, ("Admitted", "plan")),
        ({"gate_1": allow(1), "plan": make_plan()}, ("Planned", "check_host")),
        (READY, ("Placed", "place")),
        (READY | {"placement": make_placement()}, ("Planned", "start_agent")),
        (READY | {"placement": make_placement(), "agent_alive": True}, ("Planned", "wait")),
        (READY | {"evaluation": "done"}, ("Succeeded", "report")),
    ],
)
def test_a_job_goes_on_from_what_is_there(seen: dict[str, object], expected: tuple[str, str]) -> None:
    assert words(Observed(job=make_job(), **seen)) == expected  # type: ignore[arg-type]


def test_it_runs_when_every_worker_does() -> None:
    status, action = decide(at_work(make_job(phase="Placed", generation=1), running(0), running(1)), 5)
    assert (status.phase, action.name) == ("Running", "wait")
    condition = status.condition("Running")
    assert condition is not None
    assert (condition.status, condition.message) == ("True", "2 running")


def test_it_is_evaluated_when_every_worker_is_done() -> None:
    status, action = decide(at_work(make_job(phase="Running", generation=1), ended(0, "done"), ended(1, "done")), 5)
    assert (status.phase, action.name) == ("Evaluating", "evaluate")
    trained = status.condition("Trained")
    assert trained is not None
    assert trained.status == "True"


def test_a_worker_that_ended_before_the_others_is_waited_for() -> None:
    seen = at_work(make_job(phase="Running", generation=1), ended(0, "peer_lost"), running(1))
    assert words(seen) == ("Running", "wait")


@pytest.mark.parametrize(
    ("kinds", "first", "reason", "message"),
    [
        (("crashed", "peer_lost"), 0, "WorkerCrashed", "rank 0: why 0"),
        (("peer_lost", "crashed"), 0, "WorkerCrashed", "rank 1: why 1"),
        (("crashed", "crashed"), 1, "WorkerCrashed", "rank 1: why 1"),
        (("peer_lost", "peer_lost"), 1, "PeerLost", "rank 1: why 1"),
        (("done", "peer_lost"), 0, "PeerLost", "rank 1: why 1"),
        (("done", "crashed"), None, "WorkerCrashed", "rank 1: why 1"),
    ],
)
def test_the_cause_is_the_end_that_explains_the_others(
    kinds: tuple[str, str], first: int | None, reason: str, message: str
) -> None:
    members = [ended(rank, kind, f"why {rank}") for rank, kind in enumerate(kinds)]
    status, action = decide(at_work(make_job(phase="Running", generation=1), *members, first=first), 5)
    condition = status.condition("Running")
    assert condition is not None
    assert (condition.status, condition.reason, condition.message) == ("False", reason, message)
    assert (action.name, action.generation, action.why) == ("place", 2, message)
    assert (status.phase, status.generation, status.restarts) == ("Placed", 2, 1)


def test_restarts_are_bounded() -> None:
    job = make_job(phase="Running", generation=3, restarts=2)
    seen = at_work(job, ended(0, "crashed", "broke"), ended(1, "peer_lost"), generation=3)
    assert words(replace(seen, placement_stopping=True, agent_alive=False)) == ("Failed", "report")
    condition = after(seen).condition("Running")
    assert condition is not None
    assert condition.message == "rank 0: broke; 2 restarts are used up"


def test_a_preemption_uses_up_no_restart() -> None:
    job = make_job(phase="Running", generation=3, restarts=2)
    seen = at_work(job, ended(0, "preempted"), ended(1, "preempted"), generation=3)
    status, action = decide(seen, 5)
    assert (action.name, action.generation, status.restarts) == ("place", 4, 2)


def test_bad_input_is_not_tried_again() -> None:
    seen = at_work(make_job(phase="Running", generation=1), ended(0, "bad_input", "no text"), ended(1, "peer_lost"))
    assert after(seen).phase == "Failed"


def test_out_of_memory_takes_the_next_smaller_plan_until_none_is_left() -> None:
    job = make_job(phase="Running", generation=1)
    status, action = decide(at_work(job, ended(0, "out_of_memory"), ended(1, "peer_lost")), 5)
    assert (action.name, action.fallback, status.fallback) == ("place", 0, 0)
    job = make_job(phase="Running", generation=2, fallback=0)
    status, _ = decide(at_work(job, ended(0, "out_of_memory"), ended(1, "peer_lost"), generation=2), 5)
    condition = status.condition("Running")
    assert condition is not None
    assert (status.phase, condition.reason) == ("Failed", "OutOfMemory")
    assert "no smaller plan is left" in condition.message


def test_a_generation_keeps_the_fallback_of_the_one_before() -> None:
    job = make_job(phase="Placed", generation=3, fallback=0)
    _, action = decide(replace(at_work(job), placement=make_placement(2), agent_alive=False), 5)
    assert (action.name, action.generation, action.fallback) == ("place", 3, 0)


def test_an_agent_that_died_takes_its_workers_along_and_a_new_generation_begins() -> None:
    seen = replace(at_work(make_job(phase="Running", generation=1), running(0), running(1)), agent_alive=False)
    status, action = decide(seen, 5)
    condition = status.condition("Running")
    assert condition is not None
    assert (condition.reason, action.name, action.generation) == ("AgentLost", "place", 2)


def test_work_that_was_done_before_the_agent_died_counts() -> None:
    seen = at_work(make_job(phase="Running", generation=1), ended(0, "done"), ended(1, "done"))
    assert words(replace(seen, agent_alive=False)) == ("Evaluating", "evaluate")


def test_a_report_on_an_older_generation_says_nothing_about_the_new_one() -> None:
    job = make_job(phase="Placed", generation=2)
    old = reported(ended(0, "done"), ended(1, "done"), generation=1)
    seen = replace(at_work(job, generation=2), placement_status=old)
    assert words(seen) == ("Placed", "wait")


@pytest.mark.parametrize("gate", [1, 2])
def test_a_gate_that_blocks_fails_the_job_with_the_grave_findings_only(gate: int) -> None:
    seen = Observed(job=make_job(), **(READY | {f"gate_{gate}": block(gate)}))
    status, action = decide(seen, 5)
    assert (status.phase, action.name) == ("Failed", "report")
    condition = status.condition("Admitted" if gate == 1 else "HostReady")
    assert condition is not None
    assert condition.message == "data.source: there is nothing (to do: name a file)"


@pytest.mark.parametrize(
    ("seen", "step", "condition"),
    [
        ({}, "admit", "Admitted"),
        ({"gate_1": allow(1)}, "plan", "Planned"),
        ({"gate_1": allow(1), "plan": make_plan()}, "check_host", "HostReady"),
        (READY, "place", "Running"),
        (READY | {"placement": make_placement(), "placement_stopping": True}, "start_agent", "Running"),
        (READY | {"evaluation": "failed"}, "evaluate", "Evaluated"),
    ],
)
def test_a_step_that_failed_fails_the_job_in_its_own_words(seen: dict[str, object], step: str, condition: str) -> None:
    job = make_job(phase="Evaluating" if step == "evaluate" else "Pending")
    status, action = decide(Observed(job=job, failures=((step, "it broke"),), **seen), 5)  # type: ignore[arg-type]
    assert (status.phase, action.name) == ("Failed", "report")
    said = status.condition(condition)
    assert said is not None
    assert (said.status, said.message) == ("False", "it broke")


def test_a_stop_is_first_written_then_waited_for_then_reported() -> None:
    job = make_job(phase="Running", generation=1, suspend=True)
    seen = at_work(job, running(0), running(1))
    assert words(seen) == ("Running", "stop_workers")
    seen = replace(seen, placement_stopping=True)
    assert words(seen) == ("Running", "wait")
    seen = replace(seen, agent_alive=False)
    assert words(seen) == ("Stopped", "report")


def test_a_stop_reaches_an_agent_that_is_still_starting() -> None:
    """Nobody sees it yet; when it comes it must find that nothing is wanted of it."""
    job = make_job(phase="Placed", generation=1, suspend=True)
    seen = replace(at_work(job), agent_alive=False)
    assert words(seen) == ("Placed", "stop_workers")


@pytest.mark.parametrize("phase", ["Pending", "Admitted", "Planned", "Evaluating"])
def test_a_job_without_workers_stops_at_once(phase: str) -> None:
    job = make_job(phase=phase, suspend=True)
    assert words(Observed(job=job, gate_1=allow(1))) == ("Stopped", "report")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Stopped"])
def test_a_final_phase_sees_its_workers_end_then_writes_its_report_then_ends(phase: str) -> None:
    seen = at_work(make_job(phase=phase, generation=1), ended(0, "done"), ended(1, "done"))
    assert words(seen) == (phase, "stop_workers")
    seen = replace(seen, placement_stopping=True)
    assert words(seen) == (phase, "wait")
    seen = replace(seen, agent_alive=False)
    assert words(seen) == (phase, "report")
    assert words(replace(seen, report="done")) == (phase, "finish")
    status, action = decide(replace(seen, report="failed", failures=(("report", "disk full"),)), 5)
    said = status.condition("Reported")
    assert said is not None
    assert (action.name, said.message) == ("finish", "disk full")


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    job = make_job(phase="Placed", generation=1)
    seen = at_work(job, running(0), running(1))
    first, _ = decide(seen, 100)
    again, _ = decide(replace(seen, job=job.model_copy(update={"status": first})), 200)
    assert again == first
    crashed = at_work(job.model_copy(update={"status": first}), ended(0, "crashed"), ended(1, "peer_lost"))
    later, _ = decide(crashed, 300)
    before, now = first.condition("Running"), later.condition("Running")
    assert before is not None
    assert now is not None
    assert (before.time_ns, now.time_ns) == (100, 300)
