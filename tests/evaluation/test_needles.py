"""The report of needles, on the haystack of characters: against scikit-learn, published numbers and plain counting."""

import json
import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, log_loss, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from phalanx.evaluation import (
    Columns,
    UnusablePredictions,
    Wish,
    needle_sentences,
    needles_report,
    open_predictions,
    predictions_of,
    ranking_sentences,
    reading,
)
from phalanx.evaluation.calling import AtThreshold, Called
from phalanx.evaluation.needles import choose, precision_at
from phalanx.evaluation.predictions import Predictions
from phalanx.metrics import BadInput, State, rank
from phalanx.metrics.intervals import ConfidenceInterval
from tests.evaluation.haystack import columns, write_csv, write_haystack


@pytest.fixture(scope="module")
def haystack(tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    file = write_haystack(tmp_path_factory.mktemp("haystack") / "characters.parquet")
    return open_predictions([file], Columns(label="is_currency", slice="plane", shown=("name",)))


def test_the_report_is_what_counting_gives(haystack: Predictions) -> None:
    labels, scores = columns()
    report = needles_report(haystack, Wish(recall=0.5))
    assert report.called.needles == labels.sum()
    assert report.roc_auc.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert report.average_precision.value == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert report.average_precision.low < report.average_precision.value < report.average_precision.high
    (tn, fp), (fn, tp) = confusion_matrix(labels, scores >= report.threshold)
    assert report.called == Called("all", tp, fp, fn, tn)
    assert report.called.recall.value >= 0.5
    higher = np.unique(scores[labels & (scores > report.threshold)])
    assert all((scores[labels] >= other).mean() < 0.5 for other in higher)
    planes = {each.name: each for each in report.slices}
    assert sum(each.true_positives for each in planes.values()) == tp
    assert sum(each.straws + each.needles for each in planes.values()) == len(labels)
    assert math.isnan(planes["plane 2"].recall.value), "there is no currency sign"
    assert sum(straws for _, _, straws, _ in report.histogram) == (~labels).sum()
    assert sum(needles for *_, needles in report.histogram) == labels.sum()


def test_the_worst_examples_are_those_with_most_conviction(haystack: Predictions) -> None:
    labels, scores = columns()
    report = needles_report(haystack, Wish(recall=0.5))
    alarms = [each for each in report.worst if not each.is_needle]
    missed = [each for each in report.worst if each.is_needle]
    assert [each.score for each in alarms] == np.sort(scores[~labels & (scores >= report.threshold)])[::-1][
        :10
    ].tolist()
    assert [each.score for each in missed] == np.sort(scores[labels & (scores < report.threshold)])[:10].tolist()
    for each in report.worst:
        assert (labels[each.row], scores[each.row]) == (each.is_needle, each.score)
    assert missed[0].shown == {"name": "BENGALI GANDA MARK"}


def test_two_ranks_give_the_bits_of_one(haystack: Predictions, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = []
    wish = Wish(alerts_per_day=10, volume=100_000)
    two = needles_report(haystack, wish, ranks=2, progress=lambda stage, share: stages.append((stage, share)))
    assert two.to_json() == needles_report(haystack, wish).to_json()
    assert stages == [(stage, share) for stage in ("finding", "ranking", "judging") for share in (0.0, 0.5, 1.0)]


def test_arrays_are_judged_as_files_are(haystack: Predictions) -> None:
    labels, scores = columns()
    names = [f"plane {code >> 16}" for code in range(0x110000) if unicodedata.name(chr(code), "")]
    report = needles_report(predictions_of(labels.tolist(), scores, slices=names), Wish(recall=0.5))
    of_file = needles_report(haystack, Wish(recall=0.5)).to_dict()
    for what in ("called", "slices", "roc_auc", "average_precision", "threshold", "roc_curve", "histogram"):
        assert report.to_dict()[what] == of_file[what]
    assert report.source == ("arrays",)


def test_wishes_choose_the_threshold_that_they_say() -> None:
    curve = rank(lambda: [([1, 0, 1, 0, 0, 1, 0], [7, 6, 5, 4, 3, 2, 1])])
    assert choose(curve, Wish(recall=0.6), 0.5)[0] == 5
    assert choose(curve, Wish(recall=1.0), 0.5)[0] == 2
    assert choose(curve, Wish(threshold=3.3), 0.5)[0] == 3.3
    # At 5 the rates are 2/3 and 1/4: of 1,000 examples, half of them needles, 458 alerts.
    assert choose(curve, Wish(alerts_per_day=459, volume=1000), 0.5)[0] == 5
    assert choose(curve, Wish(alerts_per_day=458, volume=1000), 0.5)[0] == 7
    assert choose(curve, Wish(alerts_per_day=1, volume=1000), 0.5)[0] == math.inf
    assert choose(curve, Wish(costs=(100, 1)), 0.5)[0] == 2
    assert choose(curve, Wish(costs=(1, 100)), 0.5)[0] == 7
    assert choose(curve, Wish(costs=(1, 100)), 0.5)[1].startswith("the cheapest, where a missed needle costs 1")
    assert choose(rank(lambda: [([0, 1], [1, 0])]), Wish(costs=(1, 100)), 0.5)[0] == math.inf
    assert choose(curve, Wish(), 0.5)[0] == 5, "F1 is 4/6 there, 2/4 at 7 and 6/9 at 2"


def test_the_published_example_of_a_base_rate() -> None:
    """The detector of the documentation: recall .9 and a false-positive rate of .008."""

    def exactly(value: float) -> ConfidenceInterval:
        return ConfidenceInterval(value, value, value, 0.95, "")

    assert precision_at(1e-3, exactly(0.9), exactly(0.008)).value == pytest.approx(0.101, abs=5e-4)
    assert precision_at(1e-6, exactly(0.9), exactly(0.008)).value == pytest.approx(0.0001125, abs=5e-7)
    assert math.isnan(precision_at(0.1, exactly(0.0), exactly(0.0)).value)


@given(st.floats(1e-6, 1), st.floats(0, 1), st.floats(1e-6, 1))
def test_precision_at_the_rate_of_the_data_is_that_of_the_data(base: float, recall: float, false: float) -> None:
    found = precision_at(
        base, ConfidenceInterval(recall, recall, recall, 0.95, ""), ConfidenceInterval(false, false, false, 0.95, "")
    )
    positives, alarms = base * recall, (1 - base) * false
    if positives + alarms > 0:
        assert found.value == pytest.approx(positives / (positives + alarms))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_f1_lies_within_its_interval_and_is_as_defined(hits: int, alarms: int, missed: int, left: int) -> None:
    called = Called("", hits, alarms, missed, left)
    if hits + alarms + missed:
        assert called.f1.value == pytest.approx(2 * hits / (2 * hits + alarms + missed))
        low, high = proportion_confint(hits, hits + alarms + missed, method="wilson")
        assert (called.f1.low, called.f1.high) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)), abs=1e-9)
    else:
        assert math.isnan(called.f1.value)
    assert called.accuracy.low <= called.accuracy.value <= called.accuracy.high


