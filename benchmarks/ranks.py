"""Starts the ranks of a benchmark's job as child processes and gathers what each says it measured.

A side of a benchmark is a module with `main(orders)`, started as `python -m benchmarks.<side> ORDERS` on every
rank, with the environment that an agent gives its workers and that torchrun gives its own. A rank prints one
line of JSON last: its Window. Ranks end with whoever started them. Knows nothing of what is trained.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from phalanx.host.processes import start

ROOT = Path(__file__).parent.parent
TIMEOUT_S = 1800


class RankFailed(Exception):
    """A rank ended badly; the message has its last words."""


class Instant(NamedTuple):
    """A moment by two clocks, in seconds: of the wall, and of the processors for all threads of this process."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Instant:
        return cls(time.perf_counter(), time.process_time())


@dataclass(frozen=True)
class Window:
    """What one rank did in the steps that count: real tokens read, places of its batches, and how long it took.

    `seconds` of the wall and `cpu_seconds` of all its threads; `loss`: mean of the run in nats, to see that it learns.
    """

    tokens: int
    places: int
    seconds: float
    cpu_seconds: float
    loss: float

    def say(self) -> None:
        """Print it for `run_ranks` and end; gloo now and then aborts a process that ends in the ordinary way."""
        print(json.dumps(asdict(self)), flush=True)
        os._exit(0)


def environment(rank: int, size: int, rendezvous: Path, port: int) -> dict[str, str]:
    """One thread a rank, everything on loopback."""
    return os.environ | {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PHALANX_RENDEZVOUS": str(rendezvous),
        "PHALANX_GENERATION": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }


def run_ranks(side: str, orders: Mapping[str, object], size: int, scratch: Path) -> list[Window]:
    """Run `benchmarks.<side>` with `orders` on `size` ranks; the Window of each. Raises RankFailed."""
    tag = os.urandom(4).hex()
    file = scratch / f"orders-{tag}.json"
    file.write_text(json.dumps(orders))
    port = free_port()
    outputs = run_processes(
        side,
        [[sys.executable, "-m", f"benchmarks.{side}", str(file)]] * size,
        [environment(rank, size, scratch / f"rendezvous-{tag}", port) for rank in range(size)],
        scratch,
        TIMEOUT_S,
    )
    return [Window(**json.loads(output.splitlines()[-1])) for output in outputs]


def run_processes(
    name: str,
    commands: Sequence[Sequence[str]],
    environments: Sequence[Mapping[str, str]],
    scratch: Path,
    timeout_s: float,
) -> list[str]:
    """Run `commands` at once, in the repository's root, until all have ended; what each printed. Raises RankFailed."""
    tag = os.urandom(4).hex()
    names = [scratch / f"{name}-{tag}-rank-{rank}" for rank in range(len(commands))]
    processes = [
        start(command, cwd=ROOT, env=env, output=path.with_suffix(".out"), errors=path.with_suffix(".log"))
        for path, command, env in zip(names, commands, environments, strict=True)
    ]
    try:
        codes = _wait(processes, timeout_s)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for rank, (path, code) in enumerate(zip(names, codes, strict=True)):
        if code:  # not those that were still waiting for it
            words = path.with_suffix(".log").read_text(errors="replace").strip()
            raise RankFailed(f"{name}, rank {rank} ended with {code}:\n{words[-3000:]}")
    return [path.with_suffix(".out").read_text() for path in names]


def _wait(processes: Sequence[subprocess.Popen[bytes]], timeout_s: float) -> list[int | None]:
    """Exit codes once all have ended well or one has not. Raises RankFailed after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        codes = [process.poll() for process in processes]
        if any(codes) or None not in codes:
            return codes
        if time.monotonic() > deadline:
            raise RankFailed(f"the ranks have not ended after {timeout_s:g} s")
        time.sleep(0.02)


def tokens_per_second(windows: Sequence[Window]) -> float:
    """Real tokens of all ranks over the time of the slowest."""
    return sum(window.tokens for window in windows) / max(window.seconds for window in windows)


def tokens_per_cpu_second(windows: Sequence[Window]) -> float:
    """The same over processor time: what a busy machine disturbs least."""
    return sum(window.tokens for window in windows) / sum(window.cpu_seconds for window in windows)


def padding_share(windows: Sequence[Window]) -> float:
    """Places of the batches that hold no token, 0 to 1."""
    return 1 - sum(window.tokens for window in windows) / sum(window.places for window in windows)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
