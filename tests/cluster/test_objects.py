"""A job and its placement in real state: attempts, conflicts, and who may write what when."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
from collections.abc import Iterator
from pathlib import Path

import pytest

from phalanx.cluster import (
    JobBusy,
    JobNotFound,
    UidTaken,
    controller_lease,
    delete_objects,
    list_jobs,
    place,
    read_job,
    read_placement,
    reopen,
    report_status,
    set_suspend,
    stop_placement,
    submit,
    worker_specs,
    write_placement,
)
from phalanx.job import Condition, JobStatus
from phalanx.job.spec import Phase
from phalanx.state import Conflict, SqliteState
from tests.cluster.made import UID, make_job, make_placement, make_plan, reported, running

KEY = ("tests", "small")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SqliteState]:
    state = SqliteState(tmp_path / "state.db")
    yield state
    state.close()


def end(state: SqliteState, phase: Phase, *true: str, **more: object) -> None:
    """Write the job as ended, with these conditions True."""
    stored = read_job(state, *KEY)
    conditions = tuple(Condition(type=type_, status="True", reason="Made", time_ns=1) for type_ in true)
    update = {"phase": phase, "conditions": conditions, **more}
    report_status(state, stored, stored.job.status.model_copy(update=update))


def write(state: SqliteState, tmp_path: Path, generation: int, attempt: int = 1) -> None:
    before = read_placement(state, KEY)
    job, plan = make_job(attempt=attempt), make_plan()
    placement = place(job, plan, generation, "here")
    specs = worker_specs(job, plan, placement, tmp_path / "run", tmp_path / "spool")
    write_placement(state, KEY, placement, specs, tmp_path / "run", expect=before.version if before else 0)


def test_a_submitted_job_is_read_back_whole(state: SqliteState, tmp_path: Path) -> None:
    stored = submit(state, make_job(), tmp_path)
    assert read_job(state, *KEY) == stored
    assert stored.job.spec == make_job().spec
    assert stored.job.metadata.uid == UID
    assert stored.job.status == JobStatus(run_dir=str(tmp_path / "tests" / "small" / "attempt-1"))


def test_jobs_are_listed_by_team(state: SqliteState, tmp_path: Path) -> None:
    for name in ("b", "a"):
        submit(state, make_job(name), tmp_path)
    assert [stored.job.metadata.name for stored in list_jobs(state, "tests")] == ["a", "b"]
    assert list_jobs(state, "research") == []
    assert len(list_jobs(state, None)) == 2


def test_a_missing_job_is_named_with_the_nearest_one(state: SqliteState, tmp_path: Path) -> None:
    submit(state, make_job(), tmp_path)
    with pytest.raises(JobNotFound, match="did you mean tests/small"):
        read_job(state, "tests", "smal")
    with pytest.raises(JobNotFound, match="phalanx get jobs"):
        read_job(state, "somebody", "else")
    with pytest.raises(JobNotFound, match="did you mean -n tests"):
        read_job(state, "default", "small")


def test_a_job_under_way_is_not_submitted_twice(state: SqliteState, tmp_path: Path) -> None:
    submit(state, make_job(), tmp_path)
    with pytest.raises(JobBusy, match="phalanx resume small --namespace tests"):
        submit(state, make_job(), tmp_path)


def test_two_jobs_do_not_share_a_uid(state: SqliteState, tmp_path: Path) -> None:
    """Such as that of a copy of what `phalanx describe` printed."""
    submit(state, make_job(), tmp_path)
    copy = make_job("copy")
    copy = copy.model_copy(update={"metadata": copy.metadata.model_copy(update={"uid": UID})})
    with pytest.raises(UidTaken, match="that of another job, tests/small") as caught:
        submit(state, copy, tmp_path)
    assert "leave metadata.uid out" in caught.value.remedy
    assert [stored.job.metadata.name for stored in list_jobs(state, None)] == ["small"]


def test_a_job_that_ended_gets_a_new_attempt_with_the_new_spec(state: SqliteState, tmp_path: Path) -> None:
    submit(state, make_job(), tmp_path)
    end(state, "Failed", generation=3, restarts=2)
    again = submit(state, make_job(workers=1), tmp_path).job
    assert again.spec.workers.count == 1
    assert again.status == JobStatus(attempt=2, run_dir=str(tmp_path / "tests" / "small" / "attempt-2"))
    assert again.metadata.uid == UID


def test_a_new_attempt_never_gets_a_directory_that_was_used(state: SqliteState, tmp_path: Path) -> None:
    """The job was deleted and its files were kept: the plan in them is another job's."""
    for name in ("attempt-1", "attempt-12", "attempt-x"):
        (tmp_path / "tests" / "small" / name).mkdir(parents=True)
    assert submit(state, make_job(), tmp_path).job.status.attempt == 13


def test_what_is_left_of_the_last_attempt_is_told_to_end(state: SqliteState, tmp_path: Path) -> None:
    submit(state, make_job(), tmp_path)
    write(state, tmp_path, 1)
    end(state, "Failed")
    submit(state, make_job(), tmp_path)
    placement = read_placement(state, KEY)
    assert placement is not None
    assert placement.stopping