def test_alerts_a_day_are_those_of_the_rates_there(haystack: Predictions) -> None:
    report = needles_report(haystack, Wish(recall=0.9, volume=1e6, base_rate=1e-4))
    recall, false = report.called.recall, report.called.false_positive_rate
    for end in ("value", "low", "high"):
        expected = 100 * getattr(recall, end) + 999_900 * getattr(false, end)
        assert getattr(report.alerts_per_day, end) == pytest.approx(expected)
        assert getattr(report.false_alarms_per_day, end) == pytest.approx(999_900 * getattr(false, end))
    assert needles_report(haystack, Wish(threshold=2.0)).alerts_per_day is None


def test_a_threshold_that_was_chosen_here_is_said_to_flatter(haystack: Predictions) -> None:
    chosen = needle_sentences(needles_report(haystack, Wish(recall=0.9)).to_dict())
    given_ = needle_sentences(needles_report(haystack, Wish(threshold=2.0)).to_dict())
    assert any("chosen on these very examples" in each for each in chosen)
    assert not any("chosen on these very examples" in each for each in given_)


def test_calling_nothing_is_undefined_precision_and_not_zero(haystack: Predictions) -> None:
    report = needles_report(haystack, Wish(alerts_per_day=1e-9, volume=1e6))
    assert report.called.alerts == 0
    assert math.isnan(report.called.precision.value)
    document = json.loads(report.to_json())
    assert document["threshold"] is None
    assert document["called"]["precision"]["value"] is None
    assert document["called"]["recall"]["value"] == 0
    assert {row["value"] for row in report.rows() if row["metric"] == "precision"} == {None}


