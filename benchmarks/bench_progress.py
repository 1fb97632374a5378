"""How long an asynchronous sum takes while Python computes: issued just before 20 ms of pure Python, 2 ranks, 256 KiB.

Each rank looks whether its work is done between slices of computing, some microseconds apart; the time is the median
of the slowest rank. Unit: ms, so fewer is better, and a ratio below 1 is ours.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Comparison, Options, Side, compare
from benchmarks.ranks import environment, free_port, run_processes

SIZE = 2


def run(options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    times = 20 if options.quick else 200
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:

        def side(backend: str) -> Side:
            return Side(backend, lambda: max(map(statistics.median, _launch(backend, times, Path(scratch)))))

        sides = [side("phalanx"), side("gloo")]
        return [compare("progress beside Python", "ms", sides, rounds=options.rounds, progress=progress)]


def _launch(backend: str, times: int, scratch: Path) -> list[list[float]]:
    """Of each rank, ms until each of `times` sums was done."""
    port = free_port()
    outputs = run_processes(
        "side_progress",
        [[sys.executable, "-m", "benchmarks.side_progress", backend, str(times)]] * SIZE,
        [environment(rank, SIZE, scratch / f"rendezvous-{port}", port) for rank in range(SIZE)],
        scratch,
        timeout_s=120,
    )
    return [json.loads(output.splitlines()[-1]) for output in outputs]
