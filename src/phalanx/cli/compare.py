"""`phalanx compare`: whether the difference between two is real, in one sentence for each metric."""

from __future__ import annotations

from pathlib import Path

import click

from phalanx.cli._options import json_option
from phalanx.cli._terminal import one_line
from phalanx.cli.evaluate import Progress
from phalanx.cli.generate import echo_safe_json
from phalanx.foundation import UsageError


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--label", metavar="COLUMN", help="What the examples are.  [default: label, y_true, target, ...]")
@click.option("--score", metavar="COLUMN", help="How much of a needle each is.  [default: score, y_score, ...]")
@click.option("--prediction", metavar="COLUMN", help="What each was called.  [default: prediction, y_pred, ...]")
@click.option("--id", "id_", metavar="COLUMN", help="A name of each example: by it, rows may stand in any order.")
@click.option("--positive", metavar="LABEL", help="Which label is the needle.  [default: 1 or true]")
@click.option("--numbers", is_flag=True, help="Labels are amounts, not classes, even if all are whole.")
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of intervals; a difference is real where p < 1 - level.",
)
@json_option
def command(
    a: Path,
    b: Path,
    label: str | None,
    score: str | None,
    prediction: str | None,
    id_: str | None,
    positive: str | None,
    numbers: bool,
    level: float,
    as_json: bool,
) -> None:
    """Say whether A is better than B, or it was chance.

    A and B are predictions of the same examples (CSV, TSV, Parquet or JSONL), in the same order unless --id
    names them. They are judged by the difference on each: ROC areas by DeLong's test, accuracies by
    McNemar's, average precision by the bootstrap, absolute errors of amounts by paired differences. Or A and
    B are two runs, which are judged by their evaluations.

    \b
    Examples:
      phalanx compare old.csv new.csv
      phalanx compare old.parquet new.parquet --id message_id --positive spam
      phalanx compare RUN OTHER_RUN
      phalanx compare old.csv new.csv --json
    """
    from phalanx.evaluation import Columns, compare_evaluations, compare_predictions, open_predictions

    are_files = [path.is_file() and path.suffix != ".json" for path in (a, b)]
    if are_files[0] != are_files[1] and a.exists() and b.exists():
        raise UsageError(f"{a} and {b} are not of one kind", remedy="give two files of predictions, or two runs")
    if any(are_files) or not (a.exists() and b.exists()):
        columns = Columns(label=label, score=score, prediction=prediction, id=id_)
        one, other = open_predictions([a], columns), open_predictions([b], columns)
        needle = one.like_label(positive) if positive is not None else None
        with Progress(quiet=as_json) as progress:
            judgement = compare_predictions(
                one, other, positive=needle, amounts=numbers, level=level, progress=progress
            )
    else:
        judgement = compare_evaluations(a, b, level)
    if as_json:
        echo_safe_json(judgement.to_dict())
        return
    for each, sentence in zip(judgement.comparisons, judgement.sentences(), strict=True):
        click.echo(f"{each.metric}: {judgement.a} {each.a:.6g}, {judgement.b} {each.b:.6g}, on {each.n:,}")
        click.echo(click.wrap_text(one_line(sentence), 110, initial_indent="  ", subsequent_indent="  "))
    for what in judgement.left_out:
        click.echo(f"! {one_line(what)}", err=True)
