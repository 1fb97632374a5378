"""`phalanx attention`: how much each token looks at each other one, head by head, on a page."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from phalanx.cli._options import json_option
from phalanx.cli._terminal import one_line


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("text")
@click.option("--pair", metavar="TEXT", help="A second text; of a translator, the translation to align.")
@click.option("--layer", type=click.IntRange(1), help="Only this layer, from 1.")
@click.option("--head", type=click.IntRange(1), help="Only this head of each layer, from 1.")
@click.option("--words", is_flag=True, help="Take the tokens of a word together.")
@click.option("--out", type=click.Path(path_type=Path), help="The page.  [default: attention.html]")
@json_option
def command(
    checkpoint: Path,
    text: str,
    pair: str | None,
    layer: int | None,
    head: int | None,
    words: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show what a model looks at, head by head.

    CHECKPOINT is a run directory (its newest good checkpoint is used), one checkpoint, or a directory of
    Hugging Face's files. The page shows every head as a matrix over the tokens of TEXT; of a translator, which
    words each word of its translation came from. With --json the weights are printed instead, and no page is
    written unless --out names one.

    \b
    Examples:
      phalanx attention RUN "The cat sat on the mat."
      phalanx attention my-bert "Where is it?" --pair "It is on the mat." --out heads.html
      phalanx attention my-gpt2 "To be, or not to be" --layer 5 --words
      phalanx attention TRANSLATOR "Ein Mann fährt Rad." --json
    """
    logging.basicConfig(level=logging.WARNING, format="! %(message)s")
    from phalanx.evaluation.attention import attention_of
    from phalanx.evaluation.opening import check_directory
    from phalanx.pages.attention import write_attention_page
    from phalanx.training import open_model

    check_directory(checkpoint)
    found = attention_of(open_model(checkpoint), text, pair, layer=layer, head=head, words=words)
    shown = text if pair is None else f"{text} / {pair}"
    page = out if out is not None or as_json else Path("attention.html")
    if page is not None:
        write_attention_page(found, shown, page)
    if as_json:
        document = found.to_dict() | {"text": text, "pair": pair, "page": None if page is None else str(page)}
        click.echo(json.dumps(document, ensure_ascii=True, allow_nan=False))  # on one line: there are many numbers
        return
    layers, heads = found.weights.shape[:2]
    over = f"{len(found.rows):,} x {len(found.columns):,} tokens"
    click.echo(f"Page: {one_line(str(page))} ({layers} layers x {heads} heads over {over})")
