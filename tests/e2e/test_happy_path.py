"""One job, nobody disturbs it: what a person sees, and what is there afterwards."""

from __future__ import annotations

import json
from pathlib import Path

from phalanx.training.checkpoint import newest_good
from tests.e2e.terminal import Terminals

STEPS = 120


def test_the_last_line_is_the_report_s_path(finished: Terminals) -> None:
    command = finished.commands[0]
    report = Path(command.stdout.splitlines()[-1])
    assert report == finished.home.runs_dir / "default" / "small" / "attempt-1" / "report.html"
    assert "Succeeded" in report.read_text()


def test_it_says_at_its_start_how_long_it_will_take(finished: Terminals) -> None:
    lines = finished.commands[0].stderr.splitlines()
    said = next(number for number, line in enumerate(lines) if f"{STEPS} steps: about " in line)
    running = next(number for number, line in enumerate(lines) if "Running: 2 running" in line)
    assert said < running


def test_the_baselines_stand_beside_the_model(finished: Terminals) -> None:
    said = finished.commands[0].stderr
    assert "this model" in said
    assert "4-gram" in said
    evaluation = json.loads((Path(finished.job().job.status.run_dir) / "evaluation.json").read_text())
    assert f"{evaluation['model']['value']:.3f} bits per byte" in said


def test_the_checkpoint_is_of_the_last_step(finished: Terminals) -> None:
    checkpoint = newest_good(Path(finished.job().job.status.run_dir) / "checkpoints").checkpoint
    assert checkpoint is not None
    assert checkpoint.manifest.step == STEPS


def test_every_step_of_every_rank_is_in_the_store_once(finished: Terminals) -> None:
    rows = finished.sql(
        "SELECT rank, count(*) AS n, count(DISTINCT step) AS steps FROM steps GROUP BY rank ORDER BY rank"
    )
    assert rows == [{"rank": 0, "n": STEPS, "steps": STEPS}, {"rank": 1, "n": STEPS, "steps": STEPS}]
    assert finished.sql("SELECT count(*) AS n FROM losses") == [{"n": 0}]


def test_every_change_of_state_is_an_event(finished: Terminals) -> None:
    rows = finished.sql("SELECT phase FROM states ORDER BY time_ns")
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    assert phases == ["Admitted", "Planned", "Placed", "Running", "Evaluating", "Succeeded"]
    facts = finished.sql("SELECT count(*) AS n FROM host_facts")
    assert facts[0]["n"] > 5
    ends = finished.sql("SELECT rank, exit_kind FROM workers WHERE event = 'exited' ORDER BY rank")
    assert ends == [{"rank": 0, "exit_kind": "done"}, {"rank": 1, "exit_kind": "done"}]


def test_another_terminal_sees_it_as_one_json_document(finished: Terminals) -> None:
    (row,) = finished.json("get", "job", "small")
    assert (row["phase"], row["attempt"], row["generation"], row["restarts"]) == ("Succeeded", 1, 1, 0)
    described = finished.json("describe", "job", "small")
    assert described["status"]["phase"] == "Succeeded"
    assert [member["exit"]["kind"] for member in described["placementStatus"]["members"]] == ["done", "done"]


def test_every_rank_s_output_is_shown_with_its_rank(finished: Terminals) -> None:
    lines = finished.run_to_end("logs", "small").stdout.splitlines()
    assert {line.split("]")[0] for line in lines} == {"[rank 0", "[rank 1"}
    alone = finished.run_to_end("logs", "small", "-f", "--rank", "1").stdout.splitlines()
    assert alone == [line for line in lines if line.startswith("[rank 1]")]
    assert "no output of generation 7" in finished.run_to_end("logs", "small", "--generation", "7", code=2).stderr


def test_a_job_that_succeeded_is_not_resumed(finished: Terminals) -> None:
    command = finished.run_to_end("resume", "small", code=2)
    assert "nothing is left to do" in command.stderr
    assert finished.job().job.status.phase == "Succeeded"
