"""`phalanx translate`: sentences by a trained translator, a line each."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from phalanx.cli._options import json_option
from phalanx.cli._terminal import one_line


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.option("--beam", type=click.IntRange(1, 100), default=4, show_default=True, help="Translations tried at once.")
@json_option
def command(checkpoint: Path, text: str | None, beam: int, as_json: bool) -> None:
    """Translate sentences with a trained translator.

    CHECKPOINT is a run directory (its newest good checkpoint is used) or one checkpoint of a job with objective:
    translate. Without TEXT the lines of standard input are translated, a line each. A beam of 1 always takes the
    likeliest token.

    \b
    Examples:
      phalanx translate RUN "Ein Mann fährt Rad."
      phalanx translate RUN --beam 1 < test.de > test.en
      phalanx translate RUN "Zwei Hunde spielen." --json
    """
    logging.basicConfig(level=logging.WARNING, format="! %(message)s")
    from phalanx.cli.generate import echo_safe_json
    from phalanx.evaluation.opening import check_directory
    from phalanx.evaluation.translating import translate_lines
    from phalanx.training import open_model

    check_directory(checkpoint)
    opened = open_model(checkpoint)
    lines = _lines() if text is None else [text]
    found = translate_lines(opened, lines, beam)
    if as_json:
        translations = [
            {"source": each.source, "translation": each.text, "score": each.score, "finished": each.finished}
            for each in found
        ]
        document = {"checkpoint": str(opened.path), "step": opened.step, "beam": beam}
        echo_safe_json(document | {"translations": translations})
        return
    for each in found:
        click.echo(one_line(each.text))


def _lines() -> list[str]:
    """Of standard input. Raises NotText for bytes that are none."""
    from phalanx.data.source import decode

    return decode(sys.stdin.buffer.read(), Path("standard input")).splitlines()
