"""The page of an evaluation of predictions: what a detector finds, which class is taken for which, or how
far forecasts of amounts are off.

One HTML file that needs nothing else, from the document that `phalanx evaluate --json` prints.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import phalanx
from phalanx.evaluation.words import amount, decimal, share, within
from phalanx.foundation import write_atomic
from phalanx.pages import quantities
from phalanx.pages.bars import Bar, Piece
from phalanx.pages.chart import Chart, Line, Mark, chart
from phalanx.pages.frame import render_page
from phalanx.pages.run_files import Evaluation
from phalanx.pages.verdict import Tile

RELIABILITY = (
    "Scores from 0 to 1 may be read as probabilities. Then, of examples with a score of 0.3, 30 of 100 should be "
    "needles: below the faint line there are fewer."
)

Document = Mapping[str, Any]
Said = Callable[[Mapping[str, Any]], str]
"""A number with its interval, in words."""


@dataclass(frozen=True)
class Matrix:
    """`rows`: the truth; `columns`: what it was called. `heads`: names of the columns."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Worst:
    """A table of examples; `cells`: of one of them, below `heads`."""

    intro: str
    heads: tuple[str, ...]
    cells: Callable[[Mapping[str, Any]], tuple[str, ...]]


@dataclass(frozen=True)
class Pictures:
    """Charts under one title; `intro`: how to read them."""

    title: str
    intro: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class Predicted:
    """What the page of an evaluation shows below its words."""

    document: Document
    matrix: Matrix | None
    pictures: tuple[Pictures, ...]
    slices: Mapping[str, list[Bar]]
    worst: Worst | None

    @classmethod
    def of(cls, document: Document) -> Predicted:
        """Of a report of needles, classes or numbers."""
        matrix = _needles_matrix(document) if document["kind"] == "needles" else _matrix(document)
        pictures = tuple(each for each in _PICTURES[document["kind"]](document) if each.charts)
        return cls(document, matrix, pictures, _slices(document), _worst(document) if document["worst"] else None)

    @property
    def entities(self) -> list[tuple[str, Mapping[str, Any]]]:
        """All of them, then each kind; nothing where tags mark none."""
        found = self.document.get("entities")
        return [] if found is None else [("all", found), *found["kinds"].items()]


def predicted_of(evaluation: Evaluation | None) -> Predicted | None:
    """Of a checkpoint that judges labelled examples; None for any other."""
    if evaluation is None or evaluation.labelled is None:
        return None
    return Predicted.of(evaluation.labelled)


def write_predictions_page(document: Document, sentences: Sequence[Sequence[str]], out: Path) -> Path:
    """Draw an evaluation's document, with what it says in words (a group of sentences for each part), into `out`.

    Raises StorageError when `out` cannot be written.
    """
    write_atomic(out, render_predictions(document, sentences))
    return out


def render_predictions(document: Document, sentences: Sequence[Sequence[str]], now_ns: int | None = None) -> str:
    """The page as text. `now_ns`: when it was written; the present time if None."""
    needles = document["kind"] == "needles"
    return render_page(
        "predictions.html",
        document=document,
        title=", ".join(Path(each).name for each in document["source"]),
        headline=_needles_headline(document) if needles else _headline(document),
        tiles=_needles_tiles(document) if needles else _tiles(document),
        sentences=sentences,
        predicted=Predicted.of(document),
        version=phalanx.__version__,
        written=quantities.moment(now_ns if now_ns is not None else time.time_ns()),
    )


def _needles_headline(document: Document) -> str:
    called = document["called"]
    needles = called["true_positives"] + called["false_negatives"]
    return (
        f"{amount(called['true_positives'])} of {amount(needles)} needles found, with "
        f"{amount(called['false_positives'])} false alarms"
    )


def _headline(document: Document) -> str:
    if document["kind"] == "numbers":
        return f"Off by {within(document['numbers']['mae'])} on average"
    return f"{decimal(document['accuracy']['value'])} of {amount(document['examples'])} are called what they are"


def _needles_tiles(document: Document) -> list[Tile]:
    called = document["called"]
    tiles = [
        Tile("Precision", decimal(called["precision"]["value"]), "of the alerts, the share that are needles"),
        Tile("Recall", decimal(called["recall"]["value"]), "of the needles, the share that was found"),
        Tile("Average precision", decimal(document["average_precision"]["value"]), "over all thresholds"),
        Tile(
            "Threshold",
            f"{document['threshold']:.6g}" if document["threshold"] is not None else "none",
            document["chosen_by"],
        ),
    ]
    if document["alerts_per_day"] is not None:
        tiles.append(
            Tile(
                "Alerts a day", amount(document["alerts_per_day"]["value"]), f"of {amount(document['volume'])} examples"
            )
        )
    return tiles


