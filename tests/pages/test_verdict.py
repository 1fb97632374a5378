from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from phalanx.job import Condition, Job
from phalanx.pages.rows import History, Step, Training
from phalanx.pages.run_files import RunFiles, parse_evaluation
from phalanx.pages.verdict import Verdict, cause, lead, tiles, verdict
from tests.pages.made import causal_evaluation, causal_job, masked_evaluation, masked_job, plan

TRAINED = History(
    training=Training(steps=300, tokens=4_800_000, loss=1.25, seconds=183, tokens_per_second=26_104.0),
    steps=(Step(300, 1.25, None, None, None, None),),
)


def _files(evaluation: object = None) -> RunFiles:
    return RunFiles(plan(), (), parse_evaluation(evaluation), ())


def _said(job: Job, evaluation: object = None, history: History = TRAINED) -> Verdict:
    return verdict(job, _files(evaluation), history)


def test_a_model_ahead_of_its_strongest_table_says_by_how_much() -> None:
    said = _said(causal_job(), causal_evaluation())
    assert said.tone == "good"
    assert said.headline == "It beats its strongest table by 9.7\u00a0%"
    assert "1.81 bits per byte" in said.sentence
    assert "6-gram" in said.sentence


def test_a_model_behind_its_strongest_table_says_so_in_points() -> None:
    said = _said(masked_job(), masked_evaluation())
    assert said.tone == "neutral"
    assert said.headline == "It stays 5.9 points behind its strongest table"
    assert "44.1\u00a0%" in said.sentence


def test_a_tie_is_no_victory() -> None:
    said = _said(causal_job(), causal_evaluation() | {"model": {"value": 2.0}})
    assert said.tone == "neutral"


def test_the_flag_of_the_evaluator_cannot_turn_the_numbers_around() -> None:
    said = _said(causal_job(), causal_evaluation() | {"model": {"value": 3.0}, "beats_strongest": True})
    assert "behind" in said.headline


def test_the_lead_is_signed_by_what_is_better() -> None:
    causal, masked = parse_evaluation(causal_evaluation()), parse_evaluation(masked_evaluation())
    assert causal is not None
    assert masked is not None
    assert lead(causal) == pytest.approx((2.0 - 1.807) / 2.0)
    assert lead(masked) == pytest.approx((0.382 - 0.441) / 0.441)


def test_no_tables_no_comparison() -> None:
    said = _said(causal_job(), causal_evaluation() | {"baselines": []})
    assert said.headline == "The job is done"


def test_a_failure_gives_its_newest_cause() -> None:
    conditions = [
        Condition(type="Running", status="False", reason="PeerLost", message="early", time_ns=1),
        Condition(type="Evaluated", status="False", reason="EvaluationFailed", message="no checkpoint", time_ns=9),
        Condition(type="Planned", status="True", reason="PlanWritten", message="fine", time_ns=99),
    ]
    job = causal_job(phase="Failed", conditions=[c.model_dump() for c in conditions])
    assert cause(job) == "no checkpoint"
    said = _said(job)
    assert (said.tone, said.headline, said.cause) == ("bad", "The job failed", "no checkpoint")
    assert said.sentence == "It got to step 300 of 300."


def test_a_failure_before_the_first_step_says_that_nothing_was_trained() -> None:
    said = _said(causal_job(phase="Failed"), history=History())
    assert said.sentence == "No step was trained."
    assert said.cause == ""


def test_a_stopped_job_says_how_to_go_on() -> None:
    said = _said(causal_job(phase="Stopped"), history=History())
    assert "phalanx resume" in said.sentence


def test_a_diverged_training_is_not_praised() -> None:
    history = History(training=Training(steps=300, not_finite_at=37))
    assert _said(causal_job(), causal_evaluation(), history).tone == "bad"


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded"])
def test_without_an_evaluation_the_phase_is_all_there_is_to_say(phase: str) -> None:
    assert _said(causal_job(phase=phase)).tone == "neutral"


def test_tiles_show_only_what_is_known(tmp_path: Path) -> None:
    empty = tiles(causal_job(), RunFiles(None, (), None, ()), History())
    assert [(tile.name, tile.value) for tile in empty] == [("workers", "2")]
    names = [tile.name for tile in tiles(causal_job(), _files(causal_evaluation()), TRAINED)]
    assert names == ["bits per byte", "training loss", "tokens per second", "time in steps", "workers"]


def test_the_last_validation_is_told_with_what_is_known_of_it() -> None:
    row = {"step": 300, "split": "held-out", "loss": 2.0, "perplexity": 7.389, "top1": 0.5, "top5": 0.75}
    told = {tile.name: tile for tile in tiles(causal_job(), _files(), replace(TRAINED, validations=(row,)))}
    assert told["held-out loss"].note == "nats per token, perplexity 7.39, step 300"
    assert told["held-out first guesses"].value == "50.0\u00a0%"
    assert told["held-out first guesses"].note == "were right, 75.0\u00a0% among the best five, step 300"
    older = {**row, "perplexity": None, "top1": None, "top5": None}
    told = {tile.name: tile for tile in tiles(causal_job(), _files(), replace(TRAINED, validations=(older,)))}
    assert told["held-out loss"].note == "nats per token, step 300"
    assert "held-out first guesses" not in told
