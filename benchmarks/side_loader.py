"""One side of `bench_loader`, in a process of its own: rows a CPU second, the time that a step waits, and memory.

    python -m benchmarks.side_loader '{"what": "wait", "side": "phalanx", "directory": ..., ...}'

The peer is torch's DataLoader over the same files: a map-style dataset of windows of T + 1 tokens in memory-mapped
shards, shuffled by RandomSampler. It knows no documents and cannot be entered in the middle; it is what people write.
"""

from __future__ import annotations

import bisect
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from phalanx.data import Dataset as BuiltDataset
from phalanx.data import LoaderSpec, StreamLoader
from phalanx.data.prefetch import PrefetchedFeed
from phalanx.job.spec import Objective

AHEAD = 8


@dataclass(frozen=True)
class Orders:
    """`steps` that count; `step_ms` of arithmetic between two batches (wait)."""

    what: str
    side: str
    directory: str
    sequence_length: int
    global_batch: int
    steps: int
    objective: Objective = "causal-lm"
    step_ms: float = 30.0
    world: int = 1


class Windows(Dataset[torch.Tensor]):
    """Windows of T + 1 tokens, T apart, of each shard."""

    def __init__(self, files: list[Path], dtype: str, length: int) -> None:
        self._shards = [np.memmap(file, dtype, "r") for file in files]
        self._length = length
        self._ends = np.cumsum([(len(shard) - 1) // length for shard in self._shards]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> torch.Tensor:
        shard = bisect.bisect_right(self._ends, index)
        start = (index - (self._ends[shard - 1] if shard else 0)) * self._length
        return torch.from_numpy(self._shards[shard][start : start + self._length + 1].astype(np.int64))


def torch_batches(orders: Orders, workers: int) -> Iterator[torch.Tensor]:
    data = BuiltDataset.open(Path(orders.directory))
    files = [shard.path.with_suffix(".tokens") for shard in data.train.shards]
    windows = Windows(files, str(data.vocabulary.dtype), orders.sequence_length)
    prefetch = {"num_workers": workers, "prefetch_factor": AHEAD} if workers else {}
    loader = DataLoader(windows, orders.global_batch, sampler=RandomSampler(windows), **prefetch)  # type: ignore[arg-type]
    return iter(loader)


def our_data(orders: Orders) -> StreamLoader:
    spec = LoaderSpec(orders.objective, orders.sequence_length, orders.global_batch)
    return StreamLoader([BuiltDataset.open(Path(orders.directory))], [1.0], spec)


def rows(orders: Orders) -> dict[str, float]:
    """Rows a second of processor time, all in this process, after a first batch."""
    begun = time.process_time()
    if orders.side == "torch":
        batches = torch_batches(orders, 0)
        take: Any = lambda: next(batches)  # noqa: E731
    else:
        take = our_data(orders).feed(None, 0, 1, orders.global_batch).take
    take()
    first = time.process_time()
    for _ in range(orders.steps):
        take()
    seconds = time.process_time() - first
    return {"rows": orders.steps * orders.global_batch / seconds, "first batch, CPU s": first - begun}


def wait(orders: Orders) -> dict[str, float]:
    """Milliseconds that a step waits for its batch while as much is computed between two as a step computes."""
    torch.set_num_threads(1)
    matrix = torch.randn(256, 256)
    feed = None
    if orders.side == "torch":
        batches = torch_batches(orders, 1)
        take: Any = lambda: next(batches)  # noqa: E731
    else:
        feed = our_data(orders).feed(None, 0, 1, orders.global_batch, ahead=AHEAD)
        take = feed.take
    waited = []
    for _ in range(orders.steps + AHEAD):
        until = time.perf_counter() + orders.step_ms / 1000
        while time.perf_counter() < until:
            matrix = (matrix @ matrix).clamp(-1, 1)
        begun = time.perf_counter()
        take()
        waited.append(1000 * (time.perf_counter() - begun))
    if feed is not None:
        feed.close()
    counted = np.array(waited[AHEAD:])
    return {"p50": float(np.median(counted)), "p99": float(np.percentile(counted, 99)), "max": float(counted.max())}


def memory(orders: Orders) -> dict[str, float]:
    """MiB of memory of its own (RssAnon) of whoever reads, early and at the end of `steps`."""
    found: dict[str, float] = {}
    early = max(1, orders.steps // 50)
    if orders.side == "torch":
        batches = torch_batches(orders, 1)
        for _ in range(orders.steps):
            next(batches)
        return {"end": anonymous(os.getpid())}
    feed = our_data(orders).feed(None, 0, orders.world, orders.global_batch, ahead=AHEAD)
    assert isinstance(feed, PrefetchedFeed)
    with closing(feed):
        for step in range(1, orders.steps + 1):
            portion = feed.take()
            if step == early:
                found["early"] = anonymous(feed.process_id)
        found["end"] = anonymous(feed.process_id)
        assert isinstance(portion.cursor, dict)
        (epoch, place, _), *_ = portion.cursor["sources"]
        found["epochs"] = epoch + place / len(our_data(orders).datasets[0].train)
    return found


def anonymous(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def ask(orders: Orders) -> dict[str, float]:
    """Have a process carry out `orders`. Raises RuntimeError with its last words."""
    import subprocess

    command = [sys.executable, "-m", "benchmarks.side_loader", json.dumps(asdict(orders))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    if done.returncode:
        raise RuntimeError(f"{orders.side}, {orders.what}: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    given = Orders(**json.loads(sys.argv[1]))
    print(json.dumps({"rows": rows, "wait": wait, "memory": memory}[given.what](given)), flush=True)
    os._exit(0)  # torch's workers are asked to end when the interpreter does, which takes seconds
