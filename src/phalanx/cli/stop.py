"""`phalanx stop`: write that a job shall not run; whoever controls it makes that so."""

from __future__ import annotations

import click

from phalanx.cli._options import echo_json, home_option, json_option, name_argument, namespace_option
from phalanx.foundation import Home

WAIT_S = 90.0


def stop_job(home: Home, key: tuple[str, str]) -> str:
    """Ask for the stop and wait for it; with nobody in control, do it here. Returns the final phase."""
    import time

    from phalanx.cli._follow import Follower
    from phalanx.cluster import controller_lease, read_job, set_suspend
    from phalanx.daemons.foreground import control
    from phalanx.daemons.hold import hold, open_state
    from phalanx.foundation import PhalanxError
    from phalanx.job import FINAL_PHASES

    state = open_state(home)
    job = read_job(state, *key).job
    if job.status.phase in FINAL_PHASES and state.holder(controller_lease(key)) is None:
        return job.status.phase
    set_suspend(state, key, True)
    deadline = time.monotonic() + WAIT_S
    while state.holder(controller_lease(key)) is not None:
        if time.monotonic() > deadline:
            raise PhalanxError(
                f"job {'/'.join(key)} has not stopped after {WAIT_S:.0f} s",
                remedy="`phalanx describe job` shows what it does; it stops after its current step",
            )
        time.sleep(0.1)
    job = read_job(state, *key).job
    if job.status.phase not in FINAL_PHASES:
        with hold(home, key) as held, Follower(home, job, quiet=True) as follower:
            job = control(held, follower)
    return job.status.phase


@click.command()
@name_argument
@namespace_option
@home_option
@json_option
def command(name: str, namespace: str, home: Home, as_json: bool) -> None:
    """Checkpoint a running job and stop it.

    \b
    Examples:
      phalanx stop demo
      phalanx stop demo -n research
    """
    phase = stop_job(home, (namespace, name))
    if as_json:
        echo_json({"namespace": namespace, "name": name, "phase": phase})
    else:
        flag = "" if namespace == "default" else f" -n {namespace}"
        goes_on = f"; `phalanx resume {name}{flag}` goes on" if phase == "Stopped" else ""
        click.echo(f"{namespace}/{name}: {phase}{goes_on}")
