"""How fast this processor multiplies matrices: for plans whose steps are too long to be tried out."""

from __future__ import annotations

import time

import torch

from phalanx.job.plan import ArithmeticPrecision

_SIDE = 512
_REPEATS = 5
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def flops_per_second(precision: ArithmeticPrecision, threads: int) -> float:
    """Of a matrix product of a few MiB, the best of a few; a model's step reaches a good part of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.ones(2, _SIDE, _SIDE, dtype=_DTYPES[precision]).unbind()
        return 2 * _SIDE**3 / min(_seconds(left, right) for _ in range(_REPEATS))
    finally:
        torch.set_num_threads(before)


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(left, right)
    return time.perf_counter() - start
