"""One rank of `bench_hosts`: sums over several hosts, timed, and the bytes that its host's interface sent for them.

python -m benchmarks.side_hosts SIDE ORDERS      SIDE: hierarchical, flat or gloo; ORDERS: [[bytes, repeats], ...]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from phalanx.collectives import init

WARM_UP = 2


class Sample(NamedTuple):
    """float32 sums of `bytes`: median seconds of this rank, and what its host sent for one of them, with headers."""

    bytes: int
    seconds: float
    sent: float


def measure(
    size: int, repeats: int, allreduce: Callable[[torch.Tensor], object], barrier: Callable[[], object]
) -> Sample:
    tensor = torch.ones(size // 4)
    for _ in range(WARM_UP):
        allreduce(tensor)
    expected = float(int(os.environ["WORLD_SIZE"]) ** WARM_UP)
    if not torch.equal(tensor, torch.full_like(tensor, expected)):
        raise SystemExit(f"the sum is {tensor[0].item()}, not {expected}")
    tensor.zero_()
    seconds = []
    barrier()
    before = bytes_sent()
    for _ in range(repeats):
        barrier()
        start = time.perf_counter()
        allreduce(tensor)
        seconds.append(time.perf_counter() - start)
    barrier()
    return Sample(size, statistics.median(seconds), (bytes_sent() - before) / repeats)


def bytes_sent() -> int:
    """By this host's interface since it exists (proc_pid_net(5))."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    (counters,) = (line.partition(":")[2].split() for line in lines if line.strip().startswith("eth0:"))
    return int(counters[8])


def main(side: str, orders: list[list[int]]) -> None:
    torch.set_num_threads(1)
    if side == "gloo":
        dist.init_process_group("gloo")
        allreduce, barrier = dist.all_reduce, dist.barrier
    else:
        group = init(os.environ | {"PHALANX_TRANSPORT": "auto" if side == "hierarchical" else "gloo"})
        if side == "hierarchical" and type(group.transport).__name__ != "Hierarchical":
            raise SystemExit(f"the ranks got {type(group.transport).__name__}: this would measure that as hierarchical")

        def allreduce(tensor: torch.Tensor) -> None:
            group.allreduce(tensor, asynchronous=False).wait()

        barrier = group.barrier
    samples = [measure(size, repeats, allreduce, barrier) for size, repeats in orders]
    print(json.dumps(samples), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
