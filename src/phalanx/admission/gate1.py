"""Gate 1, before planning: can this job be carried out by anybody here?

Looks at the job and takes a cheap look at its data; loads no torch, reads no file whole, changes nothing.
Each check is a function of the job that gives findings; a serious one blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from phalanx.data import (
    DataError,
    SourceReport,
    check_datasets,
    check_examples,
    check_pairs,
    check_source,
    has_datasets,
)
from phalanx.data.labelled import OBJECTIVES as LABELLED
from phalanx.data.learn import check_vocabulary
from phalanx.foundation import nearest
from phalanx.job import Coverage, Decision, Finding, Job, MeshSpec, unenforceable
from phalanx.models.catalog import MODELS

_BLOCKING = ("high", "critical")
# Strategies that are meshes with an axis which no room carries out yet.
_NOT_CARRIED_OUT = ("sharded", "tensor", "pipeline", "hybrid")


def gate_1(job: Job) -> Decision:
    """Whether data, model, split of the work and demands are such that planning makes sense."""
    report = _look_at_data(job)
    findings = (*report.problems, *unlearnable(job), *_weights(job), *_split(job), *_demands(job))
    return Decision(
        verdict="block" if any(finding.severity in _BLOCKING for finding in findings) else "allow",
        gate=1,
        findings=findings,
        coverage=_coverage(job, report),
    )


def _look_at_data(job: Job) -> SourceReport:
    objective, data = job.spec.model.objective, job.spec.data
    if has_datasets(data):
        return check_datasets(job.spec)
    if objective in LABELLED:
        return check_examples(data, objective)
    return check_pairs(data) if objective == "translate" else check_source(data)


def unlearnable(job: Job) -> tuple[Finding, ...]:
    """What is wrong with model, objective and vocabulary, wherever it is run; `location` is a key path."""
    return (*_vocabulary(job), *_model(job))


def _coverage(job: Job, report: SourceReport) -> Coverage:
    weights = "training starts from new weights" if job.spec.model.weights is None else "read when training begins"
    return Coverage(
        scanned=(
            f"data: {report.files:,} files, {report.bytes:,} bytes",
            "vocabulary",
            "model",
            "split of the work",
            "security demands",
        ),
        skipped=(
            "content of the data: sampled only, read whole when it is prepared",
            "code and dependencies: a job brings none of its own",
            f"model files: {weights}",
        ),
    )


def _vocabulary(job: Job) -> Iterator[Finding]:
    if has_datasets(job.spec.data):
        return  # they bring their own, which was looked at with them
    vocabulary = job.spec.prepared_data.vocabulary
    try:
        check_vocabulary(vocabulary, job.spec.model.objective)
    except DataError as error:
        subject = vocabulary.path or vocabulary.kind
        yield _finding("data.vocabulary", subject, error.where, error.message, error.remedy)


def _model(job: Job) -> Iterator[Finding]:
    """The name is one of the catalogue's, and the model can learn the objective."""
    model = job.spec.model
    entry = MODELS.get(model.name)
    if entry is None:
        guess = nearest(model.name, MODELS)
        known = ", ".join(MODELS)
        remedy = f"did you mean {guess}? there are: {known}" if guess else f"use one of: {known}"
        yield _finding("model.unknown", model.name, "spec.model.name", f"there is no model {model.name!r}", remedy)
    elif model.objective not in entry.objectives:
        fitting = ", ".join(name for name, other in MODELS.items() if model.objective in other.objectives)
        yield _finding(
            "model.objective",
            model.name,
            "spec.model.objective",
            f"{model.name} learns {' or '.join(entry.objectives)}, not {model.objective}",
            f"use objective: {entry.objectives[0]}, or a model for {model.objective}: {fitting or 'there is none yet'}",
        )


def _weights(job: Job) -> Iterator[Finding]:
    """Something that holds weights is there; whether they fit is seen when they are read."""
    weights = job.spec.model.weights
    if weights is None:
        return
    path = Path(weights).expanduser()
    if not any(next(path.glob(name), None) for name in ("config.json", "manifest.json", "checkpoints", "step-*")):
        what = "holds no model" if path.is_dir() else "is no directory"
        remedy = "name a run, a checkpoint or a directory of Hugging Face's files (config.json, safetensors)"
        yield _finding("model.weights", weights, "spec.model.weights", f"{weights} {what}", remedy)


def _split(job: Job) -> Iterator[Finding]:
    """Only copies of the whole model along `data` are carried out so far."""
    workers = job.spec.workers
    remedy = f"use strategy: data (or auto) and count: {workers.count}, without a mesh"
    if workers.strategy in _NOT_CARRIED_OUT:
        said = f"the strategy {workers.strategy} is not carried out yet: every worker holds the whole model"
        yield _finding("workers.strategy", workers.strategy, "spec.workers.strategy", said, remedy)
    mesh = workers.mesh or MeshSpec(data=workers.count)
    axes = [name for name, size in mesh.model_dump().items() if name != "data" and size > 1]
    for axis in axes:
        said = f"nothing is split along {axis} yet: every worker holds the whole model"
        yield _finding("workers.mesh", axis, f"spec.workers.mesh.{axis}", said, remedy)


def _demands(job: Job) -> Iterator[Finding]:
    """A demand by name is a promise; what no room can keep is refused, not ignored."""
    for name, demand in unenforceable(job.spec.security).items():
        yield _finding(
            "security.unenforceable",
            f"{name}={demand}",
            f"spec.security.{name}",
            f"{name}: {demand} is demanded, and nothing here enforces it yet",
            f"use {name}: auto, and the report says what is not enforced; or {name}: none",
        )


def _finding(rule: str, subject: str, location: str, evidence: str, remedy: str) -> Finding:
    return Finding(
        id=f"{rule}:{subject}",
        rule=rule,
        severity="high",
        subject=subject,
        location=location,
        evidence=evidence,
        remedy=remedy,
        source="admission",
    )
