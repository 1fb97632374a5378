"""From what a step's tensors take to what the process will be seen to take.

The trace counts live tensors. The kernel counts pages: program text touched for the first time, and what glibc's
heap cannot use again because the holes in it have the wrong size. With every tensor of its own mapping
(MALLOC_MMAP_THRESHOLD_=131072) a worker takes what was traced and 24 MiB, to 2 %, but computes half as fast; so
workers keep glibc's default, and these constants say what it costs.

Found with 16 jobs of 10 steps, of all three models, micro-batches of 2 to 64, one and two workers, torch 2.13, glibc
2.36; the totals of these are then right to 20 %. For three other jobs: `python -m benchmarks memory`.
"""

from __future__ import annotations

from phalanx.job import MemoryPrediction
from phalanx.job.plan import ArithmeticPrecision
from phalanx.planning.trace import StepTrace

MIB = 1 << 20
# `varying`: the number of predicted tokens, and so the shapes, are other ones in every step (masked-lm). In bf16 oneDNN
# makes and keeps a kernel for each shape; the heap finds no hole that fits. Keys: (precision, varying).
FIRST_TOUCH_BYTES: dict[tuple[ArithmeticPrecision, bool], int] = {
    ("fp32", False): 16 * MIB,
    ("fp32", True): 16 * MIB,
    ("bf16", False): 30 * MIB,
    ("bf16", True): 80 * MIB,
}
LOST_STEADY, LOST_VARYING = 0.65, 1.15  # bytes lost for one of activations


def predicted_memory(trace: StepTrace, precision: ArithmeticPrecision, *, varying: bool) -> MemoryPrediction:
    """Bytes of one worker at the peak of a step, above its baseline."""
    lost = LOST_VARYING if varying else LOST_STEADY
    return MemoryPrediction(
        parameters=trace.parameters,
        gradients=trace.gradients,
        optimizer=trace.optimizer,
        activations=trace.activations,
        other=FIRST_TOUCH_BYTES[precision, varying] + int(lost * trace.activations),
    )
