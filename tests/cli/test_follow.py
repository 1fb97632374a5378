"""What a person reads while a job is controlled, where no bar can be drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phalanx.cli import _follow as module
from phalanx.cli._follow import Follower, evaluation_lines, outcome, say_end
from phalanx.cluster import Action
from phalanx.events import Context, Emitter
from phalanx.foundation import Home
from phalanx.job import Condition, Job
from tests.cluster.made import UID, make_job, make_plan

BITS = {
    "metric": "bits_per_byte",
    "model": {"value": 1.9},
    "baselines": [{"name": "byte 4-gram", "value": 2.1}, {"name": "byte 6-gram", "value": 1.8}],
}


@pytest.fixture
def job(home: Home) -> Job:
    run_dir = home.run_dir("tests", "small", 1)
    (run_dir / "logs").mkdir(parents=True)
    (run_dir / "plan.json").write_text(make_plan().model_dump_json(by_alias=True))
    return make_job(run_dir=str(run_dir), phase="Running", generation=1)


@pytest.fixture
def every_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_EVERY_S", 0.0)
    monkeypatch.setattr(module, "PLAIN_EVERY_S", 0.0)


def said(job: Job, type_: str, status: str, reason: str, message: str = "", **update: Any) -> Job:
    condition = Condition.model_validate(
        {"type": type_, "status": status, "reason": reason, "message": message, "timeNs": 1}
    )
    others = tuple(c for c in job.status.conditions if c.type != type_)
    return job.model_copy(
        update={"status": job.status.model_copy(update={"conditions": (*others, condition), **update})}
    )


def heard(capsys: pytest.CaptureFixture[str]) -> list[str]:
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()


def test_a_condition_is_said_once(home: Home, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    with Follower(home, job) as follower:
        admitted = said(job, "Admitted", "True", "Gate1Allowed", "in order")
        follower.changed(admitted)
        follower.changed(admitted)
        failed = said(admitted, "Running", "False", "BadInput", "rank 0: no text", phase="Failed")
        follower.changed(failed)
        follower.changed(said(failed, "Reported", "True", "ReportWritten", "/r.html"))
        follower.changed(said(failed, "Reported", "False", "ReportFailed", "disk full"))
    assert heard(capsys) == [
        "- Admitted: in order",
        "x Running: rank 0: no text",
        "x Reported: disk full",
    ]


def test_the_plan_says_how_long_it_will_take(home: Home, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    with Follower(home, job) as follower:
        follower.changed(said(job, "Planned", "True", "PlanWritten"))
    first, second = heard(capsys)[:2]
    assert first == (
        "- Planned: 0.26 M parameters on 2 workers, micro-batch 2 x 2, fp32, 8.00 MiB a worker above its baseline"
    )
    assert second == "  10 steps: about 1 s of training, then evaluation"


def test_a_restart_shows_its_cause_first(home: Home, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    with Follower(home, job) as follower:
        follower.changed(said(job, "Running", "False", "WorkerCrashed", "rank 1: it broke", phase="Placed"))
        follower.acting(Action("place", 2, why="rank 1: it broke"))
    assert heard(capsys) == [
        "  ... placing workers",
        "! rank 1: it broke",
        "  starting again from the last checkpoint, generation 2",
    ]


def test_steps_validations_and_damage_are_told_as_they_come(
    home: Home, job: Job, every_tick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    context = Context("here", "tests", UID, 1, generation=1, rank=0, program="worker")
    emitter = Emitter(home.spool_dir, context)
    emitter.emit("steps", {"step": 3, "loss": 2.5, "tokens_per_second": 12345.6, "step_s": 0.5})
    emitter.emit("steps", {"step": 9, "loss": 9.5, "tokens_per_second": 1.0, "step_s": 9.0}, rank=1)
    emitter.emit("validations", {"step": 3, "loss": 2.25, "bits_per_byte": 3.125})
    emitter.emit("validations", {"step": 6, "loss": 2.0, "bits_per_byte": None, "top1": 0.4375})
    emitter.emit("validations", {"step": 9, "loss": None, "top1": None})
    emitter.emit("checkpoints", {"event": "damaged", "path": "/c/step-2", "message": "checksum"})
    with Follower(home, job) as follower:
        follower.tick(job)
    assert heard(capsys) == [
        "  step 3: held-out loss 2.2500 nats/token, 3.125 bits per byte",
        "  step 6: held-out loss 2.0000 nats/token, 43.8% of first guesses right",
        "  step 9: nothing to predict in held-out text",
        "! damaged checkpoint /c/step-2: checksum; using the one before",
        "  step 3/10  loss 2.500  12,346 tokens/s  4 s left",
    ]


def test_planning_and_evaluation_say_how_far_they_are(
    home: Home, job: Job, every_tick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Path(job.status.run_dir) / "logs" / "evaluate.log"
    with Follower(home, job) as follower:
        follower.acting(Action("evaluate"))
        evaluating = said(job, "Trained", "True", "AllWorkersDone", phase="Evaluating")
        for line in (
            "2026-11-24 23:40:21,911 INFO phalanx.evaluation: counting",
            "2026-11-24 23:40:22,911 INFO phalanx.evaluation: counting",
            '{"message": "no checkpoint"}',
            "writing",
        ):
            log.write_text(line + "\n")
            follower.tick(evaluating)
    assert heard(capsys) == ["  ... evaluating beside the baselines", "  counting", "  writing"]


def test_the_clock_goes_on_after_the_last_step(home: Home, job: Job, every_tick: None) -> None:
    context = Context("here", "tests", UID, 1, generation=1, rank=0, program="worker")
    Emitter(home.spool_dir, context).emit("steps", {"step": 10, "loss": 2.5, "tokens_per_second": 1.0, "step_s": 0.5})
    with Follower(home, job) as follower:
        (before,) = follower._bar.tasks
        follower.tick(job)
        assert before.finished
        follower.acting(Action("evaluate"))
        (after,) = follower._bar.tasks
        assert not after.finished
        assert after.start_time == before.start_time


def test_quiet_says_nothing(home: Home, job: Job, every_tick: None, capsys: pytest.CaptureFixture[str]) -> None:
    with Follower(home, job, quiet=True) as follower:
        follower.acting(Action("evaluate"))
        follower.changed(said(job, "Admitted", "True", "Gate1Allowed"))
        follower.tick(job)
        follower.stopping()
        say_end(follower, job)
    assert heard(capsys) == []


def test_words_that_look_like_markup_are_words(home: Home, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    with Follower(home, job) as follower:
        follower.say("rank 0: [bold]no[/bold] [/] [red]")
    assert heard(capsys) == ["rank 0: [bold]no[/bold] [/] [red]"]


def test_the_end_shows_the_model_among_its_baselines(home: Home, job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(job.status.run_dir) / "evaluation.json").write_text(json.dumps(BITS))
    update = {"phase": "Succeeded", "report": "/r.html"}
    with Follower(home, job) as follower:
        say_end(follower, job.model_copy(update={"status": job.status.model_copy(update=update)}))
    assert heard(capsys) == [
        "  byte 6-gram  1.800 bits per byte",
        "  this model   1.900 bits per byte",
        "  byte 4-gram  2.100 bits per byte",
        "tests/small: Succeeded; report:",
    ]


@pytest.mark.parametrize(
    ("phase", "logs", "after"),
    [
        ("Stopped", True, "`phalanx resume small -n tests` goes on from the last checkpoint; "),
        ("Failed", True, "`phalanx logs small -n tests` shows what the workers said; "),
        ("Failed", False, ""),
    ],
)
def test_the_end_says_what_to_do_next(
    home: Home, job: Job, capsys: pytest.CaptureFixture[str], phase: str, logs: bool, after: str
) -> None:
    if logs:  # a job that was resumed and not admitted has a generation, and no worker ever spoke
        (Path(job.status.run_dir) / "logs" / "generation-1").mkdir()
    with Follower(home, job) as follower:
        status = job.status.model_copy(update={"phase": phase})
        say_end(follower, job.model_copy(update={"status": status}))
    assert heard(capsys) == [f"tests/small: {phase}; {after}no report"]


def test_accuracy_is_better_when_larger_and_a_percentage() -> None:
    document = {"metric": "top1", "model": {"value": 0.44}, "baselines": [{"name": "left", "value": 0.27}]}
    assert evaluation_lines(document) == [
        "  this model  44.0% of [MASK] tokens right",
        "  left        27.0% of [MASK] tokens right",
    ]


def test_the_outcome_is_for_programs() -> None:
    document = outcome(said(make_job(phase="Failed", restarts=2), "Running", "False", "BadInput", "no text"))
    assert (document["phase"], document["restarts"], document["name"], document["namespace"]) == (
        "Failed",
        2,
        "small",
        "tests",
    )
    assert document["conditions"][0]["message"] == "no text"


def test_following_needs_no_store() -> None:
    """A terminal reads the spool; DuckDB is for whoever asks in SQL."""
    program = "import sys, phalanx.cli._follow; print(*[m for m in ('duckdb', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
