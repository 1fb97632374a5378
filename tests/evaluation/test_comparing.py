"""Comparisons of files of predictions, against the tests on whole arrays; and of evaluated checkpoints."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, ttest_rel

from phalanx.evaluation import (
    Columns,
    Predictions,
    UnusablePredictions,
    compare_evaluations,
    compare_predictions,
    open_predictions,
    reading,
)
from phalanx.metrics import BadInput, delong_test, mcnemar_test
from tests.evaluation.haystack import write_csv

HEADS = ["name", "label", "score", "prediction"]


def drawn(seed: int, skill: float) -> list[list[object]]:
    truth = np.random.default_rng(0).random(600) < 0.2
    scores = np.random.default_rng(seed).standard_normal(600) + skill * truth
    return [[f"n{i}", int(a), float(s), int(s > 1)] for i, (a, s) in enumerate(zip(truth, scores, strict=True))]


def opened(directory: Path, name: str, rows: list[list[object]], **columns: Any) -> Predictions:
    return open_predictions([write_csv(directory / f"{name}.csv", rows, HEADS)], Columns(**columns))


def test_files_are_judged_as_their_arrays_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1000)  # so that both have many batches, and unlike ones
    one, other = drawn(1, 2.0), drawn(2, 0.5)
    judged = compare_predictions(
        opened(tmp_path, "good", one, id="name"), opened(tmp_path, "poor", other, id="name"), positive=1
    )
    truth = [row[1] for row in one]
    by_roc, by_precision, by_accuracy = judged.comparisons
    assert by_roc == delong_test(truth, [row[2] for row in one], [row[2] for row in other], 1)
    assert by_accuracy == mcnemar_test(truth, [row[3] for row in one], [row[3] for row in other])
    assert by_precision.better == by_roc.better == "a"
    assert judged.sentences()[0].startswith("good.csv is better: +")
    document = judged.to_dict()
    assert document["comparisons"][0]["better"] == "a"
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_forecasts_are_judged_by_paired_differences_of_their_errors(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    truth = draw.gamma(2, 50, 400)
    good, poor = truth + draw.normal(0, 10, 400), truth + draw.normal(0, 13, 400)
    files = [
        write_csv(tmp_path / name, np.column_stack([truth, called]).tolist(), ["label", "prediction"])
        for name, called in (("good.csv", good), ("poor.csv", poor))
    ]
    a, b = (open_predictions([file], Columns()) for file in files)
    (judged,) = compare_predictions(a, b).comparisons
    off_good, off_poor = np.abs(good - truth), np.abs(poor - truth)
    assert (judged.a, judged.b) == pytest.approx((off_good.mean(), off_poor.mean()))
    assert judged.p_value == pytest.approx(ttest_rel(off_good, off_poor).pvalue, rel=0.1)
    expected = ttest_rel(off_good, off_poor).confidence_interval()
    assert (judged.low, judged.high) == pytest.approx((expected.low, expected.high), rel=0.02)
    assert judged.better == "a"
    assert compare_predictions(a, a).comparisons[0].p_value == 1, "nothing differs"
    other = write_csv(tmp_path / "other.csv", [[truth[0], 1]], ["label", "prediction"])
    with pytest.raises(UnusablePredictions, match="has more than the 1 rows"):
        compare_predictions(a, open_predictions([other], Columns()))
    whole = [[i, i + 1] for i in range(9)]
    ages = open_predictions([write_csv(tmp_path / "ages.csv", whole, ["label", "prediction"])], Columns())
    assert compare_predictions(ages, ages, amounts=True).comparisons[0].metric == "mean absolute error"


def test_scores_of_several_classes_are_left_out_with_the_reason(tmp_path: Path) -> None:
    rows: list[list[object]] = [[f"n{i}", "abc"[i % 3], 0.5, "abc"[i % 2]] for i in range(30)]
    judged = compare_predictions(opened(tmp_path, "a", rows), opened(tmp_path, "b", rows))
    assert [each.metric for each in judged.comparisons] == ["accuracy"]
    assert "no label is named as the needle" in judged.left_out[0]
    named = compare_predictions(opened(tmp_path, "a", rows), opened(tmp_path, "b", rows), positive="a")
    assert [each.metric for each in named.comparisons] == ["ROC-AUC", "average precision", "accuracy"]


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    judged = compare_predictions(opened(tmp_path, "a", drawn(1, 2.0)), opened(tmp_path / "old", "a", drawn(2, 0.5)))
    assert (judged.a, judged.b) == (str(tmp_path / "a.csv"), str(tmp_path / "old" / "a.csv"))


def test_bad_input_is_told_with_both_files(tmp_path: Path) -> None:
    rows = drawn(1, 1.0)
    bad = [*rows[:-1], [*rows[-1][:2], math.inf, 1]]
    with pytest.raises(BadInput, match=r"a\.csv and .*b\.csv: .*inf, not a finite number"):
        compare_predictions(opened(tmp_path, "a", rows), opened(tmp_path, "b", bad))


def test_too_many_examples_to_draw_anew_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phalanx.evaluation.comparing.DRAWN_EXAMPLES", 1000)
    judged = compare_predictions(opened(tmp_path, "a", drawn(1, 2.0)), opened(tmp_path, "b", drawn(2, 0.5)))
    assert [each.metric for each in judged.comparisons] == ["ROC-AUC", "accuracy"]
    assert judged.left_out == ("average precision: 600 examples are too many to draw anew 200 times",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], r"a.csv: it has more than the 599 rows of"),
        (lambda rows: [*rows, rows[0]], r"b.csv: it has more than the 600 rows of"),
        (lambda rows: [[a, 1 - int(b), c, d] for a, b, c, d in rows], r"row 0 \(counted from 0\) has the label"),
    ],
)
def test_other_rows_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    a, b = opened(tmp_path, "a", drawn(1, 1.0)), opened(tmp_path, "b", change(drawn(2, 1.0)))
    with pytest.raises(UnusablePredictions, match=words):
        compare_predictions(a, b)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], r"b.csv: the id 'n599' of .*a.csv is not there"),
        (lambda rows: [*rows, ["new", 1, 0.5, 1]], r"a.csv: the id 'new' of .*b.csv is not there"),
        (lambda rows: [*rows, rows[0]], r"b.csv: the id 'n0' occurs twice"),
        (lambda rows: [[a, 1 - int(b), c, d] for a, b, c, d in rows], "the example 'n0' has the label"),
        (lambda rows: [[i, *rest] for i, (_, *rest) in enumerate(rows)], "ids are words in one of .*a.csv and .*b.csv"),
    ],
)
def test_other_names_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    a, b = opened(tmp_path, "a", drawn(1, 1.0), id="name"), opened(tmp_path, "b", change(drawn(2, 1.0)), id="name")
    with pytest.raises(UnusablePredictions, match=words):
        compare_predictions(a, b)
    if "twice" in words:
        with pytest.raises(UnusablePredictions, match=words):
            compare_predictions(b, a)


def test_by_their_names_examples_may_stand_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1000)
    one, other = drawn(1, 2.0), drawn(2, 0.5)
    expected = compare_predictions(opened(tmp_path, "a", one), opened(tmp_path, "b", other)).comparisons
    mixed = [other[index] for index in np.random.default_rng(3).permutation(len(other))]
    a, b = opened(tmp_path, "a", one, id="name"), opened(tmp_path, "b", mixed, id="name")
    assert compare_predictions(a, b).comparisons == expected


def test_without_a_column_in_common_there_is_nothing_to_compare(tmp_path: Path) -> None:
    a = open_predictions([write_csv(tmp_path / "a.csv", [[1, 0.5]], ["label", "score"])], Columns())
    b = open_predictions([write_csv(tmp_path / "b.csv", [[1, 1]], ["label", "prediction"])], Columns())
    with pytest.raises(UnusablePredictions, match="have neither scores nor predictions both"):
        compare_predictions(a, b)


def evaluation(directory: Path, value: float, error: float | None, **changes: Any) -> Path:
    directory.mkdir()
    document = {
        "metric": "bits_per_byte",
        "objective": "causal-lm",
        "model": {"value": value, "standard_error": error},
        "split": {"bytes": 1000},
        "checkpoint": {"step": 10},
    }
    (directory / "evaluation.json").write_text(json.dumps(document | changes))
    return directory


def test_runs_are_judged_by_both_standard_errors(tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "a", 2.0, 0.03), evaluation(tmp_path / "b", 2.2, 0.04)
    (judged,) = compare_evaluations(a, b / "evaluation.json").comparisons
    assert judged.difference == pytest.approx(-0.2)
    assert judged.p_value == pytest.approx(2 * norm.sf(0.2 / 0.05))
    assert (judged.low, judged.high) == pytest.approx(norm.interval(0.95, -0.2, 0.05))
    assert judged.better == "a", "fewer bits are better"
    (unknown,) = compare_evaluations(a, evaluation(tmp_path / "c", 2.2, None)).comparisons
    assert math.isnan(unknown.p_value)
    assert unknown.better is None


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    a = evaluation(tmp_path / "a", 2.0, 0.03)
    with pytest.raises(UnusablePredictions, match=r"was judged by bits_per_byte, .* by top1"):
        compare_evaluations(a, evaluation(tmp_path / "b", 0.2, 0.01, metric="top1"))
    with pytest.raises(UnusablePredictions, match="there is no evaluation"):
        compare_evaluations(a, tmp_path)
    broken = evaluation(tmp_path / "c", 2.0, 0.1, model={})
    with pytest.raises(UnusablePredictions, match="is no evaluation of a checkpoint"):
        compare_evaluations(a, broken)
    other = compare_evaluations(a, evaluation(tmp_path / "d", 2.0, 0.1, split={"bytes": 7}))
    assert "not judged on the same text" in other.left_out[0]
