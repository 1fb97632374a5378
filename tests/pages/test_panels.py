from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from phalanx.pages.panels import loss_chart, memory_bars, score_bars, small_charts, time_bars
from phalanx.pages.rows import History, RankTime, read_history
from phalanx.pages.run_files import parse_evaluation
from tests.pages.engine import open_rows
from tests.pages.made import (
    MIB,
    Clock,
    causal_evaluation,
    causal_job,
    masked_evaluation,
    plan,
    train,
    whole_run,
)


@pytest.fixture
def history(tmp_path: Path, clock: Clock) -> History:
    run = whole_run(tmp_path, clock, causal_job(), causal_evaluation())
    return read_history(run.rows, run.job.metadata.uid, 1)


def test_the_loss_has_a_curve_for_each_split_and_a_mark_for_the_restart(history: History) -> None:
    picture = loss_chart(history, 300)
    assert picture is not None
    assert [line.name for line in picture.lines] == ["training", "training, mean of 13 steps", "held-out"]
    assert [(mark.x, mark.label) for mark in picture.marks] == [(101, "generation 2 goes on")]
    assert len(picture.lines[2].points) == 6
    assert picture.x_range == (1, 300)


def test_a_short_run_is_not_smoothed(tmp_path: Path, clock: Clock) -> None:
    job = causal_job(steps=20)
    train(tmp_path, job, clock, 1, range(1, 8))
    picture = loss_chart(read_history(open_rows(tmp_path), job.metadata.uid, 1), 20)
    assert picture is not None
    assert [line.name for line in picture.lines] == ["training"]
    assert picture.x_range == (1, 20)  # the part that was not reached is left empty


def test_nothing_trained_nothing_drawn() -> None:
    empty = History()
    assert loss_chart(empty, 300) is None
    assert small_charts(empty, 300) == []
    assert time_bars(empty) is None
    assert memory_bars(empty, None) is None


def test_speed_norm_and_rate_have_their_own_charts(history: History) -> None:
    titles = [picture.title for picture in small_charts(history, 300)]
    assert titles == ["Right guesses", "Throughput", "Gradient norm", "Learning rate"]


def test_right_guesses_are_drawn_in_percent(history: History) -> None:
    best, five = small_charts(history, 300)[0].lines
    assert (best.name, five.name) == ("held-out, the best guess", "held-out, one of the best five")
    assert best.points == tuple((row["step"], 100 * row["top1"]) for row in history.validations)
    assert all(y2 - y1 == pytest.approx(25) for (_, y1), (_, y2) in zip(best.points, five.points, strict=True))


def test_a_run_from_before_guesses_were_counted_has_no_chart_of_them(history: History) -> None:
    without = tuple({**row, "top1": None, "top5": None} for row in history.validations)
    titles = [picture.title for picture in small_charts(replace(history, validations=without), 300)]
    assert titles == ["Throughput", "Gradient norm", "Learning rate"]


def test_a_rank_that_waits_shows_more_communication(history: History) -> None:
    bars = time_bars(history)
    assert bars is not None
    waits = [{p.name: p.width for p in bar.pieces}["communication"] for bar in bars.bars]
    assert waits[1] > 3 * waits[0]
    assert all(sum(p.width for p in bar.pieces) == pytest.approx(100, abs=1.0) for bar in bars.bars)
    assert "Most of a step is backward" in bars.notes[0]


def test_of_many_ranks_the_slowest_are_shown() -> None:
    phases = dict.fromkeys(("data", "forward", "backward", "communication", "optimizer"), 0.1)
    ranks = tuple(RankTime(rank, 10, 0.5 + rank / 100, phases) for rank in range(64))
    bars = time_bars(History(ranks=ranks))
    assert bars is not None
    assert [bar.label for bar in bars.bars] == [f"rank {rank}" for rank in range(48, 64)]
    assert bars.notes[0] == "The 16 slowest of 64 ranks."


def test_memory_sets_predicted_beside_measured(history: History) -> None:
    bars = memory_bars(history, plan())
    assert bars is not None
    assert [bar.label for bar in bars.bars] == ["predicted", "rank 0", "rank 1"]
    assert bars.bars[0].value == "114 MiB"
    assert bars.bars[1].value.startswith("107 MiB (−6")
    assert bars.bars[2].value.startswith("116 MiB (+2")
    assert bars.notes[0] == "The prediction is off by at most 6\u00a0%."


def test_a_prediction_alone_and_a_measurement_alone_are_shown(history: History) -> None:
    alone = memory_bars(History(), plan())
    assert alone is not None
    assert "No worker reported what it took." in alone.notes
    measured = memory_bars(history, None)
    assert measured is not None
    assert [bar.label for bar in measured.bars] == ["rank 0", "rank 1"]


def test_a_prediction_in_the_store_is_used_when_the_plan_is_gone() -> None:
    rows = tuple({"rank": -1, "category": name, "bytes": 10 * MIB} for name in ("parameters", "activations", "total"))
    bars = memory_bars(History(memory=rows), None)
    assert bars is not None
    assert bars.bars[0].value == "20.0 MiB"


@pytest.mark.parametrize(
    ("document", "order"),
    [
        (causal_evaluation(), ["this model", "6-gram", "4-gram", "most-frequent"]),
        (masked_evaluation(), ["both", "this model", "left", "most-frequent"]),
    ],
)
def test_scores_stand_best_first_with_the_model_among_them(document: object, order: list[str]) -> None:
    evaluation = parse_evaluation(document)
    assert evaluation is not None
    bars = score_bars(evaluation)
    assert bars is not None
    assert [bar.label for bar in bars.bars] == order
    assert [bar.label for bar in bars.bars if bar.strong] == ["this model"]