def _submit(database: Path, start: multiprocessing.synchronize.Barrier, name: str, number: int) -> str:
    state = SqliteState(database)
    start.wait()
    try:
        stored = submit(state, make_job(name, workers=number + 1), database.parent)
    except JobBusy as error:
        return str(error)
    finally:
        state.close()
    assert stored.job.spec.workers.count == number + 1
    return "won"


def test_of_processes_that_submit_at_once_one_wins(tmp_path: Path) -> None:
    SqliteState(tmp_path / "state.db").close()
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager, context.Pool(4) as pool:
        start = manager.Barrier(4)
        for name in range(5):
            said = pool.starmap(_submit, [(tmp_path / "state.db", start, f"job-{name}", n) for n in range(4)])
            assert sum(words == "won" for words in said) == 1, said
            assert all(words == "won" or "job-" in words for words in said)


def test_suspend_is_written_whatever_changes_meanwhile(state: SqliteState, tmp_path: Path) -> None:
    submit(state, make_job(), tmp_path)
    end(state, "Running", generation=1)
    stored = set_suspend(state, KEY, True)
    assert stored.job.spec.suspend
    assert stored.job.status.phase == "Running"
    assert set_suspend(state, KEY, True).version == stored.version


def test_a_status_based_on_an_old_reading_is_refused(state: SqliteState, tmp_path: Path) -> None:
    old = submit(state, make_job(), tmp_path)
    set_suspend(state, KEY, True)
    with pytest.raises(Conflict):
        report_status(state, old, JobStatus(phase="Failed"))
    assert read_job(state, *KEY).job.status.phase == "Pending"


@pytest.mark.parametrize(
    ("true", "phase", "generation"),
    [
        ((), "Pending", 5),
        (("Admitted",), "Admitted", 5),
        (("Admitted", "Planned"), "Planned", 5),
        (("Admitted", "Planned", "HostReady", "Running"), "Planned", 5),
        (("Admitted", "Planned", "HostReady", "Trained"), "Evaluating", 4),
    ],
)
def test_a_reopened_job_stands_where_its_work_stands(
    state: SqliteState, tmp_path: Path, true: tuple[str, ...], phase: str, generation: int
) -> None:
    submit(state, make_job(), tmp_path)
    set_suspend(state, KEY, True)
    end(state, "Stopped", *true, generation=4, restarts=2, fallback=0, report="/somewhere")
    job = reopen(state, KEY).job
    status = job.status
    assert not job.spec.suspend
    assert (status.phase, status.generation, status.restarts, status.fallback) == (phase, generation, 0, 0)
    assert status.report == ""
    assert {condition.type for condition in status.conditions} == set(true) - {"Running"}


def test_reopening_an_interrupted_job_changes_nothing_but_a_wish_to_stop(state: SqliteState, tmp_path: Path) -> None:
    submit(state, make_job(), tmp_path)
    end(state, "Running", "Admitted", generation=2, restarts=1)
    before = read_job(state, *KEY)
    assert reopen(state, KEY) == before
    set_suspend(state, KEY, True)
    assert reopen(state, KEY).job == before.job


def test_a_placement_is_read_back_with_what_its_agent_reports(state: SqliteState, tmp_path: Path) -> None:
    assert read_placement(state, KEY) is None
    write(state, tmp_path, 1)
    said = reported(running(0), running(1))
    state.report("Placement", *KEY, said.model_dump(mode="json"))
    stored = read_placement(state, KEY)
    assert stored is not None
    assert stored.placement == make_placement(1)
    assert (stored.stopping, stored.status) == (False, said)


def test_a_report_outlives_a_new_generation_and_not_a_new_attempt(state: SqliteState, tmp_path: Path) -> None:
    write(state, tmp_path, 1)
    state.report("Placement", *KEY, reported(running(0)).model_dump(mode="json"))
    write(state, tmp_path, 2)
    stored = read_placement(state, KEY)
    assert stored is not None
    assert stored.status is not None
    write(state, tmp_path, 1, attempt=2)
    stored = read_placement(state, KEY)
    assert stored is not None
    assert stored.status is None


def test_a_placement_based_on_an_old_reading_is_refused(state: SqliteState, tmp_path: Path) -> None:
    write(state, tmp_path, 1)
    with pytest.raises(Conflict):
        write_placement(state, KEY, make_placement(2), [], tmp_path, expect=0)


def test_stopping_a_placement_is_idempotent_and_keeps_the_rest(state: SqliteState, tmp_path: Path) -> None:
    stop_placement(state, KEY)
    write(state, tmp_path, 1)
    stop_placement(state, KEY)
    first = read_placement(state, KEY)
    stop_placement(state, KEY)
    assert read_placement(state, KEY) == first
    assert first is not None
    assert first.stopping
    assert first.placement == make_placement(1)


def test_a_deleted_job_is_gone_with_its_placement(state: SqliteState, tmp_path: Path) -> None:
    submit(state, make_job(), tmp_path)
    write(state, tmp_path, 1)
    delete_objects(state, KEY)
    delete_objects(state, KEY)
    assert list_jobs(state, None) == []
    assert read_placement(state, KEY) is None


def test_teams_do_not_share_a_lease() -> None:
    assert controller_lease(("a", "b")) != controller_lease(("b", "a"))
