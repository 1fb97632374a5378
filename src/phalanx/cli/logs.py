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
    from phalanx.daemons.hold import open_state
    from phalanx.job import FINAL_PHASES

    state = open_state(home)
    offsets: dict[Path, int] = {}
    shown: list[Path] = []
    while True:
        job = read_job(state, namespace, name).job
        ended = job.status.phase in FINAL_PHASES or not follow
        logs = Path(job.status.run_dir) / "logs"
        files = _files(logs, generation, rank)
        if not files and ended:
            which = f"of generation {generation or job.status.generation}" + (
                f", rank {rank}" if rank is not None else ""
            )
            remedy = "`phalanx describe job` says what became of it" if job.status.generation == 0 else ""
            raise UsageError(f"job {namespace}/{name} has no output {which}", where=str(logs), remedy=remedy)
        for file in shown:
            if file not in files:  # of a generation that has ended: its last words come first
                offsets[file] = _print_from(file, offsets[file], last=True)
        for file in files:
            offsets[file] = _print_from(file, offsets.get(file, 0), last=ended)
        if ended:
            return
        shown = files
        time.sleep(0.3)


def _files(logs: Path, generation: int | None, rank: int | None) -> list[Path]:
    """Of one generation, the newest that has output if None; by rank."""
    found = {int(path.name.removeprefix("generation-")): path for path in logs.glob("generation-*")}
    directory = found.get(generation or max(found, default=0))
    files = sorted(directory.glob("rank-*.log"), key=_rank_of) if directory is not None else []
    return files if rank is None else [file for file in files if _rank_of(file) == rank]


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
