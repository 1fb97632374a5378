"""Sums over two hosts of two ranks: ours, that reduces on each host first, against flat gloo, in time and bytes.

The hosts are network namespaces, each of which can send 1 Gbit/s (tc-tbf(8)); this needs root. "flat" is our transport
between hosts without the shared memory on each. A launch starts all four ranks of one side anew; sides take turns. Its
time is that of the slowest rank, its bytes are what both hosts sent, with the headers of TCP, IP and Ethernet.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import Comparison, MissingData, Options
from benchmarks.namespaces import Hosts
from benchmarks.ranks import run_processes
from benchmarks.side_hosts import Sample

HOSTS, RANKS = 2, 2  # ranks on each
RATE = "1gbit"
SIDES = ("hierarchical", "gloo", "flat")
ORDERS = ((64 << 10, 100), (4 << 20, 20), (64 << 20, 5))
QUICK = ((64 << 10, 5), (1 << 20, 3))
TIMEOUT_S = 300.0


def run(options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    """Raises MissingData without root, RankFailed when a side fails."""
    if os.geteuid() != 0:
        raise MissingData("needs root, for network namespaces")
    orders = QUICK if options.quick else ORDERS
    launches: dict[str, list[list[Sample]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES:
            samples = launch(side, orders)
            launches[side].append(samples)
            said = ", ".join(f"{sample.bytes >> 10} KiB {sample.seconds * 1e3:.2f} ms" for sample in samples)
            progress(f"hosts: round {number + 1} of {options.rounds}: {side}: {said}")
    return [comparison for index, (size, _) in enumerate(orders) for comparison in compared(launches, index, size)]


def launch(side: str, orders: Sequence[Sequence[int]]) -> list[Sample]:
    """For each order the slowest rank's time and the bytes of all hosts."""
    with Hosts(HOSTS, RATE) as hosts, tempfile.TemporaryDirectory() as scratch:
        argv = [sys.executable, "-m", "benchmarks.side_hosts", side, json.dumps(orders)]
        outputs = run_processes(
            f"hosts-{side}",
            [hosts.inside(rank // RANKS, argv) for rank in range(HOSTS * RANKS)],
            [environment(hosts, rank) for rank in range(HOSTS * RANKS)],
            Path(scratch),
            TIMEOUT_S,
        )
    of_ranks = [[Sample(*fields) for fields in json.loads(output.splitlines()[-1])] for output in outputs]
    return [
        Sample(size, max(sample.seconds for sample in ranks), sum(sample.sent for sample in ranks[::RANKS]))
        for (size, _), ranks in zip(orders, zip(*of_ranks, strict=True), strict=True)
    ]


def environment(hosts: Hosts, rank: int) -> dict[str, str]:
    """As torchrun sets it, and a name by which a namespace counts as a host."""
    return os.environ | {
        "RANK": str(rank),
        "WORLD_SIZE": str(HOSTS * RANKS),
        "LOCAL_RANK": str(rank % RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": hosts.address(0),
        "MASTER_PORT": "29500",
        "GLOO_SOCKET_IFNAME": "eth0",
        "PHALANX_HOST": hosts.name(rank // RANKS),
        "OMP_NUM_THREADS": "1",
    }


def compared(launches: dict[str, list[list[Sample]]], index: int, size: int) -> list[Comparison]:
    words = f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
    times = {side: [samples[index].seconds * 1e3 for samples in rounds] for side, rounds in launches.items()}
    sent = {side: [samples[index].sent / (1 << 20) for samples in rounds] for side, rounds in launches.items()}
    settings: dict[str, dict[str, object]] = {side: {} for side in launches}
    notes = {"hosts": HOSTS, "ranks": HOSTS * RANKS, "rate": RATE, "bytes": size}
    return [
        Comparison(f"sum of {words}", "ms", times, settings, notes),
        Comparison(f"sent for {words}", "MiB", sent, settings),
    ]
