"""What a person sees while a job is being controlled: one line a decision, then a bar with loss, speed and time left.

Everything goes to standard error: standard output is for programs, which get the outcome or the report's path.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.cluster import Action
from phalanx.daemons.tail import JobTail
from phalanx.daemons.words import last_words
from phalanx.foundation import Home, estimate_in_words, size_in_words
from phalanx.job import Condition, Job, Plan

if TYPE_CHECKING:
    from rich.progress import TaskID

PLAIN_EVERY_S = 10.0
POLL_EVERY_S = 0.5
# Steps that are children and say in their logs how far they are.
_LOGS = {"planning": "plan.log", "evaluating beside the baselines": "evaluate.log"}
_LOG_PREFIX = re.compile(r"^\S+ \S+ [A-Z]+ [\w.]+: ")
_DOING = {
    "admit": "reading the data source",
    "plan": "planning",
    "check_host": "looking at the host",
    "place": "placing workers",
    "start_agent": "starting workers",
    "stop_workers": "ending the workers",
    "evaluate": "evaluating beside the baselines",
    "report": "writing the report",
}


class Follower:
    """A `Listener` that draws. Use as a context manager."""

    def __init__(self, home: Home, job: Job, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._home = home
        self._quiet = quiet
        self._loss_unit = "(mean squared error)" if job.spec.model.objective == "regress" else "nats/token"
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("", total=None, words="")
        self._tail = JobTail(home.spool_dir, job.metadata.uid, job.status.attempt)
        self._said: dict[str, str] = {}
        self._doing = ""
        self._latest: dict[str, Any] = {}
        self._child_said = ""
        self._polled, self._printed = 0.0, time.monotonic()

    def __enter__(self) -> Follower:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, markup=False)

    def acting(self, action: Action) -> None:
        words = _DOING.get(action.name, action.name)
        if words != self._doing:
            self._doing = words
            self._begin(words)
            if not self._console.is_terminal:
                self.say(f"  ... {words}")
        if action.name == "place" and action.why:
            self.say(f"! {action.why}")
            self.say(f"  starting again from the last checkpoint, generation {action.generation}")

    def _begin(self, words: str) -> None:
        """A bar without an end, in the place of one that is full maybe: a full one stands still, clock and all."""
        started = self._bar.tasks[0].start_time
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(words, total=None, words="")
        self._bar.tasks[0].start_time = started

    def stopping(self) -> None:
        self.say("stopping: the workers write a checkpoint first; a second Ctrl-C does not wait for them")

    def changed(self, job: Job) -> None:
        for condition in job.status.conditions:
            words = f"{condition.status}/{condition.reason}/{condition.message}"
            if self._said.get(condition.type) == words:
                continue
            self._said[condition.type] = words
            if condition.type == "Planned" and condition.status == "True":
                self._say_plan(job)
            elif _is_said_elsewhere(condition, job):
                continue
            else:
                mark = "x" if condition.status == "False" and job.status.phase == "Failed" else "-"
                self.say(f"{mark} {condition.type}: {condition.message or condition.reason}")

    def tick(self, job: Job) -> None:
        if self._quiet or time.monotonic() - self._polled < POLL_EVERY_S:
            return
        self._polled = time.monotonic()
        for row in self._tail.poll():
            if row.table == "steps" and row.context["rank"] == 0:
                self._latest = row.fields
            elif row.table == "validations":
                self._say_validation(row.fields)
            elif row.table == "checkpoints" and row.fields.get("event") == "damaged":
                self.say(f"! damaged checkpoint {row.fields['path']}: {row.fields['message']}; using the one before")
        if self._latest and job.status.phase in ("Running", "Placed"):
            self._draw_step(job)
        elif self._doing in _LOGS:
            words = last_words(Path(job.status.run_dir) / "logs" / _LOGS[self._doing])
            self._draw_child(_LOG_PREFIX.sub("", words)[:80])

    def _draw_child(self, words: str) -> None:
        """How far a step is. A failure's last line, which is JSON, is for the controller to say."""
        if words.startswith("{"):
            return
        self._bar.update(self._task, words=words)
        if words != self._child_said and self._is_time_for_a_line():
            self._child_said = words
            self.say(f"  {words}")

    def _is_time_for_a_line(self) -> bool:
        """Where no bar is drawn, progress is a line now and then."""
        if self._console.is_terminal or time.monotonic() - self._printed < PLAIN_EVERY_S:
            return False
        self._printed = time.monotonic()
        return True

    def _say_plan(self, job: Job) -> None:
        plan = Plan.model_validate_json((Path(job.status.run_dir) / "plan.json").read_bytes())
        predicted = plan.predicted
        seconds = predicted.step_seconds * job.spec.training.steps
        self.say(
            f"- Planned: {predicted.parameters / 1e6:.2f} M parameters on {plan.mesh.size} workers, "
            f"micro-batch {plan.micro_batch} x {plan.accumulation}, {plan.precision}, "
            f"{size_in_words(predicted.memory.total)} a worker above its baseline"
        )
        self.say(f"  {job.spec.training.steps} steps: about {estimate_in_words(seconds)} of training, then evaluation")
        for demand in plan.not_enforced:
            self.say(f"  {demand}")

    def _say_validation(self, row: dict[str, Any]) -> None:
        loss, bits, right = row.get("loss"), row.get("bits_per_byte"), row.get("top1")
        said = (
            f"held-out loss {loss:.4f} {self._loss_unit}" if loss is not None else "nothing to predict in held-out text"
        )
        said += f", {bits:.3f} bits per byte" if bits is not None else ""
        said += f", {right:.1%} of first guesses right" if right is not None else ""
        self.say(f"  step {row['step']}: {said}")

    def _draw_step(self, job: Job) -> None:
        row, total = self._latest, job.spec.training.steps
        left = (total - row["step"]) * (row.get("step_s") or 0.0)
        words = f"loss {row['loss']:.3f}  {row['tokens_per_second']:,.0f} tokens/s  {estimate_in_words(left)} left"
        self._bar.update(
            self._task, description=f"step {row['step']}/{total}", total=total, completed=row["step"], words=words
        )
        if self._is_time_for_a_line():
            self.say(f"  step {row['step']}/{total}  {words}")


