"""Small real values for the tests of training: a plan, a manifest."""

from __future__ import annotations

import math

from phalanx.job import MemoryPrediction, MeshSpec, Plan, Predicted
from phalanx.training.manifest import Manifest, Rng


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
