"""A plain Horovod script that times three kinds of sums. Which Horovod that is, it does not know.

    horovodrun -np 2 python -m benchmarks.side_horovod_operations CALLS RESULTS

Each rank writes the median seconds of each kind as `<rank>.json` in the directory RESULTS.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import horovod.torch as hvd

MANY = 100


def main(calls: int, results: Path) -> None:
    hvd.init()
    torch.set_num_threads(1)
    small, large = torch.zeros(16), torch.zeros(25_000_000 // 4)
    many = [torch.zeros(256) for _ in range(MANY)]

    def together() -> None:
        handles = [hvd.allreduce_async_(one, name=f"of.many.{number}", op=hvd.Sum) for number, one in enumerate(many)]
        for handle in handles:
            hvd.synchronize(handle)

    seconds = {
        "small": _median(lambda: hvd.allreduce_(small, name="small", op=hvd.Sum), calls),
        "large": _median(lambda: hvd.allreduce_(large, name="large", op=hvd.Sum), max(calls // 10, 3)),
        "many": _median(together, max(calls // 4, 3)),
    }
    (results / f"{hvd.rank()}.json").write_text(json.dumps(seconds))


def _median(call: Callable[[], object], calls: int) -> float:
    """Of `calls` after a tenth as many that do not count."""
    times = []
    for _ in range(calls + calls // 10):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[calls // 10 :])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
