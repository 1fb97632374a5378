"""How the learning rate moves: a factor for each step, from the schedule alone.

Warmup rises in equal steps and has its full rate at its last step. A falling curve reaches `floor` one step
after the last, so that no step is without effect.
"""

from __future__ import annotations

import math

from phalanx.job.spec import ScheduleSpec


def lr_at(index: int, steps: int, spec: ScheduleSpec) -> float:
    """Factor in [0, 1] for step `index` (from 0) of `steps`."""
    if index < spec.warmup:
        return (index + 1) / spec.warmup
    left = (steps - index) / max(1, steps - spec.warmup)  # 1 at the first full step, 0 after the last
    if spec.name == "constant":
        return 1.0
    if spec.name == "linear":
        share = left
    elif spec.name == "cosine":
        share = (1 - math.cos(math.pi * left)) / 2
    else:
        share = min(1.0, (steps - index) / (spec.decay * steps))
    return spec.floor + (1 - spec.floor) * share
