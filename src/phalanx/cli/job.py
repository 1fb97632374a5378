"""`phalanx job`: write, check and describe job files. Starts nothing and needs no home."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phalanx.cli._options import echo_json, job_file_argument, json_option

if TYPE_CHECKING:
    from phalanx.job import Job


@click.group()
def command() -> None:
    """Write and check job files.

    \b
    Examples:
      phalanx job init my-job.yaml        write a first file, with comments
      phalanx job validate my-job.yaml    say everything that is wrong in it
      phalanx job schema > job.json       the JSON Schema, for an editor
    """


@command.command()
@job_file_argument
@json_option
def validate(file: Path, as_json: bool) -> None:
    """Check FILE and say everything that is wrong in it; exits with 2 then.

    Whether the data is there, and whether this machine can run it, is for `phalanx plan` to say.

    \b
    Examples:
      phalanx job validate my-job.yaml
      phalanx job validate my-job.yaml --json
    """
    from phalanx.job import JobFileError, read_job

    try:
        job = read_job(file, also=_unlearnable)
    except JobFileError as error:
        if not as_json:
            raise
        problems = [
            {"line": problem.line, "path": list(problem.path), "message": problem.message} for problem in error.problems
        ]
        echo_json({"file": str(file), "valid": False, "problems": problems})
        raise SystemExit(error.exit_code) from error
    if as_json:
        echo_json({"file": str(file), "valid": True, "job": job.model_dump(mode="json", by_alias=True)})
        return
    spec, name = job.spec, f"{job.metadata.namespace}/{job.metadata.name}"
    click.echo(
        f"{file}: valid. {name} trains {spec.model.name} ({spec.model.objective}) on {spec.data.name}: "
        f"{spec.training.steps:,} steps of {spec.training.global_batch:,} sequences, "
        f"{spec.workers.count} worker{'s' if spec.workers.count > 1 else ''}."
    )


def _unlearnable(job: Job) -> list[tuple[tuple[str | int, ...], str]]:
    """What admission would refuse wherever the job is run."""
    from phalanx.admission import unlearnable

    return [(tuple(f.location.split(".")), f"{f.evidence}; {f.remedy}") for f in unlearnable(job)]


@command.command()
def schema() -> None:
    """Print the JSON Schema of a job file (draft 2020-12), for editors.

    \b
    Examples:
      phalanx job schema > job.schema.json
      # then, as the first line of a job file, for the YAML language server:
      # yaml-language-server: $schema=job.schema.json
    """
    from phalanx.job import json_schema

    echo_json(json_schema())


@command.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("job.yaml"))
def init(file: Path) -> None:
    """Write a commented first job to FILE [default: job.yaml]; a file that is there is kept.

    \b
    Examples:
      phalanx job init
      phalanx job init experiments/tiny.yaml
    """
    from phalanx.foundation import UsageError, writing
    from phalanx.job import template

    name = re.sub(r"[^a-z0-9]+", "-", file.stem.lower())[:63].strip("-")
    text = template(name if name not in ("", "job") else "my-first-job")
    if file.exists():
        raise UsageError("there is already a file of this name", where=str(file), remedy="name another, or remove it")
    with writing(file), file.open("x") as stream:
        stream.write(text)
    click.echo(f"{file} is written. Next:")
    click.echo(f"  phalanx plan {file}   what it will take\n  phalanx run {file}    to its report")