def test_scores_from_0_to_1_are_read_as_chances_too(haystack: Predictions) -> None:
    labels, scores = columns()
    assert needles_report(haystack).chances is None, "scores that are none"
    chances = 1 / (1 + np.exp(2 - scores))
    predictions = predictions_of(labels, chances)
    report = needles_report(predictions)
    assert report.chances is not None
    assert report.chances.brier == pytest.approx(brier_score_loss(labels, chances))
    assert report.chances.log_loss == pytest.approx(log_loss(labels, chances))
    assert report.chances.brier_of_rate == pytest.approx(brier_score_loss(labels, np.full(len(labels), labels.mean())))
    happened, mean = calibration_curve(labels, chances, n_bins=10)
    assert [each.happened.value for each in report.chances.bins] == pytest.approx(happened)
    assert [each.mean for each in report.chances.bins] == pytest.approx(mean)
    off = sum(abs(each.mean - each.happened.value) * each.examples for each in report.chances.bins) / len(labels)
    assert report.chances.expected_error == pytest.approx(off)
    assert needles_report(predictions, ranks=2).to_json() == report.to_json()
    assert any("their Brier score" in each for each in ranking_sentences(report.to_dict()))
    certain = needles_report(predictions_of([1, 0, 0], [0.0, 0.0, 1.0]))
    assert any("2 were what they had no chance to be" in each for each in ranking_sentences(certain.to_dict()))
    assert json.loads(certain.to_json())["chances"]["log_loss"] is None


def test_curves_of_many_needles_are_thinned_where_they_hardly_change() -> None:
    draw = np.random.default_rng(2)
    labels = draw.random(60_000) < 0.2
    scores = draw.normal(size=60_000) + 2 * labels
    report = needles_report(predictions_of(labels, scores), Wish(recall=0.5))
    false, true = map(np.array, zip(*report.roc_curve, strict=True))
    assert len(report.precision_recall_curve) <= 402
    assert len(false) <= 802
    assert np.trapezoid(true, false) == pytest.approx(report.roc_auc.value, abs=1e-3)
    in_tens = np.log10(np.maximum(false, 0.5 / (~labels).sum()))
    assert np.abs(np.diff(in_tens)).max() < 0.31, "the least rates are apart by a factor of two at most"
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)


