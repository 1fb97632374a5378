"""What a worker of a job builds and feeds, for those who plan: the same models, optimizers and batches."""

from __future__ import annotations

import math

from torch import nn

from phalanx.data import Loader, TrainingData
from phalanx.job import Job, MemoryPrediction, MeshSpec, Plan, Predicted
from phalanx.job.plan import ArithmeticPrecision
from phalanx.planning.trace import MicroBatch, Subject
from phalanx.training.beginning import build_model, model_config
from phalanx.training.loop import tensors
from phalanx.training.optimizers import make_optimizer


def subject_of(job: Job, data: TrainingData) -> Subject:
    """Of `job` on `data`. Raises what `training.beginning.model_config` does."""
    spec = job.spec
    config = model_config(spec, data)
    workers = spec.workers.count

    def make_model() -> nn.Module:
        return build_model(spec, config)

    def batch(rows: int) -> MicroBatch:
        """The first `rows` of rank 0's share of the first step; where steps differ in size, the largest there are."""
        if isinstance(data, Loader):
            return next(iter(tensors([data.largest_batch(rows, workers)])))
        return next(iter(tensors(data.feed(None, 0, workers, rows).take().batches[:1])))

    return Subject(make_model, lambda module: make_optimizer(module, spec.training.optimizer), batch)


def bare_plan(job: Job, micro_batch: int, precision: ArithmeticPrecision, threads: int = 1) -> Plan:
    """The plan of a micro-batch without what it takes, which is not known yet."""
    workers, global_batch = job.spec.workers.count, job.spec.training.global_batch
    nothing = MemoryPrediction(parameters=0, gradients=0, optimizer=0, activations=0)
    return Plan(
        mesh=MeshSpec(data=workers),
        global_batch=global_batch,
        micro_batch=micro_batch,
        accumulation=math.ceil(math.ceil(global_batch / workers) / micro_batch),
        precision=precision,
        threads=threads,
        predicted=Predicted(memory=nothing, step_seconds=0, flops=0, checkpoint_bytes=0, parameters=0),
    )
