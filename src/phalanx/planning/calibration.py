"""From what a step's tensors take to what the process will be seen to take.

The trace counts live tensors. The kernel counts pages: libraries touched for the first time, what kernels
pack and keep, what the allocator cannot give back, gloo's buffers. These few constants stand for that.
"""

from __future__ import annotations

from phalanx.job import MemoryPrediction
from phalanx.planning.trace import StepTrace

FIRST_TOUCH_BYTES = 40 << 20
SLACK = 0.05


def predicted_memory(trace: StepTrace, workers: int) -> MemoryPrediction:
    """Bytes of one of `workers` at the peak of a step, above its baseline."""
    other = FIRST_TOUCH_BYTES + SLACK * trace.activations
    return MemoryPrediction(
        parameters=trace.parameters,
        gradients=trace.gradients,
        optimizer=trace.optimizer,
        activations=trace.activations,
        other=int(other),
    )