def test_rows_are_of_the_declared_table(haystack: Predictions) -> None:
    from phalanx.events import TABLES

    names = {column.name for column in TABLES["metrics"].columns}
    rows = list(needles_report(haystack, Wish(base_rate=1e-6)).rows())
    assert all(set(row) == names for row in rows)
    assert {"roc_auc", "average_precision", "precision_at_base_rate", "recall_at_fpr_0.001"} <= {
        row["metric"] for row in rows
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recall": 0.5, "threshold": 1.0}, "by one thing, not by threshold and recall"),
        ({"recall": 0.0}, "recall lies above 0 and up to 1, not 0"),
        ({"recall": math.nan}, "recall lies above 0"),
        ({"base_rate": 2.0}, "base rate lies above 0"),
        ({"volume": -1.0}, "volume is a number above 0"),
        ({"alerts_per_day": 5.0}, "an alert budget needs a volume"),
        ({"costs": (1.0, 0.0)}, "lie above 0, not"),
    ],
)
def test_wishes_that_cannot_be_meant_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(UnusablePredictions, match=words):
        Wish(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1, 0.5], [2, 0.1]], r"a.csv: labels\[1\] is 2, neither 0 nor 1"),
        ([[1, 0.5], [0, "nan"]], r"a.csv: score has no value in 1 rows of a batch, first in row 1 "),
        ([[1, 0.5], [0, "-inf"]], r"a.csv: scores\[1\] is -inf, not a finite number; 1 of 2 do not do"),
        ([[0, 0.5], [0, 0.1]], "a.csv: the needles are missing"),
        ([[1, 0.5], [1, 0.1]], "a.csv: the straws are missing"),
        ([], "a.csv: the needles are missing"),
        ([["spam", 0.5]], r"a.csv: labels holds words: which label is the needle\?\n .*--positive LABEL"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_file(tmp_path: Path, rows: list[list[object]], words: str) -> None:
    file = write_csv(tmp_path / "a.csv", rows, ["label", "score"])
    with pytest.raises((BadInput, UnusablePredictions), match=words):
        needles_report(open_predictions([file], Columns()))


def test_a_threshold_outside_the_scores_and_weights_are_refused(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", [[1, 0.5, 2], [0, 0.1, 1]], ["label", "score", "w"])
    with pytest.raises(
        UnusablePredictions, match=r"the threshold 7 lies outside the scores, which are 0.1 to 0.5: it calls none"
    ):
        needles_report(open_predictions([file], Columns()), Wish(threshold=7))
    with pytest.raises(UnusablePredictions, match="it calls all a needle"):
        needles_report(open_predictions([file], Columns()), Wish(threshold=-7))
    with pytest.raises(UnusablePredictions, match="needles are counted, not weighed"):
        needles_report(open_predictions([file], Columns(weight="w")))


def test_a_bad_row_is_told_with_where_its_batch_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 64)
    rows: list[list[object]] = [[index % 2, 0.5] for index in range(40)]
    file = write_csv(tmp_path / "a.csv", [*rows, [1, "inf"]], ["label", "score"])
    with pytest.raises(BadInput, match=r"scores\[\d\] is inf.*\(in a batch that begins with row \d\d of the file"):
        needles_report(open_predictions([file], Columns()))


def test_the_third_pass_is_a_state(tmp_path: Path) -> None:
    def batch(numbers: list[float], row: int) -> dict[str, np.ndarray]:
        size = len(numbers)
        return {
            "label": np.array([number > 0 for number in numbers]),
            "score": np.array(numbers),
            "slice": np.array(["a" if number > 2 else "b" for number in numbers]),
            "row": np.arange(row, row + size),
            "file": np.zeros(size, int),
            "shown name": np.array([str(number) for number in numbers], object),
        }

    numbers = [1.0, -1.0, 3.0, -2.0, 1.0, 5.0, -7.0]
    whole = AtThreshold(2.0, -7, 7, worst=2).update(batch(numbers, 0))
    one = AtThreshold(2.0, -7, 7, worst=2).update(batch(numbers[:3], 0))
    other = State.from_bytes(AtThreshold(2.0, -7, 7, worst=2).update(batch(numbers[3:], 3)).to_bytes())
    assert other.merge(one) == whole
    assert whole.compute() == (
        Called("", 2, 0, 2, 3),
        (Called("a", 2, 0, 0, 0), Called("b", 0, 0, 2, 3)),
        whole.compute()[2],
    )
    assert [(each.score, each.row) for each in whole.compute()[2]] == [(1.0, 0), (1.0, 4)]
    many = batch([1.0] * 1500, 0) | {"slice": np.arange(1500)}
    with pytest.raises(BadInput, match="more than 1,000 slices"):
        AtThreshold(2.0, -7, 7).update(many)
