"""`phalanx evaluate`: a checkpoint among its baselines, or predictions: what they find, miss and confuse."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phalanx.cli._options import home_option, json_option, refuse_unwritable
from phalanx.cli._terminal import one_line, printable
from phalanx.cli.generate import echo_safe_json
from phalanx.foundation import Home, UsageError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from phalanx.cli._predictions import Wanted

BAR_WIDTH = 30
EXAMPLE_LINES = 12
PLAIN_EVERY_S = 10.0
_SHARES = ("top1", "accuracy")
_POINTS = (*_SHARES, "bleu")  # given with one decimal
# What a metric is called, and on how much of what it was measured.
_MEASURED = {
    "bits_per_byte": ("bits per byte; less is better", "{bytes:,} bytes of {files} files"),
    "top1": ("right first guesses at [MASK]", "{masked:,} masked tokens of {files} files"),
    "accuracy": ("right labels", "{labels:,} labels of {examples:,} examples"),
    "mae": ("off on average; less is better", "{examples:,} examples"),
    "bleu": ("BLEU of greedy translations", "{pairs:,} pairs"),
}
_STAGES = {
    "reading": "reading the text",
    "learning": "learning the vocabulary",
    "encoding": "encoding the text",
    "scoring": "scoring the model",
    "counting": "counting the tables",
    "writing": "writing examples",
    "finding": "finding the needles",
    "ranking": "ranking all scores",
    "judging": "judging each example",
    "measuring": "measuring errors",
    "calibrating": "comparing scores with what happened",
    "tallying": "counting what was called what",
    "cutting": "cutting into slices",
    "drawing": "drawing the page",
}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="CHECKPOINT | FILE...")
@click.option("--needles", is_flag=True, help="Positives are rare: report what is found, missed and falsely alarmed.")
@click.option("--numbers", is_flag=True, help="Labels are amounts, not classes: report how far forecasts are off.")
@click.option("--table", metavar="NAME", help="Judge the rows of this table of the store instead of a FILE.")
@click.option("--sql", metavar="SELECT", help="Judge what this gives of the store instead of a FILE.")
@click.option("--label", metavar="COLUMN", help="What the examples are.  [default: label, y_true, target, ...]")
@click.option("--score", metavar="COLUMN", help="How much of a needle each is.  [default: score, y_score, ...]")
@click.option("--prediction", metavar="COLUMN", help="What each was called.  [default: prediction, y_pred, ...]")
@click.option("--weight", metavar="COLUMN", help="How much each example counts, where classes are called.")
@click.option("--slice", "slice_", metavar="COLUMN", help="Report each of its values on its own, too.")
@click.option("--show", multiple=True, metavar="COLUMN", help="Show it of the worst examples; may be repeated.")
@click.option("--positive", metavar="LABEL", help="Which label is the needle.  [default: 1 or true]")
@click.option("--threshold", type=float, help="Call a needle from this score up.")
@click.option("--recall", type=float, metavar="SHARE", help="Choose the highest threshold that finds this share.")
@click.option("--alerts-per-day", type=float, metavar="N", help="Choose the lowest threshold within this budget.")
@click.option("--cost-miss", type=float, metavar="COST", help="Choose the cheapest threshold: of a missed needle,")
@click.option("--cost-alarm", type=float, metavar="COST", help="and of a false alarm.")
@click.option("--volume", type=float, metavar="N", help="Examples a day, where it will run.")
@click.option("--base-rate", type=float, metavar="SHARE", help="Of needles, where it will run.  [default: as here]")
@click.option("--examples", type=click.Path(path_type=Path), help="Judge a run of labels on this file's examples.")
@click.option("--ranks", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes at once.")
@click.option("--out", type=click.Path(path_type=Path), help="The page.  [default: beside the file, or in the run]")
@home_option
@json_option
def command(
    paths: tuple[Path, ...],
    table: str | None,
    sql: str | None,
    examples: Path | None,
    home: Home,
    as_json: bool,
    **options: Any,
) -> None:
    """Score a checkpoint beside honest baselines, or judge predictions.

    CHECKPOINT is a run directory (its newest good checkpoint is used) or one checkpoint. A decoder is
    scored in bits per byte, an encoder by its first guesses at [MASK], both on files that training never
    saw, beside tables counted from the same training text; a translator by BLEU and chrF, by the length of the
    source; onto a page, and into the table `scores`.

    FILE is a CSV, TSV, Parquet or JSONL of predictions, an example a row. With scores the report is of
    needles in a haystack, with classes of what was called what, with amounts of how far forecasts are off; it
    goes to the terminal, onto a page, and into the table `metrics` of the store.

    \b
    Examples:
      phalanx evaluate RUN
      phalanx evaluate RUN/checkpoints/step-00000300
      phalanx evaluate RUN --examples test.tsv
      phalanx evaluate predictions.csv --slice language
      phalanx evaluate --needles scores.parquet --alerts-per-day 20 --volume 1e6 --base-rate 1e-5
      phalanx evaluate --needles scores.csv --recall 0.9 --show message --json
      phalanx evaluate --numbers forecasts.parquet --label price --prediction forecast --ranks 4
      phalanx evaluate --sql "SELECT loss > 9 AS label, seconds AS score FROM steps"
    """
    from phalanx.cli._predictions import Wanted, echo_predictions, evaluate_files, evaluate_rows

    wanted = Wanted(**options)
    named = [bool(paths), table is not None, sql is not None]
    if sum(named) != 1:
        raise UsageError(
            "files, tables and rows of the store are evaluated apart" if any(named) else "there is nothing to evaluate",
            remedy="name a checkpoint, files of predictions, a --table, or --sql with a SELECT",
        )
    if examples is not None:
        if len(paths) != 1:
            raise UsageError("examples are judged by one run", remedy="phalanx evaluate RUN --examples FILE")
        with Progress(quiet=as_json) as progress:
            document, words, page = _judge_examples(paths[0], examples, wanted, home, progress)
        echo_predictions(document, words, page, as_json)
        return
    if not paths:
        sql = sql if sql is not None else f'SELECT * FROM "{(table or "").replace(chr(34), 2 * chr(34))}"'
        with Progress(quiet=as_json) as progress:
            document, words, page = evaluate_rows(sql, wanted, home, progress)
        echo_predictions(document, words, page, as_json)
        return
    if len(paths) > 1 or paths[0].is_file() or paths[0].suffix:
        with Progress(quiet=as_json) as progress:
            document, words, page = evaluate_files(paths, wanted, home, progress)
        echo_predictions(document, words, page, as_json)
        return
    if wanted.named():
        raise UsageError(
            f"{', '.join(wanted.named())}: for predictions, but {paths[0]} is no file",
            remedy="name a file of predictions, or leave the options out to evaluate a checkpoint",
        )
    with Progress(quiet=as_json) as progress:
        document, page = _evaluate_checkpoint(paths[0], wanted, home, progress)
    if as_json:
        echo_safe_json(document | {"page": str(page)})
        return
    for line in [*score_lines(document), "", *verdict_lines(document), *example_lines(document["examples"])]:
        click.echo(line)
    click.echo(f"\nPage: {one_line(str(page))}")


def _evaluate_checkpoint(path: Path, wanted: Wanted, home: Home, progress: Progress) -> tuple[dict[str, Any], Path]:
    """The document, and the page that was written. Rows go to the store."""
    logging.basicConfig(level=logging.WARNING, format="! %(message)s")  # above the bar, which is there by now
    progress("loading", 0.0)
    from phalanx.daemons.record import record
    from phalanx.evaluation import evaluate
    from phalanx.pages import write_checkpoint_page

    out = wanted.out
    if out is not None:
        refuse_unwritable(out)
    evaluation = evaluate(path, home.cache_dir, progress, wanted.ranks)
    document = evaluation.to_dict()
    checkpoint = evaluation.loaded.path.absolute()
    of_run = checkpoint.parent.name == "checkpoints"
    page = out or (checkpoint.parent.parent if of_run else checkpoint.parent) / f"{checkpoint.name}.evaluation.html"
    write_checkpoint_page(document, verdict_lines(document), page)
    record(home, "scores", evaluation.rows(), "evaluate", job=evaluation.loaded.job)
    return document, page


def _judge_examples(
    run_dir: Path, file: Path, wanted: Wanted, home: Home, progress: Progress
) -> tuple[dict[str, Any], list[list[str]], Path]:
    """The document, what it says in words, and the page that was written."""
    from phalanx.evaluation.labelled import judge_file
    from phalanx.evaluation.opening import check_directory
    from phalanx.pages import write_predictions_page

    check_directory(run_dir)
    out = wanted.out or run_dir / f"{file.stem}.evaluation.html"
    refuse_unwritable(out)
    document = judge_file(run_dir, file, home.cache_dir, progress)
    words = [[group] if isinstance(group, str) else group for group in document["words"]]
    progress("drawing", 0.0)
    write_predictions_page(document, words, out)
    return document, words, out


def score_lines(document: dict[str, Any]) -> list[str]:
    """What was measured on what, then the model and its baselines, best first, a bar each."""
    share = document["metric"] in _SHARES
    unit, counted = _MEASURED[document["metric"]]
    checkpoint = document["checkpoint"]
    lines = [
        f"{one_line(checkpoint['path'])}: {document['model']['name']}, step {checkpoint['step']}",
        f"{unit}, on {counted.format(**document['split'])} that training never saw",
        "",
    ]
    scores = [document["model"] | {"name": "this model"}, *document["baselines"]]
    scores.sort(key=lambda score: score["value"], reverse=share or document["metric"] == "bleu")
    width = max(len(score["name"]) for score in scores)
    longest = max(score["value"] for score in scores) or 1.0
    for score in scores:
        bar = "█" * max(1, round(BAR_WIDTH * score["value"] / longest))
        mine = score["name"] == "this model"
        text = f"  {score['name']:<{width}}  {_value(document, score)}  "
        lines.append(click.style(text, bold=mine) + click.style(bar, fg="blue" if mine else None, dim=not mine))
    lines += [f"  {score['name']}: {score['note']}" for score in scores if score.get("note")]
    return lines


def verdict_lines(document: dict[str, Any]) -> list[str]:
    """Whether it beats its strongest table, by how much, how sure that is, and how it was measured."""
    share = document["metric"] in _SHARES
    margin, error = abs(document["margin"]), document["margin_standard_error"]
    unit = " bits per byte" if document["metric"] == "bits_per_byte" else ""
    distance = f"{100 * margin:.1f} points" if share else f"{margin:.3f}{unit}"
    if document["metric"] == "bleu":
        distance = f"{margin:.1f} BLEU"
    if error is not None:
        error = 100 * error if share else error
        distance += (
            f" (standard error {error:.3f})" if document["metric"] not in _POINTS else f" (standard error {error:.1f})"
        )
    side = "ahead of" if document["beats_strongest"] else "behind"
    shown = [score["name"] for score in document["baselines"] if score.get("sees_more")]
    labelled = document.get("labelled")
    translation = document.get("translation")
    rival = "table" if labelled is None and translation is None else "baseline"
    lines = [f"It is {distance} {side} its strongest {rival}, {document['strongest']}."]
    lines += guess_lines(document) if labelled is None else _label_lines(labelled)
    lines += _length_lines(translation) if translation is not None else []
    lines += [f"No opponent, as it sees what the model does not: {name}." for name in shown]
    return [*lines, f"Measured so: {document['method']}. {document['seconds']:.0f} s."]


def _length_lines(translation: dict[str, Any]) -> list[str]:
    """chrF of all, and BLEU by the length of the source."""
    lengths = [f"{each['from']} to {each['to']} words {each['bleu']:.1f}" for each in translation["lengths"]]
    return [f"chrF {translation['chrf']:.1f}; BLEU by length of the source: {', '.join(lengths)}."]


def _label_lines(labelled: dict[str, Any]) -> list[str]:
    """What the report of labelled examples says, its sentences one after the other."""
    said = [
        one_line(sentence) for group in labelled["words"] for sentence in ([group] if isinstance(group, str) else group)
    ]
    if entities := labelled.get("entities"):
        found = f"{entities['right']:,} of {entities['entities']:,} entities were found whole, of {entities['found']:,}"
        said.append(f"{found} that were named: F1 {entities['f1']:.3f}.")
    return said


def guess_lines(document: dict[str, Any]) -> list[str]:
    """How often the truth is among its best guesses, and whether it is as sure as it is right."""
    guesses = document.get("guesses")  # documents of before have none
    if not guesses:
        return []
    shares = [f"{guesses[name]['value']:.1%}" for name in ("top1", "top5")]
    for at, name in enumerate(("top1", "top5")):
        error = guesses[name]["standard_error"]
        shares[at] += f" (standard error {100 * error:.1f})" if error is not None else ""
    perplexity = f"; perplexity {document['perplexity']:.4g}" if document["perplexity"] is not None else ""
    off = 100 * guesses["expected_error"]
    return [
        f"Its first guess is right in {shares[0]}, one of its five best in {shares[1]} of the places{perplexity}.",
        f"How sure it is of its first guess is {off:.1f} points off on average (expected calibration error).",
    ]


def example_lines(examples: list[dict[str, Any]]) -> list[str]:
    """Continuations with their prompt dimmed, masked sentences with guesses and truth, or translations."""
    lines: list[str] = []
    for example in examples:
        lines.append("")
        if "translated" in example:
            source, written, wanted = (one_line(example[name]) for name in ("source", "translated", "reference"))
            lines += [
                click.style(f"  {source}", dim=True),
                f"  {written}",
                click.style(f"  a person: {wanted}", dim=True),
            ]
            continue
        if "guesses" in example:
            lines.append("  " + one_line(example["masked"]).replace("[MASK]", click.style("[MASK]", bold=True)))
            guesses = [f"{one_line(piece)} {p:.0%}" for piece, p in example["guesses"]]
            lines.append(
                f"  {click.style('it was', dim=True)} {one_line(example['truth'])}   guesses: {', '.join(guesses)}"
            )
            continue
        prompt, generated = printable(example["prompt"]), printable(example["generated"])
        body = (click.style(prompt, dim=True) + generated).splitlines()
        lines += [f"  │ {line}" for line in body[:EXAMPLE_LINES]]
    return lines


def _value(document: dict[str, Any], score: dict[str, Any]) -> str:
    error = score["standard_error"]
    if document["metric"] in _SHARES:
        return f"{score['value']:6.1%}" + (f" ± {100 * error:.1f}" if error is not None else "")
    if document["metric"] == "bleu":
        return f"{score['value']:5.1f}" + (f" ± {error:.1f}" if error is not None else "")
    return f"{score['value']:.3f}" + (f" ± {error:.3f}" if error is not None else "")


class Progress:
    """On standard error: a bar with the time left on a terminal, a line a stage elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._bar = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._stage = ""
        self._began = self._said = 0.0

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, stage: str, share: float) -> None:
        if stage == "ready":
            return
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, self._said = stage, now, now
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(_STAGES.get(stage, "loading the model"), total=1.0)
            if not self._console.is_terminal and stage in _STAGES:
                self._say(f"... {_STAGES[stage]}")
        assert self._task is not None
        self._bar.update(self._task, completed=share)
        if not self._console.is_terminal and now - self._said > PLAIN_EVERY_S and share > 0:
            self._said = now
            self._say(f"    {share:.0%}, {(now - self._began) * (1 - share) / share:.0f} s left")

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, markup=False)
