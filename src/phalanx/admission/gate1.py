"""Gate 1, before planning: can this job be carried out by anybody here?

Looks at the job and takes a cheap look at its data; loads no torch, reads no file whole, changes nothing.
Each check is a function of the job that gives findings; a serious one blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

from phalanx.data import DataError, SourceReport, check_pairs, check_source
from phalanx.data.learn import check_vocabulary
from phalanx.foundation import nearest
from phalanx.job import Coverage, Decision, Finding, Job, MeshSpec, unenforceable
from phalanx.models.catalog import MODELS

_BLOCKING = ("high", "critical")
# Strategies that are meshes with an axis which no room carries out yet.
_NOT_CARRIED_OUT = ("sharded", "tensor", "pipeline", "hybrid")


def gate_1(job: Job) -> Decision:
    """Whether data, model, split of the work and demands are such that planning makes sense."""
    report = (check_pairs if job.spec.model.objective == "translate" else check_source)(job.spec.data)
    findings = (*report.problems, *unlearnable(job), *_split(job), *_demands(job))
    return Decision(
        verdict="block" if any(finding.severity in _BLOCKING for finding in findings) else "allow",
        gate=1,
        findings=findings,
        coverage=_coverage(report),
    )


def unlearnable(job: Job) -> tuple[Finding, ...]:
    """What is wrong with model, objective and vocabulary, wherever it is run; `location` is a key path."""
    return (*_vocabulary(job), *_model(job))


def _coverage(report: SourceReport) -> Coverage:
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
            "model files: training starts from new weights",
        ),
    )


def _vocabulary(job: Job) -> Iterator[Finding]:
    try:
        check_vocabulary(job.spec.data.vocabulary, job.spec.model.objective)
    except DataError as error:
        yield _finding("data.vocabulary", job.spec.data.vocabulary.kind, error.where, error.message, error.remedy)


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
