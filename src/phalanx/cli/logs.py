"""`phalanx logs`: what the ranks of a job wrote, each line with its rank."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phalanx.cli._options import echo_json, home_option, json_option, name_argument, namespace_option
from phalanx.foundation import Home, UsageError

if TYPE_CHECKING:
    from phalanx.job import Job


@dataclass(frozen=True)
class _Line:
    rank: int
    generation: int
    line: str


@click.command()
@name_argument
@namespace_option
@home_option
@json_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended; with --json a document a line.")
@click.option("--rank", type=click.IntRange(min=0), help="Of one rank only.")
@click.option("--generation", type=click.IntRange(min=1), help="[default: the newest]")
def command(
    name: str, namespace: str, home: Home, as_json: bool, follow: bool, rank: int | None, generation: int | None
) -> None:
    """Show what the workers of a job wrote.

    \b
    Examples:
      phalanx logs demo
      phalanx logs demo -f
      phalanx logs demo --rank 1 --generation 1
      phalanx logs demo --json
    """
    lines = _lines(home, (namespace, name), follow, rank, generation)
    if as_json and not follow:
        echo_json([asdict(line) for line in lines])
        return
    for line in lines:
        click.echo(json.dumps(asdict(line), ensure_ascii=False) if as_json else f"[rank {line.rank}] {line.line}")


def _lines(home: Home, key: tuple[str, str], follow: bool, rank: int | None, generation: int | None) -> Iterator[_Line]:
    """Those there are, and with `follow` those to come until the job has ended."""
    from phalanx.cluster import read_job
    from phalanx.daemons.hold import open_state
    from phalanx.job import FINAL_PHASES

    state = open_state(home)
    offsets: dict[Path, int] = {}
    while True:
        job = read_job(state, *key).job
        ended = job.status.phase in FINAL_PHASES or not follow
        logs = Path(job.status.run_dir) / "logs"
        files = _files(logs, generation, rank)
        if not files and ended:
            raise _no_output(job, logs, generation, rank)
        for file in [file for file in offsets if file not in files]:
            yield from _read(file, offsets.pop(file), last=True)[0]  # of a generation that has ended: its last words
        for file in files:
            lines, offsets[file] = _read(file, offsets.get(file, 0), last=ended)
            yield from lines
        if ended:
            return
        time.sleep(0.3)


def _files(logs: Path, generation: int | None, rank: int | None) -> list[Path]:
    """Of one generation, the newest that has output if None; by rank."""
    found = {_generation_of(path): path for path in logs.glob("generation-*")}
    directory = found.get(generation or max(found, default=0))
    files = sorted(directory.glob("rank-*.log"), key=_rank_of) if directory is not None else []
    return files if rank is None else [file for file in files if _rank_of(file) == rank]


def _no_output(job: Job, logs: Path, generation: int | None, rank: int | None) -> UsageError:
    name = f"{job.metadata.namespace}/{job.metadata.name}"
    which = f"of generation {generation or job.status.generation}" + (f", rank {rank}" if rank is not None else "")
    remedy = "`phalanx describe job` says what became of it" if job.status.generation == 0 else ""
    return UsageError(f"job {name} has no output {which}", where=str(logs), remedy=remedy)


def _generation_of(directory: Path) -> int:
    return int(directory.name.removeprefix("generation-"))


def _rank_of(file: Path) -> int:
    return int(file.stem.removeprefix("rank-"))


def _read(file: Path, offset: int, *, last: bool) -> tuple[list[_Line], int]:
    """The whole lines after `offset` (with `last`, the unfinished one too), and the new offset."""
    with file.open("rb") as stream:
        stream.seek(offset)
        data = stream.read()
    end = len(data) if last else data.rfind(b"\n") + 1
    rank, generation = _rank_of(file), _generation_of(file.parent)
    return [_Line(rank, generation, line) for line in data[:end].decode(errors="replace").splitlines()], offset + end
