"""`phalanx glue`: a model fine-tuned on each of GLUE's tasks that a directory holds, beside published scores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phalanx.cli._options import NameType, echo_json, home_option, json_option
from phalanx.foundation import Home, PhalanxError

if TYPE_CHECKING:
    from phalanx.evaluation.glue import GlueReport, Task, TaskScore
    from phalanx.job import Job

NAMESPACE = "glue"


class TaskFailed(PhalanxError):
    """A task's job ended without an evaluation."""


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", required=True, metavar="NAME", help="Of the catalogue, such as bert-tiny.")
@click.option("--weights", type=click.Path(path_type=Path), help="Begin with those of a run or Hugging Face directory.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Only this one; may be repeated.  [default: all]")
@click.option(
    "--epochs",
    type=click.FloatRange(0, 1000, min_open=True),
    default=4.0,
    show_default=True,
    help="Passes over a task's examples.",
)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Examples a step.")
@click.option("--lr", type=float, default=1e-4, show_default=True, help="Learning rate after warmup.")
@click.option("--length", type=click.IntRange(8), default=128, show_default=True, help="Tokens of an example, at most.")
@click.option(
    "--vocabulary", type=click.IntRange(256), default=8192, show_default=True, help="Entries, without weights."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of fresh weights and the order.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that train a task.")
@click.option("--name", type=NameType(), default="glue", show_default=True, help="How the jobs' names begin.")
@home_option
@json_option
def command(
    directory: Path, model: str, tasks: tuple[str, ...], name: str, home: Home, as_json: bool, **options: Any
) -> None:
    """Fine-tune a model on GLUE's tasks, beside published scores.

    DIRECTORY has a folder a task (CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI) with the files as GLUE
    publishes them. Each task found is a job of the team `glue`, trained on train.tsv and judged on dev.tsv by its own
    metrics; one that has succeeded before with the same settings and files is not trained again. A task that is missing
    is said.

    \b
    Examples:
      phalanx glue glue_data --model bert-tiny --weights bert_uncased_L-2_H-128_A-2 --lr 3e-4
      phalanx glue glue_data --model bert-mini --task RTE --task MRPC --epochs 10
      phalanx glue glue_data --model bert-tiny --json > glue.json
    """
    from phalanx.evaluation.glue import GlueReport, tasks_in

    found, missing = tasks_in(directory, tasks)
    scores = []
    for task in found:
        job = job_of(task, directory, model, f"{name}-{task.name.lower()}", **options)
        scores.append(_score(task, _finished(job, home, quiet=as_json), directory, home))
    report = GlueReport(model, tuple(scores), missing)
    if as_json:
        echo_json(report.to_dict())
        return
    for line in report_lines(report):
        click.echo(line)


def job_of(
    task: Task,
    directory: Path,
    model: str,
    name: str,
    *,
    weights: Path | None,
    epochs: float,
    batch: int,
    lr: float,
    length: int,
    vocabulary: int,
    seed: int,
    workers: int,
) -> Job:
    """The task as a job: its training file, its first development file, a schedule of so many epochs."""
    from phalanx.data.table import read_examples
    from phalanx.job import Job

    examples = sum(1 for _ in read_examples(task.train(directory), task.columns, malformed=lambda error: None))
    steps = max(1, math.ceil(epochs * examples / batch))
    spec = {
        "model": {"name": model, "objective": task.objective, "weights": None if weights is None else str(weights)},
        "data": {
            "source": str(task.train(directory).absolute()),
            "held_out_source": str(task.held_out(directory)[0].absolute()),
            "columns": task.columns,
            "labels": task.labels or None,
            "sequence_length": length,
            "vocabulary": {"kind": "wordpiece", "size": vocabulary},
        },
        "training": {
            "steps": steps,
            "global_batch": min(batch, examples),
            "optimizer": {"lr": lr},
            "schedule": {"name": "linear", "warmup": math.ceil(steps / 10)},
            "evaluate_every": max(1, steps // 4),
            "checkpoint_every": max(1, steps // 2),
            "seed": seed,
        },
        "workers": {"count": workers},
    }
    return Job.model_validate({"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})


def _finished(job: Job, home: Home, *, quiet: bool) -> Job:
    """The job after it has succeeded, now or before. Raises TaskFailed."""
    from phalanx.cli._follow import Follower
    from phalanx.cli.run import with_absolute_source
    from phalanx.cluster import JobNotFound, read_job, submit
    from phalanx.daemons.foreground import control
    from phalanx.daemons.hold import hold, open_state

    job = with_absolute_source(job)
    key = job.metadata.namespace, job.metadata.name
    state = open_state(home)
    try:
        before = read_job(state, *key).job
        if before.status.phase == "Succeeded" and before.spec == job.spec and _on_the_same_text(before):
            return before
    except JobNotFound:
        pass
    with hold(home, key) as held:
        submit(state, job, home.runs_dir)
        begun = read_job(state, *key).job
        with Follower(home, begun, quiet=quiet) as follower:
            follower.say(f"{'/'.join(key)}: {job.spec.training.steps:,} steps, in {begun.status.run_dir}")
            ended = control(held, follower)
    if ended.status.phase != "Succeeded":
        raise TaskFailed(
            f"the job {'/'.join(key)} ended as {ended.status.phase}",
            where=ended.status.run_dir,
            remedy=f"`phalanx describe job {key[1]} -n {key[0]}` says why; tasks that succeeded are not trained again",
        )
    return ended


def _on_the_same_text(before: Job) -> bool:
    """Whether the files still say what the job was trained on; False where its run is gone."""
    from phalanx.data.corpus import MANIFEST, CorpusManifest
    from phalanx.data.prepare import recipe_of

    try:
        record = (Path(before.status.run_dir) / "data" / MANIFEST).read_text("utf-8")
    except FileNotFoundError:
        return False
    spec = before.spec
    return recipe_of(spec.prepared_data, spec.model.objective).digest == CorpusManifest.from_json(record).digest


def _score(task: Task, job: Job, directory: Path, home: Home) -> TaskScore:
    """From the job's own evaluation; a second development file is judged by the same checkpoint."""
    from phalanx.evaluation.glue import score_of
    from phalanx.evaluation.labelled import judge_file

    run_dir = Path(job.status.run_dir)
    documents = [json.loads((run_dir / "evaluation.json").read_text("utf-8"))["labelled"]]
    documents += [judge_file(run_dir, file, home.cache_dir) for file in task.held_out(directory)[1:]]
    return score_of(task, documents, str(run_dir))


def report_lines(report: GlueReport) -> list[str]:
    """A table as Markdown has it, so that it can be pasted, then what must be known of it."""
    rows = report.table()
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return [*lines, "", *report.notes()]
