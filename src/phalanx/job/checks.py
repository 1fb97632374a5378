"""What must hold between several values of a job, whoever wrote it; needs no machine, model or data."""

from __future__ import annotations

from collections.abc import Iterator

from phalanx.job.document import KeyPath
from phalanx.job.spec import Job, ScheduleSpec

# The axes that may be larger than 1 in the mesh of a strategy that has a name.
_AXES = {
    "data": {"data"},
    "sharded": {"data", "shard"},
    "tensor": {"tensor"},
    "pipeline": {"pipeline"},
}

_WORKERS: KeyPath = ("spec", "workers")
_TRAINING: KeyPath = ("spec", "training")


def check(job: Job) -> list[tuple[KeyPath, str]]:
    """(key path in the file's spelling, sentence) of each contradiction; empty when there is none."""
    return [*_mesh(job), *_idle_workers(job), *_training(job), *_data(job)]


def _mesh(job: Job) -> Iterator[tuple[KeyPath, str]]:
    workers = job.spec.workers
    if workers.mesh is None:
        return
    sizes = workers.mesh.model_dump()
    if workers.mesh.size != workers.count:
        axes = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1) or "data 1"
        said = f"the mesh ({axes}) has {workers.mesh.size} workers, but count is {workers.count}; leave one of them out"
        yield (*_WORKERS, "mesh"), said
    extra = [name for name, size in sizes.items() if size > 1 and name not in _AXES.get(workers.strategy, sizes)]
    if extra:
        said = f"the strategy {workers.strategy} splits nothing along {' and '.join(extra)}, but the mesh does"
        yield (*_WORKERS, "strategy"), f"{said}; allowed: auto or hybrid, or a mesh without it"


def _idle_workers(job: Job) -> Iterator[tuple[KeyPath, str]]:
    workers, batch = job.spec.workers, job.spec.training.global_batch
    if workers.mesh is not None:
        readers, key = workers.mesh.data * workers.mesh.shard, "mesh"
    else:
        readers, key = workers.count if workers.strategy in ("auto", "data", "sharded") else 1, "count"
    if readers > batch:
        said = f"{readers} workers share a global batch of {batch}, so {readers - batch} would have nothing to do"
        yield (*_WORKERS, key), f"{said}; allowed: 1 to {batch}, or a larger training.globalBatch"


def _training(job: Job) -> Iterator[tuple[KeyPath, str]]:
    training = job.spec.training
    optimizer = training.optimizer
    if isinstance(training.micro_batch, int) and training.micro_batch > training.global_batch:
        said = f"{training.micro_batch} is more than globalBatch; allowed: 1 to {training.global_batch}, or auto"
        yield (*_TRAINING, "microBatch"), said
    if training.steps < training.schedule.warmup != ScheduleSpec().warmup:  # nobody chose the default
        said = f"{training.schedule.warmup} steps are more than the training has; allowed: 0 to {training.steps}"
        yield (*_TRAINING, "schedule", "warmup"), said
    for index, beta in enumerate(optimizer.betas):
        if not 0 <= beta < 1:
            yield (*_TRAINING, "optimizer", "betas", index), f"{beta:g}; allowed: a number at least 0 and below 1"
    if optimizer.embedding_lr is not None and optimizer.name != "muon":
        yield (*_TRAINING, "optimizer", "embeddingLr"), f"{optimizer.name} has one learning rate; only muon has two"


def _data(job: Job) -> Iterator[tuple[KeyPath, str]]:
    data = job.spec.data
    if not (data.source or data.mix):
        yield ("spec", "data", "source"), "there is none; allowed: text, not empty, or a mix of datasets instead"
    if data.source and data.mix:
        yield ("spec", "data", "mix"), "there is a source beside it; leave one of them out"
    if job.spec.model.objective == "masked-lm" and data.mask_probability * data.sequence_length < 1:
        said = f"less than one masked token in a sequence of {data.sequence_length}"
        yield ("spec", "data", "maskProbability"), f"{said}; allowed: at least {1 / data.sequence_length:.3f}"
