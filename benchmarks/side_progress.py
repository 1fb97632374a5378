"""One rank: asynchronous sums, each issued just before 20 ms of pure Python.

python -m benchmarks.side_progress BACKEND TIMES      (started on every rank by `bench_progress`)
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch
import torch.distributed as dist

import phalanx.collectives  # noqa: F401 - makes the backend known

ELEMENTS = 65_536
COMPUTES_S = 0.020


def main(backend: str, times: int) -> list[float]:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(os.environ["RANK"]) % os.cpu_count()]})
    dist.init_process_group(backend)
    tensor = torch.zeros(ELEMENTS)
    return [_one(tensor) for _ in range(times)]


def _one(tensor: torch.Tensor) -> float:
    """ms until the sum was done, seen from within the computing; the rest of it when it was not."""
    dist.barrier()
    begun = time.perf_counter()
    work = dist.all_reduce(tensor, async_op=True)
    done = 0.0
    while (now := time.perf_counter() - begun) < COMPUTES_S:
        sum(range(50))
        if not done and work.is_completed():
            done = now
    work.wait()
    return (done or time.perf_counter() - begun) * 1e3


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))), flush=True)
    dist.destroy_process_group()
