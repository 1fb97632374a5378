"""The page of an evaluation of predictions: all it shows is there, and what a file holds cannot act on it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from phalanx.evaluation import (
    Columns,
    Wish,
    classes_report,
    needle_sentences,
    needles_report,
    number_sentences,
    numbers_report,
    open_predictions,
    predictions_of,
    ranking_sentences,
)
from phalanx.pages import write_predictions_page
from phalanx.pages.predictions import render_predictions
from tests.evaluation.haystack import write_csv, write_haystack

HOSTILE = '<script>alert("x")</script>'


VOID = frozenset({"meta", "path", "rect", "br"})


class Tags(HTMLParser):
    """Counts tags, and fails on any that is closed by another."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert "style" not in dict(attrs)
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and tag not in ("li", "p", "td", "tr", "th"):
            while self.open and self.open[-1] in ("li", "p", "td", "tr", "th"):
                self.open.pop()
            assert self.open.pop() == tag


def read(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


def test_a_page_of_needles_shows_precision_before_roc(tmp_path: Path) -> None:
    file = write_haystack(tmp_path / "characters.parquet")
    predictions = open_predictions([file], Columns(label="is_currency", slice="plane", shown=("name",)))
    document = needles_report(predictions, Wish(recall=0.5, volume=1e6)).to_dict()
    out = write_predictions_page(
        document, [needle_sentences(document), ranking_sentences(document)], tmp_path / "p.html"
    )
    text = out.read_text()
    tags = read(text)
    assert tags.seen.count("figure") == 4
    assert text.index("<b>Precision</b>") < text.index("<b>Recall</b>")
    for words in ("called a needle", "is a straw", "HEAVY DOLLAR SIGN", "plane 14", "undefined (0/0)", "Alerts a day"):
        assert words in text


def test_what_a_file_holds_is_text(tmp_path: Path) -> None:
    rows: list[list[object]] = [[HOSTILE, 1, 0.1, HOSTILE], ["b", 0, 0.9, "\u202eevil"], ["c", 1, 0.95, "x"]]
    file = write_csv(tmp_path / "a.csv", rows, ["slice", "label", "score", HOSTILE])
    document = needles_report(open_predictions([file], Columns(slice="slice", shown=(HOSTILE,)))).to_dict()
    text = render_predictions(document, [[HOSTILE]], now_ns=0)
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert "\u202e" not in text
    assert read(text).seen.count("script") == 1


def test_scores_that_could_be_chances_have_a_reliability_curve() -> None:
    document = needles_report(predictions_of([1, 0, 0, 1] * 9, [0.9, 0.2, 0.4, 0.6] * 9)).to_dict()
    text = render_predictions(document, [], now_ns=0)
    assert read(text).seen.count("figure") == 5
    assert "Are scores probabilities?" in text


def test_a_page_of_amounts(tmp_path: Path) -> None:
    rows: list[list[object]] = [[i / 3, i / 3 + 1, HOSTILE] for i in range(90)]
    file = write_csv(tmp_path / "a.csv", rows, ["label", "prediction", "town"])
    document = numbers_report(open_predictions([file], Columns(slice="town", shown=("town",)))).to_dict()
    text = render_predictions(document, [number_sentences(document)], now_ns=0)
    assert read(text).seen.count("figure") == 1
    assert HOSTILE not in text
    for words in ("Off by 1.000", "Mean absolute error", "forecast: 1.0", "Forecasts that are furthest off"):
        assert words in text


@pytest.mark.parametrize("classes", [3, 40])
def test_a_page_of_classes(tmp_path: Path, classes: int) -> None:
    rows: list[list[object]] = [[f"c{i % classes}", f"c{(i * 7) % classes}"] for i in range(200)]
    report = classes_report(open_predictions([write_csv(tmp_path / "a.csv", rows, ["label", "prediction"])], Columns()))
    text = render_predictions(report.to_dict(), report.sentences(), now_ns=0)
    read(text)
    assert ("called c0" in text) == (classes == 3), "a matrix of 1,600 cells is for programs"
    assert "Balanced accuracy" in text
    assert ("What was called wrongly: the first examples." in text) == (classes == 40), "of 3 all are right"
    assert f"c{classes - 1}" in text
