"""What the Python programs share with measure.h: the same arguments, the same way to measure, the same line of result.

    PROGRAM CORES MOST SECONDS BYTES:DTYPE...

CORES: comma-separated, rank r runs on the r-th, beginning again at the end. Runs in the Python of a peer as well:
imports torch and nothing of ours. Knows nothing of what is measured.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RANK = int(os.environ.get("RANK", "0"))
RANKS = int(os.environ.get("WORLD_SIZE", "1"))
FEWEST = 5
LONGEST_BATCH = 1000
BLOCK = 7 << 17  # elements that are checked at a time; the pattern of seven fits in it


@dataclass(frozen=True)
class Plan:
    """What one rank is told: where it runs, and to measure each order for `seconds`, at most `most` times."""

    cores: tuple[int, ...]
    most: int
    seconds: float
    orders: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Plan:
        cores, most, seconds, *orders = arguments
        pairs = [order.split(":") for order in orders]
        return cls(
            tuple(int(core) for core in cores.split(",")),
            int(most),
            float(seconds),
            tuple((int(size), dtype) for size, dtype in pairs),
        )


PLAN = Plan.of(sys.argv[1:])
os.sched_setaffinity(0, {PLAN.cores[RANK % len(PLAN.cores)]})  # before torch starts a thread

import torch  # noqa: E402 - see above

Operation = Callable[[torch.Tensor], object]


def check(allreduce: Operation, buffer: torch.Tensor) -> None:
    """Sums of small whole numbers are exact in every order and type. Leaves zeros, whose sums stay zero."""
    pattern = (torch.arange(BLOCK) % 7).to(buffer.dtype)
    for block in torch.split(buffer, BLOCK):
        block.copy_(pattern[: len(block)] + RANK)
    allreduce(buffer)
    expected = pattern * RANKS + RANKS * (RANKS - 1) // 2
    if not all(torch.equal(block, expected[: len(block)]) for block in torch.split(buffer, BLOCK)):
        raise SystemExit(f"the sum of {buffer.numel()} {buffer.dtype} is wrong")
    buffer.zero_()


def agreed(allreduce: Operation, seconds: float) -> float:
    """The mean over all ranks, by the operation itself: a peer may have no other."""
    own = torch.tensor([seconds])
    allreduce(own)
    return own.item() / RANKS


def sample(allreduce: Operation, buffer: torch.Tensor, batch: int, seconds: float) -> array[float]:
    """Time calls, in batches that double, until all ranks together have spent `seconds` each.

    How long a call takes beside a busy process cannot be told from a few. Ranks agree after each batch, so that all
    call equally often.
    """
    times = array("d")
    spent = 0.0
    clock = time.perf_counter
    while spent < seconds and len(times) < PLAN.most:
        own = array("d", bytes(8 * min(batch, PLAN.most - len(times))))
        for number in range(len(own)):
            begin = clock()
            allreduce(buffer)
            own[number] = clock() - begin
        times += own
        spent += agreed(allreduce, sum(own))
        batch = min(2 * batch, LONGEST_BATCH)
    return times


def measure(allreduce: Operation, size: int, dtype: str) -> None:
    """Blocking calls one after another, in place, on a buffer of `size` bytes; a tenth of the time to warm up."""
    kind: torch.dtype = getattr(torch, dtype)
    buffer = torch.zeros(size // kind.itemsize, dtype=kind)
    check(allreduce, buffer)
    gc.disable()
    sample(allreduce, buffer, 1, PLAN.seconds / 10)
    times = sample(allreduce, buffer, FEWEST, PLAN.seconds)
    gc.enable()
    say(size, dtype, times)


def say(size: int, dtype: str, times: Sequence[float]) -> None:
    line = {
        "bytes": size,
        "dtype": dtype,
        "variant": "in place",
        "count": len(times),
        "median_us": statistics.median(times) * 1e6,
        "mean_us": statistics.fmean(times) * 1e6,
    }
    print(json.dumps(line), flush=True)


def run(allreduce: Operation) -> None:
    """Measure every order of this program and end; gloo now and then aborts a process that ends in the ordinary way."""
    torch.set_num_threads(1)
    for size, dtype in PLAN.orders:
        measure(allreduce, size, dtype)
    os._exit(0)
