"""Who takes part in `bench_collectives`: how each is found, built and launched, and what to install when it is missing.

A launch starts every rank of one peer and gives the time of each order by its slowest rank. Knows nothing of
loads, targets or tables.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.ranks import environment, free_port, run_processes

HERE = Path(__file__).parent
SHM = Path("/dev/shm")
TIMEOUT_S = 900
INSTALL_DEEPSPEED = (
    "python3 -m venv .venv-deepspeed && "
    "requirements/install.sh .venv-deepspeed/bin/python requirements/bench-deepspeed.txt"
)


class PeerMissing(Exception):
    """A peer cannot run here; the message says what to install."""


class Order(NamedTuple):
    """Sum a buffer of so many bytes; `dtype` by its name in torch."""

    bytes: int
    dtype: str


@dataclass(frozen=True)
class Task:
    """What every peer is told of a launch: to measure an order for `seconds`, at most `most` times."""

    ranks: int
    cores: Sequence[int]
    most: int
    seconds: float
    orders: Sequence[Order]

    def arguments(self, dtypes: Sequence[str]) -> list[str]:
        """As measure.h and protocol.py read them."""
        orders = [f"{order.bytes}:{order.dtype}" for order in self.orders if order.dtype in dtypes]
        return [",".join(map(str, self.cores)), str(self.most), str(self.seconds), *orders]


@dataclass(frozen=True)
class Sample:
    """The time of one order in one launch, in microseconds: median and mean of `count` measurements."""

    bytes: int
    dtype: str
    variant: str
    count: int
    median_us: float
    mean_us: float


@dataclass(frozen=True)
class Peer(ABC):
    """One that takes part. `prepare` comes once, before any launch."""

    name: str
    dtypes: Sequence[str] = ("float32", "bfloat16")

    def prepare(self, scratch: Path) -> None:  # noqa: B027 - most need nothing
        """Raises PeerMissing."""

    @abstractmethod
    def outputs(self, task: Task, scratch: Path) -> list[str]:
        """What the ranks print. Raises RankFailed."""

    def launch(self, task: Task, scratch: Path) -> list[Sample]:
        return slowest("\n".join(self.outputs(task, scratch)))


def slowest(output: str) -> list[Sample]:
    """One sample of each order and variant: the largest median and the largest mean of its ranks."""
    found: dict[tuple[int, str, str], Sample] = {}
    for line in output.splitlines():
        if not line.startswith("{"):
            continue
        sample = Sample(**json.loads(line))
        key = (sample.bytes, sample.dtype, sample.variant)
        other = found.get(key, sample)
        times = {name: max(asdict(sample)[name], asdict(other)[name]) for name in ("median_us", "mean_us")}
        found[key] = Sample(*key, sample.count, **times)
    return list(found.values())


def built(source: str, compiler: str, flags: Sequence[str], target: Path, remedy: str) -> None:
    """Raises PeerMissing when there is no compiler, or it cannot build what stands here."""
    if shutil.which(compiler) is None:
        raise PeerMissing(f"no {compiler}: {remedy}")
    command = [compiler, "-std=c11", "-O3", *flags, "-o", str(target), str(HERE / source), "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissing(f"`{' '.join(command)}` failed: {done.stderr.strip()[-2000:]}")


class Copy(Peer):
    """The measure of what the memory can do: every rank copies a buffer of its own to another."""

    def prepare(self, scratch: Path) -> None:
        built("copy.c", "cc", ["-march=native"], scratch / self.name, "apt-get install gcc libc6-dev")

    def outputs(self, task: Task, scratch: Path) -> list[str]:
        command = [str(scratch / self.name), str(task.ranks), *task.arguments(self.dtypes)]
        return run_processes(self.name, [command], [os.environ], scratch, TIMEOUT_S)


@dataclass(frozen=True)
class Mpi(Peer):
    """MPI_Allreduce from C, by Debian's packages, which call their tools mpicc.NAME and mpirun.NAME."""

    dtypes: Sequence[str] = ("float32",)  # MPI has no bf16
    options: Sequence[str] = ()
    packages: str = ""

    def prepare(self, scratch: Path) -> None:
        remedy = f"apt-get install {self.packages}"
        if shutil.which(f"mpirun.{self.name}") is None:
            raise PeerMissing(f"no mpirun.{self.name}: {remedy}")
        built("allreduce_mpi.c", f"mpicc.{self.name}", [], scratch / self.name, remedy)

    def outputs(self, task: Task, scratch: Path) -> list[str]:
        run = [f"mpirun.{self.name}", *self.options, "-np", str(task.ranks)]
        command = [*run, str(scratch / self.name), *task.arguments(self.dtypes)]
        return run_processes(self.name, [command], [os.environ], scratch, TIMEOUT_S)