def _tiles(document: Document) -> list[Tile]:
    if document["kind"] == "numbers":
        return [
            Tile(title, decimal(document["numbers"][name]["value"]), note)
            for name, title, note in (
                ("mae", "Mean absolute error", "how far off a forecast is"),
                ("rmse", "Root mean square", "the same, large errors weighing more"),
                ("bias", "Mean error", "above 0 where forecasts are too high"),
                ("r2", "R2", "the share of squares that forecasts save"),
                ("spearman", "Spearman", "how alike the orders are"),
            )
        ]
    return [
        Tile("Accuracy", decimal(document["accuracy"]["value"]), "called what they are"),
        Tile("Balanced accuracy", decimal(document["balanced_accuracy"]), "mean recall of the classes"),
        Tile("F1, macro", decimal(document["macro"]["f1"]), "mean of the classes"),
        Tile("MCC", decimal(document["mcc"]), "from -1 to 1; 0 is chance"),
    ]


def _needles_matrix(document: Document) -> Matrix:
    called = document["called"]
    return Matrix(
        ("called a needle", "called straw", "all"),
        tuple(
            (name, (amount(called[one]), amount(called[other]), amount(called[one] + called[other])))
            for name, one, other in (
                ("is a needle", "true_positives", "false_negatives"),
                ("is a straw", "false_positives", "true_negatives"),
            )
        ),
    )


def _matrix(document: Document) -> Matrix | None:
    if document["kind"] != "classes" or len(document["labels"]) > 30:
        return None
    names = tuple(str(label) for label in document["labels"])
    rows = zip(names, document["matrix"], strict=True)
    return Matrix(
        tuple(f"called {name}" for name in names),
        tuple((f"is {name}", tuple(amount(count) for count in row)) for name, row in rows),
    )


def _pictures_of_needles(document: Document) -> list[Pictures]:
    first = (
        "Precision first: it tells how many alerts are needles. The ROC curve does not change with how rare needles "
        "are, and hides that a small false-positive rate of many straws is many false alarms."
    )
    return [
        Pictures("At every threshold", first, _there(*_curves(document))),
        Pictures("Scores", "", _there(_histogram(document))),
        Pictures("Are scores probabilities?", RELIABILITY, _there(_reliability(document))),
    ]


def _pictures_of_numbers(document: Document) -> list[Pictures]:
    """The mean truth of forecasts that are near each other, beside what it would be if they were right."""
    bins = [each for each in document["bins"] if each["count"]]
    middles = [(each["low"] + each["high"]) / 2 for each in bins]
    lines = [
        Line("mean truth", tuple(zip(middles, (each["truth"] for each in bins), strict=True)), 1, dots=True),
        Line("as forecast", tuple((middle, middle) for middle in middles), 8, faint=True),
    ]
    intro = "Forecasts that are near each other, and the mean of what came true: above the line they were too low."
    return [Pictures("Are forecasts right on average?", intro, _there(chart("Truth", "", lines, x_name="forecast")))]


def _there(*charts: Chart | None) -> tuple[Chart, ...]:
    return tuple(each for each in charts if each is not None)


def _curves(document: Document) -> list[Chart | None]:
    chance = document["rate_here"]
    by_precision = [
        Line("this detector", _steps(document["precision_recall_curve"]), 1),
        Line("at random", ((0.0, chance), (1.0, chance)), 8, faint=True),
    ]
    by_roc = [
        Line("this detector", _points(document["roc_curve"]), 1),
        Line("at random", ((0.0, 0.0), (1.0, 1.0)), 8, faint=True),
    ]
    straws = document["called"]["false_positives"] + document["called"]["true_negatives"]
    least = math.log10(0.5 / straws)  # of no straw at all, which has no logarithm
    in_tens = tuple((max(math.log10(x), least) if x else least, y) for x, y in _points(document["roc_curve"]))
    by_tens = [
        Line("this detector", in_tens, 1),
        Line("at random", tuple((x / 10, 10 ** (x / 10)) for x in range(math.floor(10 * least), 1)), 8, faint=True),
    ]
    return [
        chart("Precision", "by recall", by_precision, x_name="recall", x_range=(0.0, 1.0), from_zero=True, tall=True),
        chart(
            "Recall",
            "by false-positive rate (ROC)",
            by_roc,
            x_name="false-positive rate",
            x_range=(0.0, 1.0),
            from_zero=True,
        ),
        chart(
            "Recall",
            "by false-positive rate in powers of ten: where straws are many, all that matters is on the left",
            by_tens,
            x_name="false-positive rate: -3 is one straw in 1,000",
            x_range=(least, 0.0),
            from_zero=True,
        ),
    ]


