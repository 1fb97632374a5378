"""Reports of classes against scikit-learn; two ranks and slices."""

import json
import random
from pathlib import Path

import pytest
from sklearn import metrics as sklearn_metrics

from phalanx.evaluation import Columns, UnusablePredictions, classes_report, open_predictions
from tests.evaluation.haystack import write_csv

HEADS = ["label", "prediction", "language", "w"]


def rows() -> list[list[object]]:
    draw = random.Random(3)
    found: list[list[object]] = []
    for _ in range(500):
        truth = draw.choice("abc")
        called = truth if draw.random() < 0.8 else draw.choice("abc")
        found.append([truth, called, draw.choice(["de", "en"]), draw.choice([1, 2.5])])
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("classes") / "classes.csv", rows(), HEADS)


def test_the_document_is_what_scikit_learn_gives(file: Path) -> None:
    document = classes_report(open_predictions([file], Columns(slice="language"))).to_dict()
    truth, called, languages, _ = map(list, zip(*rows(), strict=True))
    assert document["matrix"] == sklearn_metrics.confusion_matrix(truth, called).tolist()
    assert document["axes"] == {"rows": "truth", "columns": "called"}
    assert document["accuracy"]["value"] == pytest.approx(sklearn_metrics.accuracy_score(truth, called))
    assert document["accuracy"]["low"] < document["accuracy"]["value"] < document["accuracy"]["high"]
    assert document["mcc"] == pytest.approx(sklearn_metrics.matthews_corrcoef(truth, called))
    for average in ("micro", "macro", "weighted"):
        assert document[average]["f1"] == pytest.approx(sklearn_metrics.f1_score(truth, called, average=average))
    precision = sklearn_metrics.precision_score(truth, called, average=None)
    assert [each["precision"] for each in document["classes"]] == pytest.approx(precision)
    for each in document["slices"]:
        pairs = [(a, b) for a, b, language in zip(truth, called, languages, strict=True) if language == each["name"]]
        assert each["accuracy"]["value"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))


def test_weights_count_and_leave_no_interval(file: Path) -> None:
    report = classes_report(open_predictions([file], Columns(weight="w")))
    truth, called, _, weights = map(list, zip(*rows(), strict=True))
    expected = sklearn_metrics.accuracy_score(truth, called, sample_weight=weights)
    document = json.loads(report.to_json())
    assert document["accuracy"]["value"] == pytest.approx(expected)
    assert document["accuracy"]["low"] is None


def test_two_ranks_give_the_same_document(file: Path) -> None:
    predictions = open_predictions([file, file], Columns(slice="language"))
    assert classes_report(predictions, ranks=2).to_json() == classes_report(predictions).to_json()


def test_it_says_what_was_mistaken_for_what(file: Path) -> None:
    whole, each, mistaken = classes_report(open_predictions([file], Columns())).sentences()
    truth, called, *_ = map(list, zip(*rows(), strict=True))
    most = max("abc", key=truth.count)
    assert f"Calling every one {most} would be right for" in whole[1]
    assert each[0].startswith(f"Of {truth.count('a')} a, ")
    pairs = [(a, b) for a, b in zip(truth, called, strict=True) if a != b]
    first = max(pairs, key=pairs.count)
    assert mistaken[0].startswith(f"{pairs.count(first)} ")
    assert len(mistaken) == len(set(pairs))


def test_the_worst_are_called_wrongly_with_most_conviction(file: Path) -> None:
    wrong = [(i, row) for i, row in enumerate(rows()) if row[0] != row[1]]
    report = classes_report(open_predictions([file], Columns(shown=("language",))))
    assert [row for _, _, row, _ in report.worst] == [i for i, _ in wrong[:10]]
    assert report.worst[0][3] == {"truth": wrong[0][1][0], "called": wrong[0][1][1], "language": wrong[0][1][2]}
    assert report.to_dict()["worst"][0]["score"] is None
    predictions = open_predictions([file], Columns(score="w"))
    sure = [(i, row) for i, row in wrong if row[3] == 2.5]
    scored = classes_report(predictions)
    assert [(size, row) for size, _, row, _ in scored.worst] == [(2.5, i) for i, _ in sure[:10]]
    assert classes_report(predictions, ranks=2).to_json() == scored.to_json()


def test_mixed_labels_are_refused(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", [["a", 1], ["b", 2]], ["label", "prediction"])
    with pytest.raises(ValueError, match=r"different kinds of labels|one is words"):
        classes_report(open_predictions([file], Columns()))
    with pytest.raises(UnusablePredictions, match="there are no examples"):
        classes_report(open_predictions([write_csv(tmp_path / "c.csv", [], HEADS)], Columns()))
    with pytest.raises(UnusablePredictions, match="no column says what was predicted"):
        open_predictions([write_csv(tmp_path / "b.csv", [["a"]], ["label"])], Columns())
