"""`phalanx horovodrun`: Horovod's launcher, with its options, for scripts that stay as they are."""

from __future__ import annotations

import os
from typing import Any

import click

from phalanx.horovod.runner.options import OPTIONS, SECTIONS, Option

_BUILD = """\
Horovod v{version}:

Available Frameworks:
    [ ] TensorFlow
    [X] PyTorch
    [ ] MXNet

Available Controllers:
    [ ] MPI
    [X] Gloo

Available Tensor Operations:
    [{nccl}] NCCL
    [ ] DDL
    [ ] CCL
    [ ] MPI
    [X] Gloo"""


def _as_click(option: Option) -> click.Option:
    """`option` for click: given or None, so that a configuration file comes after what was typed."""
    names = [*option.typed, *option.off]
    if option.off:  # click pairs each name with its opposite
        names = [f"{name}/{off}" for name, off in zip(option.typed, option.off, strict=True)]
    help_text = f"{option.help}  (No effect here.)" if option.idle else option.help
    if option.kind is bool:
        return click.Option([option.name, *names], is_flag=True, default=None, help=help_text)
    kind = click.Choice(option.choices) if option.choices else option.kind
    return click.Option(
        [option.name, *names], type=kind, nargs=option.count, multiple=option.several, default=None, help=help_text
    )


class _Launcher(click.Command):
    """Shows the options in Horovod's sections. What comes after the program belongs to the program."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        params = (param for param in self.get_params(ctx) if isinstance(param, click.Option))
        records = {param.name: param.get_help_record(ctx) for param in params}
        for title, options in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([record for option in options if (record := records.pop(option.name))])
        with formatter.section("Others"):
            formatter.write_dl([record for record in records.values() if record])


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    from phalanx.horovod.version import __version__

    if value:
        click.echo(__version__)
        ctx.exit()


@click.command(
    cls=_Launcher,
    context_settings={"allow_interspersed_args": False},
    params=[
        *(_as_click(option) for option in OPTIONS.values()),
        click.Option(
            ["-v", "--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_print_version,
            help="Print which Horovod this behaves like.",
        ),
        click.Argument(["program"], nargs=-1, type=click.UNPROCESSED),
    ],
)
def command(program: tuple[str, ...], **values: Any) -> None:
    """Run a Horovod script, here or on other hosts.

    PROGRAM and all that follows it is run once for each rank. `import horovod.torch` in it means Phalanx's unless a
    real Horovod is installed. Other hosts are reached by ssh, and must have this Python at the same place. The first
    rank that fails ends the job.

    \b
    Examples:
      phalanx horovodrun -np 4 python train.py
      phalanx horovodrun -np 8 -H worker-0:4,worker-1:4 python train.py --epochs 3
      phalanx horovodrun -np 2 --min-np 1 --max-np 4 --host-discovery-script ./hosts.sh python train.py
      phalanx horovodrun --check-build
    """
    from phalanx.foundation import UsageError
    from phalanx.horovod.runner.launch import run_command
    from phalanx.horovod.runner.options import checked, read_config_file, without_effect
    from phalanx.horovod.runner.settings import settle

    if values["check_build"]:
        click.echo(_check_build())
        return
    given = checked(values)
    if path := given.get("config_file"):
        found, unknown = read_config_file(path)
        given = checked(found) | given
        for line in unknown:
            _say(line)
    for line in without_effect(given):
        _say(line)
    settings = settle(given, os.environ)
    if not program:
        raise UsageError("there is no program to run", remedy="write it last: phalanx horovodrun -np 2 python train.py")
    run_command(settings, program, _say)


def _say(line: str) -> None:
    click.echo(f"phalanx: {line}", err=True)


def _check_build() -> str:
    """Horovod's table; whether torch has NCCL is asked of a child, for this process loads no torch."""
    import subprocess
    import sys

    from phalanx.horovod.version import __version__

    question = "import sys, torch.distributed as dist; sys.exit(not (dist.is_available() and dist.is_nccl_available()))"
    nccl = subprocess.run([sys.executable, "-c", question], capture_output=True, check=False).returncode == 0
    return _BUILD.format(version=__version__, nccl="X" if nccl else " ")
