"""`phalanx evaluate` of predictions: a report of needles or of classes, in words, as a page, and in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phalanx.cli._options import refuse_unwritable
from phalanx.cli._terminal import one_line
from phalanx.cli.generate import echo_safe_json
from phalanx.foundation import Home, UsageError

if TYPE_CHECKING:
    from phalanx.evaluation import ClassesReport, NeedlesReport, NumbersReport, Predictions

BAR_WIDTH = 20
SLICES, WORST, CLASSES = 20, 6, 12


@dataclass(frozen=True)
class Wanted:
    """What a person asked for, as the options say it."""

    needles: bool
    numbers: bool
    label: str | None
    score: str | None
    prediction: str | None
    weight: str | None
    slice_: str | None
    show: tuple[str, ...]
    positive: str | None
    threshold: float | None
    recall: float | None
    alerts_per_day: float | None
    cost_miss: float | None
    cost_alarm: float | None
    volume: float | None
    base_rate: float | None
    ranks: int
    out: Path | None

    def named(self) -> list[str]:
        """Options that were given, and are of predictions only."""
        plain = {"needles": False, "numbers": False, "show": (), "ranks": self.ranks, "out": self.out}
        options = {name: value for name, value in self.__dict__.items() if value != plain.get(name)}
        return [f"--{name.rstrip('_').replace('_', '-')}" for name in options]


def evaluate_files(
    paths: Sequence[Path],
    wanted: Wanted,
    home: Home,
    progress: Callable[[str, float], None],
    source: str | None = None,
) -> tuple[dict[str, Any], list[list[str]], Path]:
    """The document, what it says in words, and the page that was written. Rows go to the store.

    `source`: what the files are called, where they are not a person's.
    """
    from phalanx.daemons.record import record
    from phalanx.evaluation import Columns, open_predictions
    from phalanx.pages import write_predictions_page

    columns = Columns(
        label=wanted.label,
        score=wanted.score,
        prediction=wanted.prediction,
        weight=wanted.weight,
        slice=wanted.slice_,
        shown=wanted.show,
    )
    predictions = open_predictions(paths, columns)
    out = wanted.out or paths[0].with_name(f"{paths[0].stem}.evaluation.html")
    refuse_unwritable(out)
    if wanted.needles and wanted.numbers:
        raise UsageError("needles are no amounts", remedy="give --needles or --numbers")
    report: NeedlesReport | ClassesReport | NumbersReport
    if wanted.needles or not (wanted.numbers or predictions.has("prediction")):
        report, words = _needles(predictions, wanted, progress)
    elif wanted.numbers or predictions.are_amounts():
        report, words = _numbers(predictions, wanted, progress)
    else:
        report, words = _classes(predictions, wanted, progress)
    if source is not None:
        report = replace(report, source=(source,))
    document = report.to_dict()
    progress("drawing", 0.0)
    write_predictions_page(document, words, out)
    record(home, "metrics", report.rows(), "evaluate")
    return document, words, out


def evaluate_rows(
    sql: str, wanted: Wanted, home: Home, progress: Callable[[str, float], None]
) -> tuple[dict[str, Any], list[list[str]], Path]:
    """As `evaluate_files`, of the rows that one SELECT gives."""
    import tempfile

    from phalanx.evaluation import write_rows
    from phalanx.telemetry import Reader

    reader = Reader(home.store_dir)
    answer = reader.query(sql)
    for damaged in reader.damaged:
        click.echo(f"! {damaged}", err=True)
    with tempfile.TemporaryDirectory(prefix="phalanx-evaluate-") as directory:
        file = write_rows(answer.columns, answer.rows, Path(directory) / "rows.parquet", sql)
        found = replace(wanted, out=wanted.out or Path("rows.evaluation.html"))
        return evaluate_files([file], found, home, progress, source=sql)


def _needles(
    predictions: Predictions, wanted: Wanted, progress: Callable[[str, float], None]
) -> tuple[NeedlesReport, list[list[str]]]:
    from phalanx.evaluation import Wish, needle_sentences, needles_report, ranking_sentences

    if (wanted.cost_miss is None) != (wanted.cost_alarm is None):
        raise UsageError("a threshold by costs needs both", remedy="give --cost-miss and --cost-alarm")
    costs = (wanted.cost_miss, wanted.cost_alarm) if wanted.cost_miss is not None else None
    wish = Wish(
        threshold=wanted.threshold,
        recall=wanted.recall,
        alerts_per_day=wanted.alerts_per_day,
        costs=costs,  # type: ignore[arg-type]  # both are there
        volume=wanted.volume,
        base_rate=wanted.base_rate,
    )
    positive = predictions.like_label(wanted.positive) if wanted.positive is not None else None
    report = needles_report(predictions, wish, positive=positive, ranks=wanted.ranks, progress=progress)
    document = report.to_dict()
    return report, [needle_sentences(document), ranking_sentences(document)]


def _numbers(
    predictions: Predictions, wanted: Wanted, progress: Callable[[str, float], None]
) -> tuple[NumbersReport, list[list[str]]]:
    from phalanx.evaluation import number_sentences, numbers_report

    _refuse_needles_options(wanted, "amounts")
    report = numbers_report(predictions, ranks=wanted.ranks, progress=progress)
    return report, [number_sentences(report.to_dict())]


def _refuse_needles_options(wanted: Wanted, what: str) -> None:
    names = ("positive", "threshold", "recall", "alerts_per_day", "cost_miss", "cost_alarm", "volume", "base_rate")
    if given := [f"--{name.replace('_', '-')}" for name in names if getattr(wanted, name) is not None]:
        raise UsageError(
            f"{', '.join(given)}: there are {what} here, not scores of needles",
            remedy="name the scores with --score and add --needles, or leave it out",
        )


def _classes(
    predictions: Predictions, wanted: Wanted, progress: Callable[[str, float], None]
) -> tuple[ClassesReport, list[list[str]]]:
    from phalanx.evaluation import classes_report

    _refuse_needles_options(wanted, "classes")
    report = classes_report(predictions, ranks=wanted.ranks, progress=progress)
    return report, report.sentences()


def echo_predictions(document: dict[str, Any], words: list[list[str]], page: Path, as_json: bool) -> None:
    """On standard output."""
    if as_json:
        echo_safe_json(document | {"page": str(page)})
        return
    click.echo(one_line(", ".join(document["source"])))
    click.echo("")
    for line in _LINES[document["kind"]](document):
        click.echo(line)
    for group in words:
        click.echo("")
        for sentence in group:
            click.echo(click.wrap_text(one_line(sentence), 110, initial_indent="  ", subsequent_indent="  "))
    for line in [*_slice_lines(document), *_worst_lines(document)]:
        click.echo(line)
    click.echo(f"\nPage: {one_line(str(page))}")


def _needles_lines(document: dict[str, Any]) -> list[str]:
    from phalanx.evaluation.words import amount

    called = document["called"]
    threshold = "none, as nothing called is better" if document["threshold"] is None else f"{document['threshold']:.6g}"
    rows = [
        ("", "called a needle", "called straw"),
        ("is a needle", amount(called["true_positives"]), amount(called["false_negatives"])),
        ("is a straw", amount(called["false_positives"]), amount(called["true_negatives"])),
    ]
    return [
        f"  threshold {threshold}: {document['chosen_by']}",
        "",
        *(f"  {name:<12}{one:>16}{other:>16}" for name, one, other in rows),
    ]


def _classes_lines(document: dict[str, Any]) -> list[str]:
    from phalanx.evaluation.words import amount

    heads = f"  {'class':<20}{'precision':>26}{'recall':>26}{'F1':>8}{'examples':>12}"
    lines = [heads]
    for each in document["classes"][:CLASSES]:
        shares = f"{each['precision_words']:>26}{each['recall_words']:>26}{each['f1_words']:>8}"
        lines.append(f"  {one_line(str(each['label'])):<20.20}{shares}{amount(each['support']):>12}")
    if len(document["classes"]) > CLASSES:
        lines.append(f"  ... and {len(document['classes']) - CLASSES} more, on the page")
    return lines


def _numbers_lines(document: dict[str, Any]) -> list[str]:
    from phalanx.evaluation.words import within

    return [f"  {name:<10}{within(found):>32}" for name, found in document["numbers"].items()]


_LINES = {"needles": _needles_lines, "classes": _classes_lines, "numbers": _numbers_lines}


def _slice_lines(document: dict[str, Any]) -> list[str]:
    from phalanx.evaluation.words import share, within

    if not document["slices"]:
        return []
    name = {"needles": "recall", "classes": "accuracy", "numbers": "mae"}[document["kind"]]
    most, said = (1.0, share) if name != "mae" else (max(each[name]["value"] for each in document["slices"]), within)
    width = min(max(len(one_line(each["name"])) for each in document["slices"]), 30)
    lines = ["", f"  {name} by slice"]
    for each in document["slices"][:SLICES]:
        value = each[name]["value"]
        bar = "█" * max(1, round(BAR_WIDTH * value / most)) if value else ""
        lines.append(f"  {one_line(each['name']):<{width}.{width}}  {bar:<{BAR_WIDTH}}  {said(each[name])}")
    if len(document["slices"]) > SLICES:
        lines.append(f"  ... and {len(document['slices']) - SLICES} more, on the page")
    return lines


def _worst_lines(document: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for title, found in _worst_groups(document):
        if found:
            lines += ["", f"  {title}"]
        for each in found:
            size = each["off_by"] if document["kind"] == "numbers" else each["score"]
            shown = "; ".join(f"{name}: {value}" for name, value in each["shown"].items())
            lines.append(f"  {'' if size is None else f'{size:.4g}':>10}  row {each['row']:<9,} {one_line(shown)}")
    return lines


def _worst_groups(document: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    worst = document["worst"]
    if document["kind"] == "numbers":
        return [("forecasts that are furthest off", worst[:WORST])]
    if document["kind"] == "classes":
        return [("called wrongly", worst[:WORST])]
    return [
        ("straws with the highest scores", [each for each in worst if not each["is_needle"]][: WORST // 2]),
        ("missed needles with the lowest scores", [each for each in worst if each["is_needle"]][: WORST // 2]),
    ]
