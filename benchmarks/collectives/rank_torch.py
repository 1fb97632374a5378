"""A rank that sums through torch.distributed: BACKEND (gloo, phalanx) comes before the arguments of protocol.py."""

from __future__ import annotations

import sys
from pathlib import Path

BACKEND = sys.argv.pop(1)

from benchmarks.collectives import protocol  # noqa: E402 - reads what is left of the arguments and pins

import torch.distributed as dist  # noqa: E402 isort: skip

if BACKEND == "phalanx":
    import phalanx.collectives  # noqa: F401 - registers the backend

if __name__ == "__main__":
    dist.init_process_group(BACKEND)
    dist.barrier()
    if BACKEND == "phalanx" and "/dev/shm/phalanx-" not in Path("/proc/self/maps").read_text():
        raise SystemExit("the ranks share no memory (the lines above say why): this would measure gloo as ours")
    protocol.run(dist.all_reduce)
