"""`phalanx export`: a trained model as files that transformers opens."""

from __future__ import annotations

from pathlib import Path

import click

from phalanx.cli._options import echo_json, json_option


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory to write: new, or an empty one.")
@json_option
def command(checkpoint: Path, out: Path, as_json: bool) -> None:
    """Write a trained model as Hugging Face's files.

    CHECKPOINT is a run directory (its newest good checkpoint is used), one checkpoint, or a directory of such
    files. Models of the families bert, gpt2 and llama can be written; transformers opens them by from_pretrained.

    \b
    Examples:
      phalanx export RUN --out my-bert
      phalanx export RUN/checkpoints/step-00000300 --out my-gpt2 --json
    """
    from phalanx.foundation import UsageError
    from phalanx.training import export_model, open_model

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("is there already, and is not an empty directory", where=str(out), remedy="name a new one")
    opened = open_model(checkpoint)
    export_model(opened, out)
    parameters = sum(parameter.numel() for parameter in opened.module.parameters())
    if as_json:
        echo_json({"out": str(out), "model": opened.config.to_dict(), "parameters": parameters, "step": opened.step})
        return
    click.echo(f"{out}: {opened.config.family}, {opened.config.objective}, {parameters:,} parameters")
