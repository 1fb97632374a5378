"""The plan: how a job will be carried out, and what it is expected to take.

Written by `planning`, read by `cluster`, the workers and the report. Knows no torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phalanx.job.spec import MeshSpec, Value

ArithmeticPrecision = Literal["fp32", "bf16"]

# Resident bytes of a worker before it builds its model: Python, torch and its lazily loaded parts, the group's threads,
# the corpus (a file that all workers map). 320 to 336 MiB with torch 2.13 (rows "baseline" of the table `memory`).
WORKER_BASELINE_BYTES = 340 << 20


class MemoryPrediction(Value):
    """Bytes of one worker at the peak of a step, above what it held before the model was built."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int = Field(description="Live tensors of forward and backward at the peak, without the above.")
    other: int = Field(default=0, description="Communication buckets, allocator and kernel scratch.")

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations + self.other


class Predicted(Value):
    memory: MemoryPrediction
    step_seconds: float
    flops: float = Field(description="Of one step, all workers.")
    checkpoint_bytes: int
    parameters: int = Field(description="Number of parameters.")


class Plan(Value):
    mesh: MeshSpec
    servers: int = 0
    update: Literal["allreduce", "server"] = "allreduce"
    global_batch: int
    micro_batch: int
    accumulation: int = Field(description="Micro-batches a worker runs for one step (of the worker with most).")
    recompute: bool = False
    precision: ArithmeticPrecision
    threads: int = Field(default=1, ge=1, description="Compute threads a worker.")
    predicted: Predicted
    reasons: tuple[str, ...] = ()
    not_enforced: tuple[str, ...] = Field(default=(), description="Demands left to `auto` that no room enforces yet.")
    fallbacks: tuple[Plan, ...] = Field(default=(), description="Same global_batch, less memory; tried in order.")
