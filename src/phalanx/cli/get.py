"""`phalanx get`: jobs in a table, once or until they end."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from phalanx.cli._kinds import Kind
from phalanx.cli._options import NameType, echo_json, home_option, json_option
from phalanx.foundation import Home

if TYPE_CHECKING:
    from phalanx.cluster import StoredJob


@click.command()
@click.argument("kind", type=Kind(), metavar="[jobs]", default="jobs")
@click.argument("name", type=NameType(), required=False)
@click.option("-n", "--namespace", type=NameType(), help="Of one team only.  [default: all; with NAME: default]")
@click.option(
    "-w",
    "--watch",
    is_flag=True,
    help="Print a line for every change, until all jobs have ended; with --json a JSON document a line.",
)
@home_option
@json_option
def command(kind: str, name: str | None, namespace: str | None, watch: bool, home: Home, as_json: bool) -> None:
    """List jobs with their phase.

    \b
    Examples:
      phalanx get
      phalanx get jobs -n research
      phalanx get job demo --watch
      phalanx get --json
    """
    from phalanx.cluster import list_jobs, read_job
    from phalanx.daemons.hold import open_state
    from phalanx.job import FINAL_PHASES

    state = open_state(home)

    def read() -> list[StoredJob]:
        return [read_job(state, namespace or "default", name)] if name else list_jobs(state, namespace)

    jobs = read()
    if as_json and not watch:
        echo_json([_row(stored) for stored in jobs])
        return
    if not jobs and not watch:
        click.echo(f"There are no jobs in {home.root}. `phalanx job init my-job.yaml` writes a first one.", err=True)
        return
    # As wide as what is there; a watch leaves room for what may come.
    least = (12, 26, 10) if watch else (len("namespace"), len("name"), len("phase"))
    rows = [(*stored.key, stored.job.status.phase) for stored in jobs]
    a, b, c = (max(map(len, column)) for column in zip(*rows, ["x" * width for width in least], strict=True))
    line = (
        f"{{namespace:<{a}}}  {{name:<{b}}}  {{phase:<{c}}}  "
        "{attempt:>7}  {generation:>10}  {restarts:>8}  {reason}"
    )
    if not as_json:
        heads = {
            key: key.upper() for key in ("namespace", "name", "phase", "attempt", "generation", "restarts", "reason")
        }
        click.echo(line.format(**heads))
    seen: dict[tuple[str, str], object] = {}
    while True:
        for stored in jobs:
            row = _row(stored)
            if seen.get(stored.key) != row:
                seen[stored.key] = row
                if as_json:
                    click.echo(json.dumps(row, ensure_ascii=False))
                else:
                    click.echo(line.format(**row))
        if not watch or (jobs and all(stored.job.status.phase in FINAL_PHASES for stored in jobs)):
            return
        time.sleep(0.3)
        jobs = read()


def _row(stored: StoredJob) -> dict[str, object]:
    status = stored.job.status
    newest = max(status.conditions, key=lambda condition: condition.time_ns, default=None)
    return {
        "namespace": stored.job.metadata.namespace,
        "name": stored.job.metadata.name,
        "phase": status.phase,
        "attempt": status.attempt,
        "generation": status.generation,
        "restarts": status.restarts,
        "reason": newest.reason if newest else "",
        "report": status.report,
    }
