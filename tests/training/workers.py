"""Real workers, with the environment that an agent gives: a script on every rank, or whole runs of a job."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from phalanx.events import list_files, read_rows
from phalanx.job import Job, Plan
from phalanx.training.checkpoint import Checkpoint, newest_good


def environment(rank: int, size: int, rendezvous: Path, generation: int = 1) -> dict[str, str]:
    return os.environ | {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "PHALANX_RENDEZVOUS": str(rendezvous),
        "PHALANX_GENERATION": str(generation),
        "PHALANX_ATTEMPT": "1",
        "PHALANX_JOB_UID": "u1",
        "PHALANX_NAMESPACE": "tests",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


def run_script(script: Path, size: int, scratch: Path, *arguments: str) -> list[str]:
    """Run `python script arguments` on `size` ranks; their outputs. Fails with the stderr of a rank that ended badly."""
    rendezvous = scratch / f"rendezvous-{os.urandom(4).hex()}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=environment(rank, size, rendezvous),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in outputs]


class Run:
    """A run directory with its job and plan, and generations of real workers in it."""

    def __init__(self, directory: Path, job: Job, plan: Plan, cache: Path) -> None:
        self.directory = directory
        self.spool = directory / "spool"
        self.cache = cache
        self.job, self.plan = job, plan
        self._started: list[subprocess.Popen[bytes]] = []
        directory.mkdir(parents=True)
        (directory / "job.json").write_text(job.model_dump_json())
        (directory / "plan.json").write_text(plan.model_dump_json())

    def start(
        self, generation: int = 1, program: tuple[str, ...] = ("-m", "phalanx.training.worker")
    ) -> list[subprocess.Popen[bytes]]:
        """The workers of a generation; `program` is what Python runs instead of the worker module."""
        size = self.plan.mesh.size
        processes = []
        for rank in range(size):
            with self.log(generation, rank).open("wb") as log:
                command = [sys.executable, *program, "--run-dir", str(self.directory), "--spool", str(self.spool)]
                process = subprocess.Popen(
                    [*command, "--cache", str(self.cache)],
                    env=environment(rank, size, self.directory / f"rendezvous-{generation}", generation),
                    stdout=log,
                    stderr=log,
                )
            processes.append(process)
        self._started += processes
        return processes

    def finish(self, processes: list[subprocess.Popen[bytes]], timeout_s: float = 120) -> list[int]:
        """Their exit codes."""
        return [process.wait(timeout_s) for process in processes]

    def complete(self, generation: int = 1) -> None:
        """Run a generation to its end, which must be a good one."""
        codes = self.finish(self.start(generation))
        assert codes == [0] * len(codes), [self.last_words(generation, rank) for rank in range(len(codes))]

    def kill(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    def log(self, generation: int, rank: int) -> Path:
        return self.directory / f"generation-{generation}-rank-{rank}.log"

    def last_words(self, generation: int, rank: int) -> str:
        return self.log(generation, rank).read_text().strip().splitlines()[-1]

    def rows(self, table: str, **context: int) -> list[dict[str, Any]]:
        """Rows of a table, by order of emission, whose context has these values."""
        rows = [row for file in list_files(self.spool) for row in read_rows(file.path) if row.table == table]
        rows.sort(key=lambda row: (row.context["generation"], row.context["rank"], row.context["seq"]))
        return [row.fields for row in rows if context.items() <= row.context.items()]

    def losses(self, **context: int) -> dict[int, float]:
        """Training loss by step, of rank 0."""
        return {row["step"]: row["loss"] for row in self.rows("steps", **{"rank": 0, **context})}

    def wait_for_step(
        self, step: int, processes: list[subprocess.Popen[bytes]], generation: int = 1, rank: int = 0
    ) -> None:
        """Return once `rank` has said that it did `step`; fails when a worker ends before."""
        deadline = time.monotonic() + 120
        while step not in {row["step"] for row in self.rows("steps", rank=rank, generation=generation)}:
            assert all(process.poll() is None for process in processes), self.last_words(generation, rank)
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def checkpoint(self) -> Checkpoint:
        found = newest_good(self.directory / "checkpoints").checkpoint
        assert found is not None
        return found

    def tensors(self) -> dict[str, torch.Tensor]:
        """Of the newest checkpoint, parameters and optimizer state."""
        checkpoint = self.checkpoint()
        shapes = {name: checkpoint.shape(name) for name in checkpoint.names()}
        return {name: checkpoint.read_slice(name, (0,) * len(shape), shape) for name, shape in shapes.items()}


def write_text(directory: Path, files: int = 24, words: int = 500) -> Path:
    """A directory of small, different text files with something to learn in them."""
    directory.mkdir(parents=True)
    draw = random.Random(3)
    vocabulary = ["".join(draw.choices("aeioulnrst", k=draw.randint(2, 7))) for _ in range(120)]
    for number in range(files):
        text = " ".join(draw.choices(vocabulary, weights=range(1, 121), k=words))
        (directory / f"text-{number}.txt").write_text(text + "\n")
    return directory
