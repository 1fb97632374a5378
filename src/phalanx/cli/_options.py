"""Options and small output helpers that several verbs share. Imports click and foundation only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from phalanx.foundation import Home, UsageError, check_name

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class NameType(click.ParamType[str]):
    """A DNS label, the name of an object or of a team."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_name(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _find_home(ctx: click.Context, _param: click.Parameter, value: str | None) -> Home:
    """The verb's own --home, else the one before the verb, else the environment's or the default."""
    shared = ctx.find_root().params.get("home")
    return Home.find(value or shared)


def home_option(command: Decorated) -> Decorated:
    """`--home DIR`; the verb gets `home: Home`."""
    option = click.option(
        "--home",
        type=click.Path(file_okay=False),
        metavar="DIR",
        callback=_find_home,
        help="Where state, store and runs live.  [default: $PHALANX_HOME, else ~/.phalanx]",
    )
    return option(command)


def namespace_option(command: Decorated) -> Decorated:
    """`-n/--namespace NAME`; the verb gets `namespace: str`."""
    option = click.option(
        "-n",
        "--namespace",
        type=NameType(),
        default="default",
        show_default=True,
        help="The team that the job belongs to.",
    )
    return option(command)


def name_argument(command: Decorated) -> Decorated:
    """`NAME`, of a job; the verb gets `name: str`."""
    return click.argument("name", type=NameType())(command)


def job_file_argument(command: Decorated) -> Decorated:
    """`FILE`, a job's YAML; the verb gets `file: Path`. Whether it can be read is for `job.read_job` to say."""
    return click.argument("file", type=click.Path(path_type=Path))(command)


def json_option(command: Decorated) -> Decorated:
    """`--json`; the verb gets `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")(command)


def refuse_unwritable(out: Path) -> None:
    """Raises UsageError when no file can be written there: before the work, not after it."""
    directory = out.parent
    if out.is_dir() or not directory.is_dir() or not os.access(directory, os.W_OK):
        what = "is a directory" if out.is_dir() else "its directory cannot be written to, or is not there"
        raise UsageError(what, where=str(out), remedy="name a file with --out, in a directory that is there")


def echo_json(value: Any) -> None:
    """Print `value` (of JSON's own types; anything else as its `str`) on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
