"""`phalanx timeline`: a run's steps and operations as a file that Perfetto opens."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import click

from phalanx.cli._options import home_option, name_argument, namespace_option
from phalanx.foundation import Home, PhalanxError, UsageError, write_atomic


@click.command()
@name_argument
@namespace_option
@home_option
@click.option("--attempt", type=click.IntRange(min=1), help="[default: the newest]")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write; `-`: standard output; compressed if it ends in .gz.  [default: NAME-timeline.json]",
)
def command(name: str, namespace: str, home: Home, attempt: int | None, output: Path | None) -> None:
    """Write what each rank did when, for Perfetto.

    The file is in Chrome's trace format: open it at https://ui.perfetto.dev or chrome://tracing. A rank is a process
    there; its lanes are the steps with their phases and the operations of each of its groups.

    \b
    Examples:
      phalanx timeline demo
      phalanx timeline demo --output demo.json.gz
      phalanx timeline demo --attempt 1 -o - | jq '.traceEvents | length'
    """
    from phalanx.cluster import read_job
    from phalanx.daemons.collector import collect_if_idle
    from phalanx.daemons.hold import open_state
    from phalanx.evaluation import timeline_of
    from phalanx.telemetry import Reader

    job = read_job(open_state(home), namespace, name).job
    if job.status.attempt < (attempt or 1):
        which = f"attempt {attempt}" if attempt else "attempt"
        raise UsageError(f"job {namespace}/{name} has no {which} yet", remedy="`phalanx run` begins one")
    try:
        collect_if_idle(home)
    except PhalanxError as error:
        click.echo(f"phalanx: the newest events are missing: {error}", err=True)
    reader = Reader(home.store_dir)
    trace = timeline_of(reader.rows, job.metadata.uid, attempt or job.status.attempt)
    for part in reader.damaged:
        click.echo(f"phalanx: {part}", err=True)
    text = json.dumps(_json_value(trace), separators=(",", ":"), allow_nan=False)
    if output == Path("-"):
        click.echo(text)
        return
    path = output or Path(f"{name}-timeline.json")
    write_atomic(path, gzip.compress(text.encode()) if path.suffix == ".gz" else text, mode=0o644)
    events = trace["traceEvents"]
    ranks = len({event["pid"] for event in events})
    click.echo(f"{path}: {len(events):,} events of {ranks} rank{'s' * (ranks > 1)}. Open it at https://ui.perfetto.dev")
    if trace["otherData"]["cut"]:
        click.echo("It begins late: there are more rows than a timeline can show.", err=True)


def _json_value(value: Any) -> Any:
    """JSON has no NaN and no infinities; written as strings, as protobuf's JSON mapping does."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    return value