def _is_said_elsewhere(condition: Condition, job: Job) -> bool:
    """By the last line, by the restart that follows, or by the condition Trained."""
    if condition.type != "Running" or condition.status == "True":
        return condition.type == "Reported" and condition.status == "True"
    return job.status.phase in ("Placed", "Evaluating")


def say_end(follower: Follower, job: Job) -> None:
    """The result in a few lines. The report's path, which comes last, is for standard output."""
    run_dir = Path(job.status.run_dir)
    evaluation = run_dir / "evaluation.json"
    if job.status.phase == "Succeeded" and evaluation.exists():
        for line in evaluation_lines(json.loads(evaluation.read_bytes())):
            follower.say(line)
    name, namespace = job.metadata.name, job.metadata.namespace
    flag = "" if namespace == "default" else f" -n {namespace}"
    after = ""
    if job.status.phase == "Stopped":
        after = f"`phalanx resume {name}{flag}` goes on from the last checkpoint; "
    elif job.status.phase == "Failed" and any((run_dir / "logs").glob("generation-*")):
        after = f"`phalanx logs {name}{flag}` shows what the workers said; "
    follower.say(f"{namespace}/{name}: {job.status.phase}; {after}" + ("report:" if job.status.report else "no report"))


_UNITS = {
    "bits_per_byte": "bits per byte",
    "top1": "of [MASK] tokens right",
    "accuracy": "of the labels right",
    "mae": "off on average; less is better",
    "bleu": "BLEU",
}


def evaluation_lines(document: dict[str, Any]) -> list[str]:
    """The model and its baselines, a line each, best first."""
    metric = document["metric"]
    scores = [("this model", document["model"]["value"])]
    scores += [(baseline["name"], baseline["value"]) for baseline in document["baselines"]]
    share = metric in ("top1", "accuracy")
    scores.sort(key=lambda score: score[1], reverse=share or metric == "bleu")
    width = max(len(name) for name, _ in scores)
    unit = _UNITS.get(metric, metric)
    shown = [f"{value:.1%}" if share else f"{value:.1f}" if metric == "bleu" else f"{value:.3f}" for _, value in scores]
    return [f"  {name:<{width}}  {value} {unit}" for (name, _), value in zip(scores, shown, strict=True)]


def outcome(job: Job) -> dict[str, Any]:
    """For `--json`."""
    return {
        "namespace": job.metadata.namespace,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "attempt": job.status.attempt,
        "phase": job.status.phase,
        "restarts": job.status.restarts,
        "conditions": [c.model_dump(mode="json", by_alias=True) for c in job.status.conditions],
        "run_dir": job.status.run_dir,
        "report": job.status.report,
    }
