"""`phalanx describe`: one job, all that state says of it."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from phalanx.cli._kinds import kind_argument
from phalanx.cli._options import echo_json, home_option, json_option, name_argument, namespace_option
from phalanx.foundation import Home


@click.command()
@kind_argument
@name_argument
@namespace_option
@home_option
@json_option
def command(kind: str, name: str, namespace: str, home: Home, as_json: bool) -> None:
    """Show all that is known of a job.

    \b
    Examples:
      phalanx describe job demo
      phalanx describe job demo -n research --json
    """
    from phalanx.cluster import controller_lease, read_job, read_placement
    from phalanx.daemons.hold import open_state
    from phalanx.job.yaml import dump_job

    state, key = open_state(home), (namespace, name)
    job = read_job(state, *key).job
    placement = read_placement(state, key)
    if placement is not None and placement.placement.attempt != job.status.attempt:  # of the attempt before
        placement = None
    held = state.holder(controller_lease(key))
    if as_json:
        document = job.model_dump(mode="json", by_alias=True)
        document["placement"] = placement.placement.model_dump(mode="json", by_alias=True) if placement else None
        reported = placement.status if placement else None
        document["placementStatus"] = reported.model_dump(mode="json", by_alias=True) if reported else None
        document["controller"] = held.holder if held else None
        echo_json(document)
        return
    status = job.status
    click.echo(dump_job(job).rstrip())
    counts = f"attempt {status.attempt}, generation {status.generation}, {status.restarts} restarts"
    click.echo(f"\nphase: {status.phase}   {counts}")
    click.echo(f"controller: {held.holder if held else 'none'}")
    click.echo(f"run directory: {status.run_dir}")
    if status.report:
        click.echo(f"report: {status.report}")
    click.echo("conditions:")
    for condition in sorted(status.conditions, key=lambda c: c.time_ns):
        when = datetime.fromtimestamp(condition.time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        click.echo(f"  {when}  {condition.type}={condition.status}  {condition.reason}  {condition.message}")
    if placement and placement.status:
        click.echo("workers:")
        for member in placement.status.members:
            end = f"{member.exit.kind}: {member.exit.message}" if member.exit else ""
            click.echo(f"  rank {member.rank}  pid {member.pid}  {member.phase}  {end}".rstrip())
