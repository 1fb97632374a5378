from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from phalanx.events import list_files, read_rows
from phalanx.foundation import PhalanxError
from phalanx.pages.rows import POINTS, quote, read_history
from tests.pages.engine import open_rows
from tests.pages.made import HOSTILE, Clock, causal_evaluation, causal_job, emitter, train, whole_run


def test_repeated_steps_count_once_and_the_newest_generation_is_believed(tmp_path: Path, clock: Clock) -> None:
    job, spool = causal_job(), tmp_path / "spool"
    train(spool, job, clock, 1, range(1, 144), loss=lambda step: 9.0)
    train(spool, job, clock, 2, range(101, 301), loss=lambda step: 1.0)
    history = read_history(open_rows(spool), job.metadata.uid, 1)
    assert history.training.steps == 300
    assert history.training.tokens == 300 * 2 * 8_000
    assert [step.loss for step in history.steps] == [9.0] * 100 + [1.0] * 200
    assert [(row["generation"], row["first_step"]) for row in history.generations] == [(1, 1), (2, 101)]


def test_totals_equal_those_counted_by_hand_from_the_spool(tmp_path: Path, clock: Clock) -> None:
    job, spool = causal_job(), tmp_path / "spool"
    train(spool, job, clock, 1, range(1, 51))
    rows = [row.fields for file in list_files(spool) for row in read_rows(file.path) if row.table == "steps"]
    history = read_history(open_rows(spool), job.metadata.uid, 1)
    assert history.training.tokens == sum(row["tokens"] for row in rows)
    assert history.training.seconds == pytest.approx(sum(row["step_s"] for row in rows) / 2)
    assert history.training.loss == next(row["loss"] for row in rows if row["step"] == 50)
    for rank in history.ranks:
        named = sum(rank.phases.values())
        assert rank.step_seconds == pytest.approx(named + rank.other)
    assert [rank.rank for rank in history.ranks] == [0, 1]


def test_another_job_or_attempt_is_not_mixed_in(tmp_path: Path, clock: Clock) -> None:
    job, spool = causal_job(), tmp_path / "spool"
    other = job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": "other"})})
    again = job.model_copy(update={"status": job.status.model_copy(update={"attempt": 2})})
    train(spool, job, clock, 1, range(1, 6))
    train(spool, other, clock, 1, range(1, 40))
    train(spool, again, clock, 1, range(1, 9))
    rows = open_rows(spool)
    assert read_history(rows, job.metadata.uid, 1).training.steps == 5
    assert read_history(rows, job.metadata.uid, 2).training.steps == 8
    assert read_history(rows, "nobody", 1).training.steps == 0


def test_a_uid_that_is_sql_stays_a_text(tmp_path: Path, clock: Clock) -> None:
    evil = "' OR 1=1; DROP TABLE steps; --"
    assert quote(evil) == "''' OR 1=1; DROP TABLE steps; --'"
    job, spool = causal_job(), tmp_path / "spool"
    train(spool, job, clock, 1, range(1, 4))
    rows = open_rows(spool)
    for uid in (evil, HOSTILE, "'", "\\'", "\0"):
        history = read_history(rows, uid, 1)
        assert history.training.steps == 0
        assert history.unreadable == ()


def test_a_long_run_is_thinned_and_keeps_its_ends(tmp_path: Path, clock: Clock) -> None:
    job, spool = causal_job(steps=5000), tmp_path / "spool"
    train(spool, job, clock, 1, range(1, 5001), ranks=1, loss=float)
    history = read_history(open_rows(spool), job.metadata.uid, 1)
    assert len(history.steps) <= POINTS
    assert history.steps[-1].step == 5000
    assert sum(step.loss for step in history.steps) / len(history.steps) == pytest.approx(2500, rel=0.01)
    assert history.training.loss == 5000


def test_a_loss_that_is_no_number_is_found_at_its_first_step(tmp_path: Path, clock: Clock) -> None:
    job, spool = causal_job(), tmp_path / "spool"
    train(spool, job, clock, 1, range(1, 60), loss=lambda step: math.nan if step >= 37 else 2.0)
    assert read_history(open_rows(spool), job.metadata.uid, 1).training.not_finite_at == 37


def test_every_table_that_the_page_shows_is_read(tmp_path: Path, clock: Clock) -> None:
    run = whole_run(tmp_path, clock, causal_job(), causal_evaluation())
    history = read_history(run.rows, run.job.metadata.uid, 1)
    assert len(history.workers) == 8
    assert {row["category"] for row in history.memory} == {"baseline", "measured_peak"}
    assert [row["step"] for row in history.checkpoints] == [100, 200, 300]
    assert [row["step"] for row in history.validations] == [50, 100, 150, 200, 250, 300]
    for row in history.validations:
        assert row["perplexity"] == math.exp(row["loss"])
        assert row["top5"] - row["top1"] == pytest.approx(0.25)
    assert {row["fact"] for row in history.host_facts} == {"cores", "kernel", "memory", "processor"}
    assert history.states
    assert not history.unreadable


def test_lost_and_dropped_rows_of_the_job_are_counted(tmp_path: Path, clock: Clock) -> None:
    job, spool = causal_job(), tmp_path / "spool"
    sink = emitter(spool, job, "worker", 1, 0)
    other = emitter(spool, job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": "x"})}), "worker")
    sink.dropped = 7
    sink.close()
    collector = emitter(
        spool, causal_job().model_copy(update={"metadata": job.metadata.model_copy(update={"uid": ""})}), "c"
    )
    for source in (sink.source, other.source):
        row = {"lost_source": source, "first_seq": 3, "last_seq": 5, "rows": 3, "reason": "gap"}
        collector.emit("losses", row)
    history = read_history(open_rows(spool), job.metadata.uid, 1)
    assert history.dropped == 7
    assert [row["lost_source"] for row in history.losses] == [sink.source]


def test_a_store_that_cannot_be_read_is_said_once() -> None:
    def rows(sql: str) -> Sequence[dict[str, Any]]:
        raise PhalanxError("the manifest is damaged")

    history = read_history(rows, "uid", 1)
    assert history.unreadable == ("the manifest is damaged",)
    assert history.steps == ()
