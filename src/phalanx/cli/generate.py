"""`phalanx generate`: text from a trained decoder, shown as it is written."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import click

from phalanx.cli._options import json_option
from phalanx.cli._terminal import printable


def _finite(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number from 0 up")
    # Logits divided by less than this overflow; the likeliest token is certain long before.
    return value if value > 1e-6 else 0.0


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--prompt", default="", metavar="TEXT", help="Go on with this text.  [default: begin a new one]")
@click.option("--max-tokens", type=click.IntRange(1), default=400, show_default=True, help="Stop after so many.")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    callback=_finite,
    default=0.7,
    show_default=True,
    help="0: always the likeliest token; 1: as often as the model believes.",
)
@click.option("--top-k", type=click.IntRange(1), help="Draw among the K likeliest only.  [default: among all]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the draws.")
@json_option
def command(
    checkpoint: Path, prompt: str, max_tokens: int, temperature: float, top_k: int | None, seed: int, as_json: bool
) -> None:
    """Write text with a trained decoder.

    CHECKPOINT is a run directory (its newest good checkpoint is used) or one checkpoint. The same seed
    gives the same text.

    \b
    Examples:
      phalanx generate RUN
      phalanx generate RUN --prompt 'def read_lines(path):'
      phalanx generate RUN/checkpoints/step-00000300 --temperature 0 --max-tokens 100
      phalanx generate RUN --prompt 'import ' --seed 7 --json
    """
    logging.basicConfig(level=logging.WARNING, format="! %(message)s")
    from phalanx.evaluation import Sampling, open_checkpoint, write_text

    loaded = open_checkpoint(checkpoint)
    pieces = write_text(loaded, prompt, Sampling(max_tokens, temperature, top_k, seed))
    if as_json:
        document: dict[str, Any] = {
            "checkpoint": str(loaded.path),
            "step": loaded.manifest.step,
            "prompt": prompt,
            "generated": "".join(pieces),
            "temperature": temperature,
            "top_k": top_k,
            "seed": seed,
        }
        echo_safe_json(document)
        return
    click.secho(printable(prompt), dim=True, nl=False)
    last = prompt
    for piece in pieces:
        click.echo(printable(piece), nl=False)
        last = piece
    if not last.endswith("\n"):
        click.echo()


def echo_safe_json(document: dict[str, Any]) -> None:
    """Print JSON in ASCII: nothing that a model wrote reaches a terminal as it is, and a reader gets it exactly."""
    import json

    click.echo(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False))
