"""`phalanx evaluate` of predictions, and `phalanx compare`: words, page, rows of the store, JSON, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phalanx.cli.main import main
from phalanx.foundation import Home
from phalanx.telemetry import Reader
from tests.evaluation.haystack import columns, write_csv, write_haystack

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def haystack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_haystack(tmp_path_factory.mktemp("haystack") / "characters.csv")


def run(home: Path, *arguments: str | Path) -> int:
    return main([*map(str, arguments), "--home", str(home)])


def test_a_haystack_is_judged_in_words_on_a_page_and_in_the_store(
    haystack: Path, tmp_path: Path, capsys: Captured
) -> None:
    page = tmp_path / "page.html"
    options = ["--label", "is_currency", "--recall", "0.9", "--volume", "100000", "--base-rate", "1e-6", "--out", page]
    assert (
        run(tmp_path / "home", "evaluate", "--needles", haystack, "--slice", "plane", "--show", "name", *options) == 0
    )
    shown = capsys.readouterr()
    labels, scores = columns()
    threshold = max(each for each in set(scores[labels]) if (scores[labels] >= each).mean() >= 0.9)
    found = int((scores[labels] >= threshold).sum())
    words = " ".join(shown.out.split())
    share = f"recall (sensitivity) {found / 63:.3f} ("
    assert f"Of {labels.sum()} needles {found} were found and {63 - found} missed: {share}" in words
    assert f"Of {(~labels).sum():,} straws " in words
    assert "Where one in 1,000,000 is a needle, the same detector has a precision of 0.000" in words
    assert "look at precision first" in words
    assert "plane 2 undefined (0/0)" in words
    assert "name: BENGALI GANDA MARK" in shown.out
    assert f"Page: {page}" in shown.out
    assert "... finding the needles\n... ranking all scores\n... judging each example\n" in shown.err
    text = page.read_text()
    assert "<script>" in text
    assert "BENGALI GANDA MARK" in text
    rows = Reader(Home.find(tmp_path / "home").store_dir).rows(
        "SELECT value, low, high FROM metrics WHERE metric = 'recall' AND slice = 'all'"
    )
    assert rows[0]["value"] == pytest.approx(found / 63)
    assert rows[0]["low"] < found / 63 < rows[0]["high"]


def test_json_is_the_document_and_nothing_else(haystack: Path, tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "page.html"
    assert run(tmp_path / "home", "evaluate", haystack, "--label", "is_currency", "--json", "--out", page) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (shown.err, document["kind"], document["page"]) == ("", "needles", str(page))
    assert document["chosen_by"].startswith("the one with the highest F1")


def test_classes_are_counted_by_slice_and_by_ranks(tmp_path: Path, capsys: Captured) -> None:
    rows: list[list[object]] = [["spam", "spam", "de"], ["ham", "spam", "en"], ["ham", "ham", "en"]] * 5
    file = write_csv(tmp_path / "mail.csv", rows, ["label", "prediction", "language"])
    assert run(tmp_path / "home", "evaluate", file, "--slice", "language") == 0
    shown = capsys.readouterr().out
    assert "5 ham were called spam." in shown
    assert "accuracy by slice" in shown
    assert (tmp_path / "mail.evaluation.html").exists()
    assert run(tmp_path / "home", "evaluate", file, "--ranks", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["matrix"] == [[5, 5], [0, 5]]


def test_amounts_are_told_from_classes_and_may_be_said(tmp_path: Path, capsys: Captured) -> None:
    rows: list[list[object]] = [[i / 4, i / 4 + 1, f"town {i % 2}"] for i in range(40)]
    file = write_csv(tmp_path / "prices.csv", rows, ["label", "prediction", "town"])
    assert run(tmp_path / "home", "evaluate", file, "--slice", "town") == 0
    shown = capsys.readouterr().out
    assert "mae 1.000 (1.000 to 1.000)" in " ".join(shown.split())
    assert "They are too high on the whole: the mean error is 1.000" in " ".join(shown.split())
    assert "mae by slice" in shown
    assert "forecasts that are furthest off\n           1  row 0         truth: 0.0; forecast: 1.0\n" in shown
    page = (tmp_path / "prices.evaluation.html").read_text()
    assert "Are forecasts right on average?" in page
    stored = Reader(Home.find(tmp_path / "home").store_dir).rows("SELECT metric FROM metrics WHERE slice = 'all'")
    assert {row["metric"] for row in stored} == {"mae", "rmse", "bias", "r2", "pearson", "spearman"}
    whole = write_csv(tmp_path / "ages.csv", [[i, i + i % 3] for i in range(40)], ["label", "prediction"])
    assert run(tmp_path / "home", "evaluate", whole, "--numbers", "--json", "--ranks", "2") == 0
    assert json.loads(capsys.readouterr().out)["numbers"]["mae"]["value"] == pytest.approx(39 / 40)
    assert run(tmp_path / "home", "evaluate", whole, "--numbers", "--recall", "0.5") == 2
    assert "--recall: there are amounts here" in capsys.readouterr().err


def test_rows_of_the_store_are_judged_too(
    haystack: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    run(home, "evaluate", haystack, "--label", "is_currency", "--slice", "plane", "--out", tmp_path / "page.html")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    sql = "SELECT metric = 'recall' AS label, coalesce(value, 0) AS score, slice FROM metrics"
    assert run(home, "evaluate", "--sql", sql, "--slice", "slice", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["source"] == [sql]
    assert document["called"]["true_positives"] + document["called"]["false_negatives"] == 6
    assert (tmp_path / "rows.evaluation.html").exists()
    assert run(home, "evaluate", "--sql", "SELECT 1 AS label WHERE false") == 2
    assert "gives no rows" in capsys.readouterr().err
    columns_ = ["--label", "slice", "--prediction", "metric", "--json"]
    assert run(home, "evaluate", "--table", "metrics", *columns_) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["source"] == ['SELECT * FROM "metrics"']
    assert {"all", "recall", "plane 0"} <= set(document["labels"])
    assert run(home, "evaluate", "--table", "metrix", *columns_) == 2
    assert "metrics" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nope.csv"], "nope.csv: there is no such file"),
        (["{file}", "--label", "is_curency"], "there is no column 'is_curency'; there are 'character', 'name', "),
        (["{file}"], "no column says what the examples are"),
        (["{file}", "--label", "is_currency", "--threshold", "99"], "the threshold 99 lies outside the scores"),
        (["{file}", "--label", "is_currency", "--alerts-per-day", "4"], "an alert budget needs a volume"),
        (["{file}", "--label", "is_currency", "--cost-miss", "4"], "a threshold by costs needs both"),
        (["{file}", "--label", "is_currency", "--positive", "yes"], "'yes' is no label"),
        (["{file}", "--label", "is_currency", "--weight", "score"], "needles are counted, not weighed"),
        (["{file}", "--label", "is_currency", "--prediction", "plane"], "different kinds of labels"),
        (
            ["{file}", "--label", "is_currency", "--prediction", "plane", "--recall", "1"],
            "--recall: there are classes here",
        ),
        (["{folder}", "--recall", "0.5"], "--recall: for predictions, but"),
        ([], "there is nothing to evaluate"),
        (["{file}", "--sql", "SELECT 1"], "are evaluated apart"),
        (["--table", "steps", "--sql", "SELECT 1"], "are evaluated apart"),
        (["{file}", "--label", "is_currency", "--needles", "--numbers"], "needles are no amounts"),
        (["{file}", "--label", "is_currency", "--numbers"], "nothing is forecast"),
        (["{file}", "--label", "is_currency", "--numbers", "--prediction", "name"], "prediction holds words"),
        (["{file}", "--label", "is_currency", "--score", "name"], "cannot be read as CSV"),
    ],
)
def test_what_cannot_be_meant_is_refused_on_one_screen(
    haystack: Path, tmp_path: Path, capsys: Captured, options: list[str], words: str
) -> None:
    filled = [option.format(file=haystack, folder=tmp_path) for option in options]
    assert run(tmp_path / "home", "evaluate", *filled) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert not list(tmp_path.glob("*.html"))


def test_what_a_file_holds_commands_no_terminal(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "a.csv").write_text("label,score\n1,0.5\n\x1b]0;owned\x07,\x1b[2J,\x9b" + "x" * 999 + "\n")
    assert run(tmp_path / "home", "evaluate", tmp_path / "a.csv") == 2
    shown = capsys.readouterr().err
    assert "cannot be read as CSV" in shown
    assert not set("\x1b\x07\x9b") & set(shown)
    assert len(shown) < 800


def test_two_files_are_compared(tmp_path: Path, capsys: Captured) -> None:
    heads = ["label", "prediction", "id"]
    right: list[list[object]] = [[index % 2, index % 2, index] for index in range(40)]
    wrong: list[list[object]] = [[index % 2, index % 2 if index > 12 else 1 - index % 2, index] for index in range(40)]
    a, b = write_csv(tmp_path / "new.csv", right, heads), write_csv(tmp_path / "old.csv", wrong, heads)
    assert main(["compare", str(a), str(b), "--id", "id"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "accuracy: new.csv 1, old.csv 0.675, on 40 new.csv is better: +0.325 accuracy" in shown
    assert main(["compare", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["comparisons"][0]["better"] == "a"
    assert main(["compare", str(a), str(tmp_path)]) == 2
    assert "are not of one kind" in capsys.readouterr().err
    short = write_csv(tmp_path / "short.csv", right[:-1], heads)
    assert main(["compare", str(a), str(short)]) == 2
    assert "has more than the 39 rows of" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "there is no evaluation" in capsys.readouterr().err
