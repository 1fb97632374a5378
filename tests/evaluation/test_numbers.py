"""Reports of amounts against scikit-learn and scipy; their intervals against drawing anew; two ranks; wrong inputs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from phalanx.evaluation import (
    Columns,
    Predictions,
    UnusablePredictions,
    number_sentences,
    numbers,
    numbers_report,
    open_predictions,
    predictions_of,
)
from phalanx.evaluation.numbers import Judged, Overview
from phalanx.metrics import BadInput, State
from tests.evaluation.haystack import write_csv

SIZE = 700


def drawn() -> tuple[np.ndarray, np.ndarray, list[str]]:
    draw = np.random.default_rng(5)
    truth = draw.gamma(2.0, 50.0, SIZE)
    return truth, truth + draw.normal(4, 10, SIZE) * (1 + truth / 100), [f"town {i % 3}" for i in range(SIZE)]


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    rows = [[t, p, town] for t, p, town in zip(*(list(map(float, c)) for c in drawn()[:2]), drawn()[2], strict=True)]
    file = write_csv(tmp_path_factory.mktemp("houses") / "houses.csv", rows, ["price", "forecast", "town"])
    return open_predictions([file], Columns(label="price", prediction="forecast", slice="town", shown=("town",)))


def test_the_numbers_are_those_of_scikit_learn_and_scipy(houses: Predictions) -> None:
    truth, called, towns = drawn()
    report = numbers_report(houses)
    found = {name: each.value for name, each in report.numbers.items()}
    assert found == {
        "mae": pytest.approx(sklearn_metrics.mean_absolute_error(truth, called)),
        "rmse": pytest.approx(math.sqrt(sklearn_metrics.mean_squared_error(truth, called))),
        "bias": pytest.approx((called - truth).mean()),
        "r2": pytest.approx(sklearn_metrics.r2_score(truth, called)),
        "pearson": pytest.approx(stats.pearsonr(truth, called).statistic),
        "spearman": pytest.approx(stats.spearmanr(truth, called).statistic),
    }
    assert (report.mean, report.deviation) == pytest.approx((truth.mean(), truth.std()))
    assert (report.numbers["pearson"].low, report.numbers["pearson"].high) == pytest.approx(
        tuple(stats.pearsonr(truth, called).confidence_interval())
    )
    for name, (count, mae) in report.slices.items():
        those = np.array(towns) == name
        assert count == those.sum()
        assert mae.value == pytest.approx(np.abs(truth - called)[those].mean())
    assert sum(each.count for each in report.bins) == SIZE
    assert sum(each.count * each.truth for each in report.bins) == pytest.approx(truth.sum())
    order = np.argsort(-np.abs(truth - called))[:10]
    assert [row for _, _, row, _ in report.worst] == order.tolist()
    assert float(report.worst[0][3]["truth"]) == truth[order[0]]
    assert report.worst[0][3]["town"] == towns[order[0]]


def test_intervals_are_as_wide_as_those_of_drawing_anew(houses: Predictions) -> None:
    truth, called, _ = drawn()
    report = numbers_report(houses)
    draw = np.random.default_rng(1)
    values: dict[str, list[float]] = {name: [] for name in ("mae", "rmse", "bias", "r2")}
    for _ in range(1500):
        chosen = draw.integers(SIZE, size=SIZE)
        errors = called[chosen] - truth[chosen]
        values["mae"].append(np.abs(errors).mean())
        values["rmse"].append(math.sqrt((errors**2).mean()))
        values["bias"].append(errors.mean())
        values["r2"].append(1 - (errors**2).mean() / truth[chosen].var())
    for name, each in values.items():
        low, high = np.percentile(each, [2.5, 97.5])
        assert report.numbers[name].high - report.numbers[name].low == pytest.approx(high - low, rel=0.15), name


def test_two_ranks_give_the_bits_of_one(houses: Predictions) -> None:
    assert numbers_report(houses, ranks=2).to_json() == numbers_report(houses).to_json()


def test_both_passes_are_states(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, called, _ = drawn()
    whole = Overview().update(truth, called)
    part = State.from_bytes(Overview().update(truth[300:], called[300:]).to_bytes())
    assert part.merge(Overview().update(truth[:300], called[:300])).compute() == whole.compute()  # type: ignore[arg-type]

    def batch(start: int, end: int) -> dict[str, np.ndarray]:
        rows = np.arange(start, end)
        return {"label": truth[rows], "prediction": called[rows], "row": rows, "file": np.zeros(len(rows), int)}

    errors, _, _, mean, deviation, _ = whole.compute()
    about = (errors.mean_squared_error, mean, deviation**2, whole.low, whole.high)
    other = State.from_bytes(Judged(*about).update(batch(300, SIZE)).to_bytes())
    assert other.merge(Judged(*about).update(batch(0, 300))) == Judged(*about).update(batch(0, SIZE))  # type: ignore[arg-type]
    monkeypatch.setattr(numbers, "MOST_RANKED", 500)
    many = Overview().update(truth[:400], called[:400])
    assert many.compute()[2] == pytest.approx(stats.spearmanr(truth[:400], called[:400]).statistic)
    assert math.isnan(many.merge(Overview().update(truth[400:], called[400:])).compute()[2]), "too many to be ranked"


def test_it_says_what_is_off(houses: Predictions) -> None:
    off, leaning, mean, line = number_sentences(numbers_report(houses).to_dict())
    assert off.startswith("Of 700 forecasts the mean absolute error is ")
    assert "too high on the whole" in leaning
    assert "R2, the share of the squares that the forecasts save, is 0." in mean
    assert "Spearman 0." in line
    worse = number_sentences(numbers_report(predictions_of([1.0, 2.5, 3.0], prediction=[9.0, -9.0, 9.0])).to_dict())
    assert "cannot be told" in worse[1]
    assert "Forecasting the mean would be better." in worse[2]


def test_truths_that_are_all_the_same_leave_r2_undefined() -> None:
    report = numbers_report(predictions_of([2.5] * 9, prediction=np.arange(9.0)))
    document = json.loads(report.to_json())
    assert document["numbers"]["r2"]["value"] is None
    assert "as all are the same, R2 is undefined (0/0)" in number_sentences(document)[2]
    assert {row["value"] for row in report.rows() if row["metric"] in ("r2", "pearson", "spearman")} == {None}
    once = numbers_report(predictions_of([2.5], prediction=[2.0]))
    assert once.numbers["mae"].value == 0.5
    assert number_sentences(once.to_dict())


def test_rows_are_of_the_declared_table(houses: Predictions) -> None:
    from phalanx.events import TABLES

    names = {column.name for column in TABLES["metrics"].columns}
    rows = list(numbers_report(houses).rows())
    assert all(set(row) == names for row in rows)
    assert {row["slice"] for row in rows} == {"all", "town 0", "town 1", "town 2"}


def test_what_is_no_amount_is_refused(tmp_path: Path) -> None:
    def report(rows: list[list[object]], **columns: str) -> None:
        file = write_csv(tmp_path / "a.csv", rows, ["label", "prediction", "w"])
        numbers_report(open_predictions([file], Columns(**columns)))

    with pytest.raises(BadInput, match=r"a.csv: label holds words, not numbers"):
        report([["a", 1.0, 1]])
    with pytest.raises(BadInput, match=r"a.csv: prediction\[1\] is inf"):
        report([[1.5, 1.0, 1], [1.5, "inf", 1]])
    with pytest.raises(UnusablePredictions, match="amounts are counted, not weighed"):
        report([[1.5, 1.0, 1]], weight="w")
    with pytest.raises(BadInput, match=r"a.csv: there are no examples"):
        report([])
    with pytest.raises(UnusablePredictions, match="nothing is forecast"):
        numbers_report(predictions_of([1.5], score=[1.0]))


def test_labels_are_amounts_when_some_are_not_whole() -> None:
    assert predictions_of([1.0, 2.5], prediction=[1, 2]).are_amounts()
    assert not predictions_of([1.0, 2.0], prediction=[1, 2]).are_amounts()
    assert not predictions_of([1, 2], prediction=[1, 2]).are_amounts()
    assert not predictions_of(["a", "b"], prediction=["a", "b"]).are_amounts()
