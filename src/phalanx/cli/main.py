"""The `phalanx` command: finds the verb, and turns every failure into one message and an exit code.

    0  done          1  failed (PhalanxError)      2  the input is wrong (UsageError, click's own)
    130  Ctrl-C      141  the reader of our output went away

Imports click and foundation only. A verb is imported when it is invoked, by its line in
`cli.table`. `--debug`, before or after the verb, shows the traceback of a failure.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import click

import phalanx
from phalanx.cli.table import VERBS
from phalanx.foundation import PhalanxError, nearest

INTERRUPTED = 130
BROKEN_PIPE = 141


def _debug_option() -> click.Option:
    """Accepted wherever a person may write it; `main` has already looked for it."""
    return click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback when something fails.")


def _accept_debug(command: click.Command) -> click.Command:
    """Let `command`, and every command below it, take --debug too."""
    if not any("--debug" in param.opts for param in command.params):
        command.params.append(_debug_option())
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _accept_debug(below)
    return command


class VerbTable(click.Group):
    """A group whose commands are the table's: listed from it, imported when invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module_name, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module_name), attribute)
        return _accept_debug(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in VERBS and not name.startswith("-"):
            near = nearest(name, VERBS)
            hint = f" Did you mean {near!r}?" if near else " `phalanx --help` lists them."
            raise click.UsageError(f"There is no verb {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, summary) for name, (_, summary) in VERBS.items()])


@click.group(
    cls=VerbTable,
    name="phalanx",
    params=[_debug_option()],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--home",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where state, store and runs live.  [default: $PHALANX_HOME, else ~/.phalanx]",
)
@click.version_option(phalanx.__version__, prog_name="phalanx")
def cli(home: str | None) -> None:
    """Train models across many machines, and guard the machines they train on.

    \b
    Examples:
      phalanx job init my-job.yaml     write a first job file, with comments
      phalanx run my-job.yaml          run it to its report
      phalanx get --watch              see how it goes, from another terminal
    """


def _explain_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For `sys.excepthook`: an error that nobody foresaw still gives one screen, not a traceback."""
    del trace
    if isinstance(error, OSError) and error.filename is not None:
        what, remedy = f"{error.filename}: {error.strerror}", "check the path, its permissions and the disk"
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:  # of a file that is open, as the output is
        what, remedy = f"cannot write: {error.strerror}", "free space where the home lies and where the output goes"
    else:
        what = f"unexpected {kind.__name__}: {error}"
        remedy = "run it again with --debug, and report the traceback with the output of `phalanx version`"
    click.echo(f"phalanx: {what}\n  To do: {remedy}", err=True)


def _wants_debug(arguments: Sequence[str]) -> bool:
    """Known before click has parsed anything, for failures of the parsing itself; `--` ends the options."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--debug" in options


def _silence_output() -> None:
    """Point standard output at nothing, so that the flush at exit cannot fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `phalanx` with `arguments` (default: the process's own) and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = _wants_debug(given)
    if not debug:
        sys.excepthook = _explain_uncaught
    try:
        with cli.make_context("phalanx", given) as context:
            outcome: Any = cli.invoke(context)
        if sys.stdout is not None:  # None where the caller has closed it
            sys.stdout.flush()
    except PhalanxError as error:
        if debug:
            traceback.print_exc()
        from phalanx.cli._terminal import printable  # it may quote a file

        click.echo(f"phalanx: {printable(str(error))}", err=True)
        return error.exit_code
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("phalanx: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        _silence_output()
        return BROKEN_PIPE
    return outcome if isinstance(outcome, int) else 0
