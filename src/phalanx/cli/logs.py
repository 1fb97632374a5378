"""`phalanx logs`: what the ranks of a job wrote, each line with its rank."""

from __future__ import annotations

import time
from pathlib import Path

import click

from phalanx.cli._options import home_option, name_argument, namespace_option
from phalanx.foundation import Home, UsageError


@click.command()
@name_argument
@namespace_option
@home_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--rank", type=click.IntRange(min=0), help="Of one rank only.")
@click.option("--generation", type=click.IntRange(min=1), help="[default: the newest]")
def command(name: str, namespace: str, home: Home, follow: bool, rank: int | None, generation: int | None) -> None:
    """Show what the workers of a job wrote.

    \b
    Examples:
      phalanx logs demo
      phalanx logs demo -f
      phalanx logs demo --rank 1 --generation 1
    """
    from phalanx.cluster import read_job
    from phalanx.daemons.foreground import open_state
    from phalanx.job import FINAL_PHASES

    state = open_state(home)
    offsets: dict[Path, int] = {}
    while True:
        job = read_job(state, namespace, name).job
        ended = job.status.phase in FINAL_PHASES
        logs = Path(job.status.run_dir) / "logs"
        wanted = generation or max(job.status.generation, 1)
        files = sorted((logs / f"generation-{wanted}").glob("rank-*.log"), key=_rank_of)
        if rank is not None:
            files = [file for file in files if _rank_of(file) == rank]
        if not files and (ended or not follow):
            which = f"generation {wanted}" + (f", rank {rank}" if rank is not None else "")
            raise UsageError(f"job {namespace}/{name} has no output of {which}", where=str(logs))
        for file in files:
            offsets[file] = _print_from(file, offsets.get(file, 0), last=ended or not follow)
        if ended or not follow:
            return
        time.sleep(0.3)


def _rank_of(file: Path) -> int:
    return int(file.stem.removeprefix("rank-"))


def _print_from(file: Path, offset: int, *, last: bool) -> int:
    """Print the whole lines after `offset` (with `last`, the unfinished one too); returns the new offset."""
    with file.open("rb") as stream:
        stream.seek(offset)
        data = stream.read()
    end = len(data) if last else data.rfind(b"\n") + 1
    for line in data[:end].decode(errors="replace").splitlines():
        click.echo(f"[rank {_rank_of(file)}] {line}")
    return offset + end
