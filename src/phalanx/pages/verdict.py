"""The headline: what came of the job, in one sentence and a few numbers.

Says no more than the rows and files support: a job that ended early gets its cause, a model that is
behind a count table is said to be behind it. Knows no HTML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from phalanx.job import Job
from phalanx.pages.quantities import count, duration, number, percent
from phalanx.pages.rows import History
from phalanx.pages.run_files import Evaluation, RunFiles

METRIC_NAMES = {
    "bits_per_byte": "bits per byte",
    "top1": "right first guesses",
    "accuracy": "right labels",
    "mae": "off on average",
    "bleu": "BLEU",
    "loss": "nats per token",
    "perplexity": "perplexity",
}
SHARES = frozenset({"top1", "accuracy"})
Tone = Literal["good", "neutral", "bad"]


@dataclass(frozen=True)
class Tile:
    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    tone: Tone
    headline: str
    sentence: str
    cause: str = ""


def score_text(metric: str, value: float) -> str:
    """A score with its unit: `1.84 bits per byte`, `44.1 %`."""
    if metric in SHARES:
        return f"{percent(value)} {METRIC_NAMES[metric]}"
    return f"{number(value)} {METRIC_NAMES.get(metric, metric)}"


def lead(evaluation: Evaluation) -> float | None:
    """By what share the model is ahead of the strongest baseline; negative when it is behind."""
    model, strongest = evaluation.model, evaluation.strongest
    if model is None or strongest is None or strongest.value == 0:
        return None
    gain = strongest.value - model.value if evaluation.less_is_better else model.value - strongest.value
    return gain / abs(strongest.value)


def verdict(job: Job, files: RunFiles, history: History) -> Verdict:
    """What to say first."""
    phase, training = job.status.phase, history.training
    if phase == "Failed":
        return Verdict("bad", "The job failed", _how_far(job, history), cause(job))
    if phase == "Stopped":
        sentence = f"{_how_far(job, history)} Its last checkpoint is kept; phalanx resume goes on from there."
        return Verdict("neutral", "The job was stopped", sentence)
    if training.not_finite_at is not None:
        sentence = f"At step {training.not_finite_at:,} the loss was no number any more. Lower the learning rate."
        return Verdict("bad", "The training diverged", sentence)
    evaluation = files.evaluation
    if evaluation is not None:
        return _scored(evaluation)
    if phase == "Succeeded":
        return Verdict("neutral", "The job is done", f"{_how_far(job, history)} It was not evaluated.")
    return Verdict("neutral", f"The job is {phase.lower()}", _how_far(job, history))


def _scored(evaluation: Evaluation) -> Verdict:
    model, strongest, ahead = evaluation.model, evaluation.strongest, lead(evaluation)
    if model is None or strongest is None or ahead is None:
        text = score_text(evaluation.metric, model.value) if model is not None else "no score"
        return Verdict("neutral", "The job is done", f"On held-out files: {text}; no table to compare with.")
    ours, theirs = score_text(evaluation.metric, model.value), score_text(evaluation.metric, strongest.value)
    distance = percent(abs(ahead))
    if evaluation.metric in SHARES:
        distance = f"{abs(model.value - strongest.value) * 100:.1f} points"
    elif evaluation.translation is not None:
        distance = f"{abs(model.value - strongest.value):.1f} points"
    where, rival = ("files", "table") if evaluation.labelled is None else ("examples", "baseline")
    if evaluation.translation is not None:
        where, rival = "pairs", "baseline"
    kind = "count table" if rival == "table" else rival
    compared = f"On held-out {where} it has {ours}; the strongest {kind}, {strongest.name}, has {theirs}."
    if ahead > 0:
        return Verdict("good", f"It beats its strongest {rival} by {distance}", compared)
    return Verdict("neutral", f"It stays {distance} behind its strongest {rival}", compared)


def cause(job: Job) -> str:
    """The message of the condition that ended the job: the last one that became False and says something."""
    failed = [c for c in job.status.conditions if c.status == "False" and c.message]
    return max(failed, key=lambda c: c.time_ns).message if failed else ""


def loss_unit(job: Job) -> str:
    """Of the loss that the job brings down."""
    return "mean squared error" if job.spec.model.objective == "regress" else "nats per token"


def tiles(job: Job, files: RunFiles, history: History) -> list[Tile]:
    """The few numbers under the headline; only those that are known."""
    training, evaluation = history.training, files.evaluation
    found: list[Tile] = []
    if evaluation is not None and evaluation.model is not None:
        name = METRIC_NAMES.get(evaluation.metric, evaluation.metric)
        value = evaluation.model.value
        shown = percent(value) if evaluation.metric in SHARES else number(value)
        seen = "files" if evaluation.labelled is None else "examples"
        found.append(Tile(name, shown, f"on held-out {'pairs' if evaluation.translation is not None else seen}"))
    if history.validations:
        last = history.validations[-1]
        perplexity = f", perplexity {number(last['perplexity'])}" if last["perplexity"] is not None else ""
        unit = f"{loss_unit(job)}{perplexity}"
        found.append(Tile("held-out loss", number(last["loss"]), f"{unit}, step {last['step']:,}"))
        if last["top1"] is not None:
            among = f", {percent(last['top5'])} among the best five" if last["top5"] is not None else ""
            note = f"were right{among}, step {last['step']:,}"
            found.append(Tile("held-out first guesses", percent(last["top1"]), note))
    if training.loss is not None:
        found.append(Tile("training loss", number(training.loss), f"{loss_unit(job)}, last step"))
    if training.tokens_per_second:
        found.append(Tile("tokens per second", count(training.tokens_per_second), "median of the steps, all workers"))
    if training.steps:
        note = f"{training.steps:,} steps, {count(training.tokens)} tokens"
        found.append(Tile("time in steps", duration(training.seconds), note))
    workers = files.plan.mesh.size if files.plan is not None else job.spec.workers.count
    restarts = job.status.restarts
    found.append(Tile("workers", f"{workers}", f"{restarts} restart{'' if restarts == 1 else 's'}"))
    return found


def _how_far(job: Job, history: History) -> str:
    steps = max((s.step for s in history.steps), default=job.status.step)
    if not steps:
        return "No step was trained."
    return f"It got to step {steps:,} of {job.spec.training.steps:,}."
