"""`phalanx resume`: take up a job whose controller died, or run a stopped or failed one on."""

from __future__ import annotations

import click

from phalanx.cli._options import home_option, json_option, name_argument, namespace_option
from phalanx.foundation import Home, UsageError


@click.command()
@name_argument
@namespace_option
@home_option
@json_option
def command(name: str, namespace: str, home: Home, as_json: bool) -> int:
    """Go on with a job that was stopped or cut off.

    Workers that are still running are found and kept. A job that was stopped, or failed, goes on from
    its last good checkpoint, as the same attempt.

    \b
    Examples:
      phalanx resume demo
      phalanx resume demo -n research --json
    """
    from phalanx.cli.run import follow
    from phalanx.cluster import read_job, reopen
    from phalanx.daemons.hold import hold, open_state

    key = (namespace, name)
    state = open_state(home)
    read_job(state, *key)
    with hold(home, key) as held:
        status = read_job(state, *key).job.status
        if status.phase == "Succeeded" and status.report:
            raise UsageError(
                f"job {namespace}/{name} has succeeded; nothing is left to do",
                remedy="`phalanx run FILE` makes a new attempt of it",
            )
        reopen(state, key)
        return follow(held, as_json=as_json)
