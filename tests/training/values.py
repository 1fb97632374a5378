"""Small real values for the tests of training: a plan, a manifest, a job."""

from __future__ import annotations

import math

from phalanx.job import Job, MemoryPrediction, MeshSpec, Plan, Predicted
from phalanx.training.manifest import Manifest, Rng

SMALL_DECODER = "gpt-tiny"


def make_plan(workers: int = 1, global_batch: int = 8, micro_batch: int = 4, **changes: object) -> Plan:
    memory = MemoryPrediction(parameters=0, gradients=0, optimizer=0, activations=0)
    rows = math.ceil(global_batch / workers)
    values: dict[str, object] = {
        "mesh": MeshSpec(data=workers),
        "global_batch": global_batch,
        "micro_batch": micro_batch,
        "accumulation": math.ceil(rows / micro_batch),
        "precision": "fp32",
        "predicted": Predicted(memory=memory, step_seconds=0, flops=0, checkpoint_bytes=0, parameters=0),
    }
    return Plan.model_validate(values | changes)


def make_manifest(step: int) -> Manifest:
    return Manifest(step=step, data_cursor=step, rng=Rng(seed=1, rule="none"), model={"name": "t"}, plan=make_plan())


def make_job(source: object, *, dropout: float = 0.0, model: str = SMALL_DECODER, **training: object) -> Job:
    """A small decoder on bytes, 14 steps of 7 sequences, a checkpoint every 5 and a validation every 7 steps."""
    values = {"steps": 14, "global_batch": 7, "checkpoint_every": 5, "evaluate_every": 7, "seed": 11}
    spec = {
        "model": {"name": model, "objective": "causal-lm", "dropout": dropout},
        "data": {"source": str(source), "sequence_length": 32, "held_out": 0.2},
        "training": values | training,
    }
    return Job.model_validate({"metadata": {"name": "small"}, "spec": spec})
