"""`phalanx run`: submit a job and control it in the foreground, to its report."""

from __future__ import annotations

from pathlib import Path

import click

from phalanx.cli._options import echo_json, home_option, job_file_argument, json_option
from phalanx.foundation import Home


@click.command()
@job_file_argument
@home_option
@json_option
def command(file: Path, home: Home, as_json: bool) -> int:
    """Run a job to its report.

    Ctrl-C checkpoints and stops; `phalanx resume` goes on from there. A second Ctrl-C leaves at once.

    \b
    Examples:
      phalanx run examples/jobs/demo.yaml
      phalanx run my-job.yaml --home /data/phalanx
      phalanx run my-job.yaml --json > outcome.json
    """
    from phalanx.cluster import submit
    from phalanx.daemons.foreground import open_state
    from phalanx.job.yaml import read_job

    job = read_job(file)
    stored = submit(open_state(home), job, home.runs_dir)
    return follow(home, stored.key, as_json=as_json)


def follow(home: Home, key: tuple[str, str], *, as_json: bool) -> int:
    """Control the job of `key` to its end, drawing it; returns the exit code: 0 only when the job succeeded."""
    from phalanx.cli._follow import Follower, outcome, say_end
    from phalanx.cluster import read_job
    from phalanx.daemons.foreground import control, open_state

    job = read_job(open_state(home), *key).job
    with Follower(home, job, quiet=as_json) as follower:
        follower.say(f"{key[0]}/{key[1]}: attempt {job.status.attempt}, in {job.status.run_dir}")
        job = control(
            home, key, follower, stopping=lambda: follower.say("stopping: the workers write a checkpoint first")
        )
    say_end(follower, job)
    if as_json:
        echo_json(outcome(job))
    return {"Succeeded": 0, "Stopped": 130}.get(job.status.phase, 1)