def _histogram(document: Document) -> Chart | None:
    """Of scores, in powers of ten: needles would not be seen among straws otherwise."""

    def steps(kind: int) -> tuple[tuple[float, float], ...]:
        points: list[tuple[float, float]] = []
        for low, high, *counts in document["histogram"]:
            height = math.log10(counts[kind]) if counts[kind] else math.nan
            points += [(low, height), (high, height)]
        return tuple(points)

    threshold = document["threshold"]
    marks = [Mark(threshold, "threshold")] if threshold is not None else []
    lines = [Line("straws", steps(0), 8), Line("needles", steps(1), 5)]
    return chart("How scores lie", "examples, as powers of ten", lines, x_name="score", from_zero=True, marks=marks)


def _reliability(document: Document) -> Chart | None:
    """The share of needles by score, with Wilson's intervals; of scores that could be probabilities."""
    if document["chances"] is None:
        return None
    bins = document["chances"]["bins"]

    def points(end: str) -> tuple[tuple[float, float], ...]:
        return tuple((each["mean"], each["happened"][end]) for each in bins)

    lines = [
        Line("needles", points("value"), 1, dots=True),
        Line("95 % interval, from", points("low"), 6, faint=True),
        Line("95 % interval, to", points("high"), 6, faint=True),
        Line("as the scores say", ((0.0, 0.0), (1.0, 1.0)), 8, faint=True),
    ]
    return chart(
        "Share of needles", "by score (reliability)", lines, x_name="score", x_range=(0.0, 1.0), from_zero=True
    )


def _steps(pairs: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    """Precision as it is at the next threshold, not on a line between two: the area below is average precision."""
    before = [0.0, *(x for x, _ in pairs)]
    return tuple(point for at, (x, y) in enumerate(pairs) for point in ((before[at], y), (x, y)))


def _points(pairs: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in pairs)


def _slices(document: Document) -> dict[str, list[Bar]]:
    """Of each share a bar for each slice: the number, within its interval."""
    if not document["slices"]:
        return {}
    if document["kind"] == "numbers":
        most = max(each["mae"]["high"] or each["mae"]["value"] for each in document["slices"]) or 1.0
        bars = [_interval_bar(each["name"], each["mae"], most, within) for each in document["slices"]]
        return {"Mean absolute error": bars}
    shares = {"needles": {"recall": "Recall", "precision": "Precision"}, "classes": {"accuracy": "Accuracy"}}
    return {
        title: [_interval_bar(each["name"], each[name]) for each in document["slices"]]
        for name, title in shares.get(document["kind"], {}).items()
    }


def _interval_bar(name: str, found: Mapping[str, Any], most: float = 1.0, said: Said = share) -> Bar:
    """`most`: what fills the row."""
    if found["value"] is None:
        return Bar(name, (), said(found))
    low = max(found["low"] if found["low"] is not None else found["value"], 0.0)
    high = found["high"] if found["high"] is not None else found["value"]
    middle = min(max(found["value"], low), high)
    wide = 100 / most
    pieces = (
        Piece("interval", wide * low, wide * (middle - low), 6, f"95 % interval from {decimal(low)}"),
        Piece("interval", wide * middle, wide * (high - middle), 7, f"to {decimal(high)}"),
    )
    return Bar(name, pieces, said(found))


def _worst(document: Document) -> Worst:
    if document["kind"] == "needles":
        return Worst(
            "Straws with the highest scores, then missed needles with the lowest.",
            ("it is", "score"),
            lambda each: ("a needle" if each["is_needle"] else "a straw", quantities.number(each["score"])),
        )
    if document["kind"] == "numbers":
        intro = "Forecasts that are furthest off."
        return Worst(intro, ("off by",), lambda each: (quantities.number(each["off_by"]),))
    if document["worst"][0]["score"] is None:
        return Worst("What was called wrongly: the first examples.", (), lambda each: ())
    intro = "What was called wrongly with the highest scores."
    return Worst(intro, ("score",), lambda each: (quantities.number(each["score"]),))


_PICTURES: Mapping[str, Callable[[Document], list[Pictures]]] = {
    "needles": _pictures_of_needles,
    "classes": lambda document: [],
    "numbers": _pictures_of_numbers,
}
