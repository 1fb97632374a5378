"""`phalanx run`: submit a job and control it in the foreground, to its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from phalanx.cli._options import echo_json, home_option, job_file_argument, json_option
from phalanx.foundation import Home

if TYPE_CHECKING:
    from phalanx.daemons.hold import Hold
    from phalanx.job import Job


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
    from phalanx.daemons.hold import hold, open_state
    from phalanx.job.yaml import read_job

    job = with_absolute_source(read_job(file))
    key = job.metadata.namespace, job.metadata.name
    with hold(home, key) as held:
        submit(open_state(home), job, home.runs_dir)
        return follow(held, as_json=as_json)


def with_absolute_source(job: Job) -> Job:
    """Workers run in another directory, and `resume` may be typed in a third, maybe once the text is there."""
    from phalanx.data import BUILT_IN

    def absolute(source: str) -> str:
        if not source or source in BUILT_IN or "\0" in source:  # the last is a mistake that admission explains
            return source
        return str(Path(source).expanduser().absolute())

    def absolute_or_none(path: str | None) -> str | None:
        return None if path is None else absolute(path)

    given, model = job.spec.data, job.spec.model
    mix = tuple(part.model_copy(update={"source": absolute(part.source)}) for part in given.mix)
    vocabulary = given.vocabulary.model_copy(update={"path": absolute_or_none(given.vocabulary.path)})
    held_out = absolute_or_none(given.held_out_source)
    changes = {"source": absolute(given.source), "mix": mix, "vocabulary": vocabulary, "held_out_source": held_out}
    weights = model.model_copy(update={"weights": absolute_or_none(model.weights)})
    spec = job.spec.model_copy(update={"data": given.model_copy(update=changes), "model": weights})
    return job.model_copy(update={"spec": spec})


def follow(held: Hold, *, as_json: bool) -> int:
    """Control the job of `held` to its end, drawing it; returns the exit code: 0 only when the job succeeded."""
    from phalanx.cli._follow import Follower, outcome, say_end
    from phalanx.cluster import read_job
    from phalanx.daemons.foreground import control
    from phalanx.daemons.hold import open_state

    job = read_job(open_state(held.home), *held.key).job
    with Follower(held.home, job, quiet=as_json) as follower:
        follower.say(f"{'/'.join(held.key)}: attempt {job.status.attempt}, in {job.status.run_dir}")
        job = control(held, follower)
    say_end(follower, job)
    if as_json:
        echo_json(outcome(job))
    elif job.status.report:
        click.echo(job.status.report)
    return {"Succeeded": 0, "Stopped": 130}.get(job.status.phase, 1)
