"""The controller in this process, over real state and files: what it does, says and writes when things go wrong.

Jobs that train are in tests/e2e; here none gets as far as a worker.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from phalanx.cluster import (
    Action,
    JobNotFound,
    delete_objects,
    read_job,
    read_placement,
    set_suspend,
    submit,
)
from phalanx.daemons import controller as module
from phalanx.daemons.controller import Controller, JobGone
from phalanx.daemons.hold import ControlLost, Hold, hold, open_state
from phalanx.daemons.run_dir import RunDamaged, RunDir
from phalanx.events import list_files, read_rows
from phalanx.foundation import Home
from phalanx.job import Job
from phalanx.state import SqliteState
from tests.cluster.made import allow, block, make_job, make_plan
from tests.processes import left_behind

KEY = ("tests", "small")


@dataclass
class Heard:
    """A listener that remembers, and may do something when it hears of an action."""

    actions: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    ticks: int = 0

    def changed(self, job: Job) -> None:
        self.phases.append(job.status.phase)

    def acting(self, action: Action) -> None:
        if self.actions[-1:] != [action.name]:
            self.actions.append(action.name)

    def stopping(self) -> None:
        self.actions.append("stopping")

    def tick(self, job: Job) -> None:
        self.ticks += 1


@pytest.fixture
def state(home: Home):
    state = open_state(home)
    yield state
    state.close()
    assert left_behind(home.root) == {}


def submitted(home: Home, state: SqliteState, source: str = "/nowhere/at/all") -> Path:
    job = make_job()
    data = job.spec.data.model_copy(update={"source": source})
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"data": data})})
    return Path(submit(state, job, home.runs_dir).job.status.run_dir)


def planned(home: Home, state: SqliteState) -> RunDir:
    """As far as a job can come before anything is started."""
    files = RunDir.open(submitted(home, state))
    files.write_decision(1, allow(1))
    files.write_decision(2, allow(2))
    (files.path / "plan.json").write_text(make_plan().model_dump_json(by_alias=True))
    return files


def run(home: Home, listener: Heard | None = None, **options: object) -> Job:
    with hold(home, KEY) as held:
        return Controller(held, listener or Heard(), **options).run()  # type: ignore[arg-type]


def test_a_job_that_is_refused_ends_with_its_report(home: Home, state: SqliteState) -> None:
    run_dir, heard = submitted(home, state), Heard()
    job = run(home, heard)
    assert heard.actions == ["admit", "report"]
    assert (job.status.phase, heard.phases[-1]) == ("Failed", "Failed")
    condition = job.status.condition("Admitted")
    assert condition is not None
    assert "/nowhere/at/all" in condition.message
    assert job.status.report == str(run_dir / "report.html")
    assert "/nowhere/at/all" in Path(job.status.report).read_text()
    assert read_job(state, *KEY).job == job


def test_its_findings_and_changes_are_events(home: Home, state: SqliteState) -> None:
    submitted(home, state)
    run(home)
    rows = [row for file in list_files(home.spool_dir) for row in read_rows(file.path)]
    (finding,) = [row.fields for row in rows if row.table == "findings"]
    assert (finding["rule"], finding["gate"], finding["verdict"]) == ("data.missing", 1, "block")
    states = [(row.fields["phase"], row.fields["condition"]) for row in rows if row.table == "states"]
    assert states == [("Failed", "Admitted"), ("Failed", "Reported")]
    assert {row.context["job_uid"] for row in rows} == {make_job().metadata.uid}


def test_a_job_that_ended_only_gets_what_is_missing(home: Home, state: SqliteState) -> None:
    submitted(home, state)
    run(home)
    heard = Heard()
    run(home, heard)
    assert heard.actions == []


def test_a_refusal_is_asked_again_when_the_job_goes_on(home: Home, state: SqliteState) -> None:
    files = planned(home, state)
    files.write_decision(1, block(1))
    heard = Heard()
    job = run(home, heard)
    assert heard.actions[0] == "admit"
    condition = job.status.condition("Admitted")
    assert condition is not None
    assert "/nowhere/at/all" in condition.message  # and not what was said before


def test_a_stop_before_anything_began_is_a_stop(home: Home, state: SqliteState) -> None:
    submitted(home, state)
    set_suspend(state, KEY, True)
    heard = Heard()
    job = run(home, heard)
    assert (job.status.phase, heard.actions) == ("Stopped", ["report"])


def test_an_interrupt_becomes_desired_state(home: Home, state: SqliteState) -> None:
    submitted(home, state)
    heard = Heard()
    job = run(home, heard, stop_requested=True)
    assert (job.status.phase, heard.actions[0]) == ("Stopped", "stopping")
    assert read_job(state, *KEY).job.spec.suspend


def test_an_agent_that_does_not_start_is_tried_thrice_and_quoted(
    home: Home, state: SqliteState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(home, state)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such python' >&2; exit 3\n")
    broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))
    job = run(home)
    condition = job.status.condition("Running")
    assert condition is not None
    assert (job.status.phase, condition.reason) == ("Failed", "AgentNotStarted")
    assert "the agent did not start: no such python" in condition.message
    assert (Path(job.status.run_dir) / "logs" / "agent.log").read_text().count("no such python") == 3
    placement = read_placement(state, KEY)
    assert placement is not None
    assert placement.stopping


def test_a_step_that_breaks_fails_the_job_in_its_own_words(
    home: Home, state: SqliteState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = planned(home, state)
    (files.path / "plan.json").unlink()
    broken = tmp_path / "python"
    broken.write_text('#!/bin/sh\necho \'{"message": "nothing fits", "remedy": "ask for less"}\' >&2; exit 1\n')
    broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))
    (files.path / "logs" / "plan.log").write_text("what an earlier one said\n")
    job = run(home)
    condition = job.status.condition("Planned")
    assert condition is not None
    assert (job.status.phase, condition.reason) == ("Failed", "NoPlan")
    assert condition.message == "nothing fits (to do: ask for less)"


def test_a_report_that_cannot_be_written_is_said_and_the_job_ends(home: Home, state: SqliteState) -> None:
    run_dir = submitted(home, state)
    (run_dir / "report.html").mkdir(parents=True)
    job = run(home)
    condition = job.status.condition("Reported")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "ReportFailed")
    assert "report.html" in condition.message
    assert job.status.report == ""


def test_a_damaged_plan_is_one_message(home: Home, state: SqliteState) -> None:
    files = planned(home, state)
    (files.path / "plan.json").write_text("{")
    with pytest.raises(RunDamaged, match=r"plan\.json"):
        run(home)
    assert not read_job(state, *KEY).job.status.conditions


def test_a_home_that_moved_is_where_the_run_is(home: Home, state: SqliteState, tmp_path: Path) -> None:
    submitted(home, state)
    stored = read_job(state, *KEY)
    old = stored.job.status.model_copy(update={"run_dir": "/somewhere/else"})
    state.report("TrainingJob", *KEY, old.model_dump(mode="json", by_alias=True))
    assert run(home).status.run_dir == str(home.run_dir(*KEY, 1))


def test_a_job_that_is_not_there_cannot_be_controlled(home: Home, state: SqliteState) -> None:
    with pytest.raises(JobNotFound):
        run(home)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_job_that_goes_away_meanwhile_ends_its_controller(home: Home, state: SqliteState, how: str) -> None:
    submitted(home, state)

    class Meddler(Heard):
        def acting(self, action: Action) -> None:
            delete_objects(state, KEY)
            if how == "replaced":
                other = make_job()
                metadata = other.metadata.model_copy(update={"uid": "another"})
                submit(state, other.model_copy(update={"metadata": metadata}), home.runs_dir)

    with pytest.raises(JobGone, match=how):
        run(home, Meddler())


def test_a_controller_that_lost_its_lease_writes_nothing(home: Home, state: SqliteState) -> None:
    submitted(home, state)
    before = read_job(state, *KEY)
    with hold(home, KEY), pytest.raises(ControlLost):
        Controller(Hold(home, KEY, "1@another-process"), Heard()).run()
    assert read_job(state, *KEY) == before


def test_ending_an_agent_that_is_not_there_does_nothing(state: SqliteState) -> None:
    module.end_agent(state, "nobody")
