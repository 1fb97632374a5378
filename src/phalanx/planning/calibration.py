"""From what a step's tensors take to what the process will be seen to take.

The trace counts live tensors. The kernel counts pages: program text touched for the first time, and what glibc's
heap cannot use again because the holes in it have the wrong size. With every tensor of its own mapping
(MALLOC_MMAP_THRESHOLD_=131072) a worker takes what was traced and 24 MiB, to 2 %, but computes half as fast; so
workers keep glibc's default, and these constants say what it costs.

Found with 18 jobs of 10 to 240 steps, of all three models, micro-batches of 2 to 64, one and two workers, with torch
2.13 and glibc 2.36; the totals of these are then right to 20 %. For three other jobs: `python -m benchmarks memory`.
"""

from __future__ import annotations

from dataclasses import dataclass

from phalanx.job import MemoryPrediction
from phalanx.job.plan import ArithmeticPrecision
from phalanx.planning.trace import StepTrace

MIB = 1 << 20
FIRST_TOUCH_BYTES: dict[ArithmeticPrecision, int] = {"fp32": 16 * MIB, "bf16": 30 * MIB}
# Where shapes vary, oneDNN makes and keeps bf16 kernels for each of the few that the encoder rounds its rows to.
KERNELS_BYTES = 16 * MIB
LOST_STEADY, LOST_VARYING = 0.65, 1.15  # bytes lost for one of activations: where shapes vary, fewer holes fit


@dataclass(frozen=True)
class Circumstances:
    """What decides beside the trace. `varying`: shapes differ from step to step, as the number of masked tokens."""

    precision: ArithmeticPrecision
    varying: bool


def predicted_memory(trace: StepTrace, job: Circumstances) -> MemoryPrediction:
    """Bytes of one worker at the peak of a step, above its baseline."""
    other = FIRST_TOUCH_BYTES[job.precision]
    other += int((LOST_VARYING if job.varying else LOST_STEADY) * trace.activations)
    if job.varying and job.precision == "bf16":
        other += KERNELS_BYTES
    return MemoryPrediction(
        parameters=trace.parameters,
        gradients=trace.gradients,
        optimizer=trace.optimizer,
        activations=trace.activations,
        other=other,
    )
