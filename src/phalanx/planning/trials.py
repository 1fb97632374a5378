"""Which micro-batch and precision to try next, and which was best: decided from the times alone.

Speed as a function of the micro-batch has one top: small ones waste time between operations, large ones fall
out of the caches. So the search climbs from the middle, and stops in a direction where it gets worse.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from phalanx.job.plan import ArithmeticPrecision

WORTH = 0.03  # of the time: what a larger micro-batch must save to be worth its memory
WORTH_BF16 = 0.10  # of the time: what half-width arithmetic must save to be worth its digits


class Trial(NamedTuple):
    """One way to do a step, and the seconds that a whole step took or would take."""

    micro_batch: int
    precision: ArithmeticPrecision
    step_seconds: float


def next_trial(
    done: Sequence[Trial], sizes: Sequence[int], precisions: Sequence[ArithmeticPrecision]
) -> tuple[int, ArithmeticPrecision] | None:
    """What to try after `done`; None: enough. `sizes`: micro-batches, rising; both in the order of preference."""
    middle = sizes[len(sizes) // 2]
    for precision in precisions:
        if not any(trial.precision == precision for trial in done):
            return middle, precision
    precision = best(done).precision
    seconds = {trial.micro_batch: trial.step_seconds for trial in done if trial.precision == precision}
    start = sizes.index(middle)
    for way in (sizes[start:], sizes[start::-1]):
        for before, size in itertools.pairwise(way):
            if size not in seconds:
                return size, precision
            if seconds[size] > seconds[before]:
                break
    return None


def best(done: Sequence[Trial]) -> Trial:
    """The fastest; a smaller micro-batch that is nearly as fast; bf16 only where it is clearly faster."""
    fastest = {precision: min(_of(done, precision), key=_seconds) for precision in {t.precision for t in done}}
    chosen = fastest.get("fp32") or fastest["bf16"]
    half = fastest.get("bf16", chosen)
    if half.step_seconds < (1 - WORTH_BF16) * chosen.step_seconds:
        chosen = half
    near = [t for t in _of(done, chosen.precision) if t.step_seconds <= (1 + WORTH) * chosen.step_seconds]
    return min(near, key=lambda trial: trial.micro_batch)


def _of(done: Sequence[Trial], precision: ArithmeticPrecision) -> list[Trial]:
    return [trial for trial in done if trial.precision == precision]


def _seconds(trial: Trial) -> float:
    return trial.step_seconds