class Torch(Peer):
    """A backend of torch.distributed, from Python."""

    def outputs(self, task: Task, scratch: Path) -> list[str]:
        command = [sys.executable, "-m", "benchmarks.collectives.rank_torch", self.name, *task.arguments(self.dtypes)]
        return run_processes(
            self.name, [command] * task.ranks, environments(task, scratch, free_port()), scratch, TIMEOUT_S
        )


@dataclass(frozen=True)
class DeepSpeed(Peer):
    """DeepSpeed's `inference_all_reduce` on processors, in a Python of its own: transformers uses it where it is."""

    python: Path | None = None

    def prepare(self, scratch: Path) -> None:
        """Its extension is built once, before ranks start: they would all do it."""
        remedy = f"{INSTALL_DEEPSPEED}, or set PHALANX_BENCH_DEEPSPEED_PYTHON"
        if self.python is None or not self.python.exists():
            raise PeerMissing(f"no Python with DeepSpeed at {self.python}: {remedy}")
        load = "from deepspeed.ops.op_builder.cpu.comm import ShareMemCommBuilder as B; B().load(verbose=False)"
        command = [str(self.python), "-c", load]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerMissing(f"{self.python} cannot build its extension: {done.stderr.strip()[-2000:]}\n{remedy}")

    def environment(self) -> dict[str, str]:
        """With the tools of its environment: it looks for ninja."""
        assert self.python is not None
        return os.environ | {"PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}

    def outputs(self, task: Task, scratch: Path) -> list[str]:
        port = free_port()
        extra = {"PATH": self.environment()["PATH"], "LOCAL_SIZE": str(task.ranks)}
        ranks = [env | extra for env in environments(task, scratch, port)]
        command = [str(self.python), "-m", "benchmarks.collectives.rank_deepspeed", *task.arguments(self.dtypes)]
        try:
            return run_processes(self.name, [command] * task.ranks, ranks, scratch, TIMEOUT_S)
        finally:  # it leaves its memory behind; the port makes the names those of this launch
            for left in SHM.glob(f"deepspeed_allreduce_buffer_*_{port}_*"):
                left.unlink()


def environments(task: Task, scratch: Path, port: int) -> list[dict[str, str]]:
    return [environment(rank, task.ranks, scratch / "rendezvous", port) for rank in range(task.ranks)]


def everyone(settings: Mapping[str, str]) -> list[Peer]:
    """All that can take part, ours first. `settings`: the environment, for where DeepSpeed's Python lies."""
    python = settings.get("PHALANX_BENCH_DEEPSPEED_PYTHON", str(HERE.parent.parent / ".venv-deepspeed/bin/python"))
    openmpi = ("--allow-run-as-root", "--oversubscribe", "--bind-to", "none")
    return [
        Torch("phalanx"),
        Copy("copy"),
        Torch("gloo"),
        Mpi("openmpi", options=openmpi, packages="openmpi-bin libopenmpi-dev"),
        Mpi("mpich", options=("-bind-to", "none"), packages="mpich libmpich-dev"),
        DeepSpeed("deepspeed", python=Path(python)),
    ]
