"""A rehearsal: as many workers as the host has cores do a few real steps together, with a clock.

No table of speeds knows how fast this model runs on this machine, and workers that share caches and a memory bus
are slower than one alone. So the plan's time comes from the real stepper, on real batches, in real processes that
sum their gradients; and so does the choice of micro-batch and precision. The planner starts the processes
before it needs them, because they take a second or two to load torch, and tells them later what to try.

By hand, of one worker (job.json is the Job as JSON):

    python -m phalanx.planning.rehearsal --directory DIR --job job.json --cache CACHE
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from phalanx.foundation import PhalanxError, write_atomic
from phalanx.foundation.child import run_child
from phalanx.host.processes import start, terminate
from phalanx.job import Job, MeshSpec, read_value
from phalanx.job.plan import ArithmeticPrecision
from phalanx.planning.trials import Trial, next_trial

if TYPE_CHECKING:
    import subprocess

    from phalanx.data import Feed, TrainingData
    from phalanx.parallel import Mesh
    from phalanx.training import Stepper

BUDGET_S = 3.0  # for all trials together; one that has begun is finished
LIMIT_S = 120.0
STEPS = 3  # timed, after one that is not
_LONG_S = 0.25  # one that takes so long is timed once
_ORDERS, _RESULT = "orders.json", "result.json"


class RehearsalFailed(PhalanxError):
    """The rehearsal gave no times; the plan then goes by arithmetic."""


@dataclass(frozen=True)
class Orders:
    """What to try: micro-batches, rising, and precisions; `threads` of each worker; `budget_s` in all."""

    sizes: tuple[int, ...]
    precisions: tuple[ArithmeticPrecision, ...]
    threads: int
    budget_s: float = BUDGET_S


class Rehearsal:
    """The processes, from their start to their end; a context manager that leaves none behind."""

    def __init__(self, job_file: Path, cache_dir: Path, workers: int) -> None:
        self.workers = workers
        self._temporary = tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=job_file.parent)
        self._directory = Path(self._temporary.name)
        argv = [sys.executable, "-m", "phalanx.planning.rehearsal", "--directory", str(self._directory)]
        argv += ["--job", str(job_file), "--cache", str(cache_dir)]
        self.processes: list[subprocess.Popen[bytes]] = []
        for rank in range(workers):
            environment = os.environ | {
                "RANK": str(rank),
                "WORLD_SIZE": str(workers),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(workers),
                "PHALANX_RENDEZVOUS": str(self._directory / "rendezvous"),
                "GLOO_SOCKET_IFNAME": "lo",
            }
            self.processes.append(start(argv, env=environment, output=self._log(rank)))

    def __enter__(self) -> Rehearsal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            if process.poll() is None:
                terminate(process, 0.0)
        self._temporary.cleanup()

    def try_out(self, orders: Orders) -> tuple[Trial, ...]:
        """At least one trial. Raises RehearsalFailed when a process ends badly or nothing comes of it."""
        write_atomic(self._directory / _ORDERS, json.dumps(asdict(orders)))
        deadline = time.monotonic() + LIMIT_S
        result = self._directory / _RESULT
        while not result.exists():
            for rank, process in enumerate(self.processes):
                if process.poll() is not None and not result.exists():
                    raise RehearsalFailed(f"rank {rank} ended: {self._last_words(rank)}")
            if time.monotonic() > deadline:
                raise RehearsalFailed(f"it took longer than {LIMIT_S:.0f} s")
            time.sleep(0.01)
        return tuple(Trial(*values) for values in json.loads(result.read_bytes()))

    def _log(self, rank: int) -> Path:
        return self._directory / f"rank-{rank}.log"

    def _last_words(self, rank: int) -> str:
        lines = self._log(rank).read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"exit code {self.processes[rank].returncode}"


def main() -> None:
    """One process of the rehearsal."""
    parser = argparse.ArgumentParser(prog="phalanx.planning.rehearsal")
    parser.add_argument("--directory", type=Path, required=True, help="where orders come and the result goes")
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    import torch

    from phalanx.collectives import Membership, join
    from phalanx.data import open_data
    from phalanx.parallel import Mesh

    orders = _wait_for_orders(options.directory / _ORDERS)
    torch.set_num_threads(orders.threads)
    job = read_value(options.job, Job)
    data = open_data(job.spec, options.cache)
    group = join(Membership.from_environment(os.environ))
    mesh = Mesh.of(MeshSpec(data=group.size), group)
    done = list(_trials(job, data, mesh, orders))
    if group.rank == 0:
        write_atomic(options.directory / _RESULT, json.dumps(done))
    group.barrier("rehearsal")
    _leave()


def _wait_for_orders(file: Path) -> Orders:
    """The parent's death ends this process, so nothing else bounds the waiting."""
    while not file.exists():
        time.sleep(0.01)
    values = json.loads(file.read_bytes())
    return Orders(tuple(values["sizes"]), tuple(values["precisions"]), values["threads"], values["budget_s"])


def _trials(job: Job, data: TrainingData, mesh: Mesh, orders: Orders) -> Iterator[Trial]:
    """All ranks decide alike: from times that are the slowest rank's."""
    began = time.perf_counter()
    done: list[Trial] = []
    while (wanted := next_trial(done, orders.sizes, orders.precisions)) is not None:
        stepper = _stepper(job, data, mesh, *wanted)
        seconds, elapsed = _slowest(mesh, _time_steps(job, data, mesh, stepper, wanted[0]), time.perf_counter() - began)
        done.append(Trial(*wanted, seconds))
        yield done[-1]
        if elapsed > orders.budget_s and len(done) >= len(orders.precisions):
            return


def _stepper(job: Job, data: TrainingData, mesh: Mesh, micro_batch: int, precision: ArithmeticPrecision) -> Stepper:
    from phalanx.planning.subject import bare_plan, subject_of
    from phalanx.training import build_stepper

    subject = subject_of(job, data)
    plan = bare_plan(job, micro_batch, precision)
    return build_stepper(subject.make_model, subject.make_optimizer, plan, mesh)


def _time_steps(job: Job, data: TrainingData, mesh: Mesh, stepper: Stepper, micro_batch: int) -> float:
    """Seconds of a step with this rank's whole share: the median of a few; one before says how many there can be."""
    start = time.perf_counter()
    # With fewer processes than workers each still takes a worker's share.
    feed = data.feed(None, mesh.data_rank, job.spec.workers.count, micro_batch)
    _step(job, feed, mesh, stepper, 0)
    (first,) = _slowest(mesh, time.perf_counter() - start)
    steps = 1 if first > _LONG_S else STEPS
    return statistics.median(_step(job, feed, mesh, stepper, 1 + step) for step in range(steps))


def _step(job: Job, feed: Feed, mesh: Mesh, stepper: Stepper, step: int) -> float:
    """As `training.loop` does it, but of one micro-batch; its time is scaled to the whole share."""
    from phalanx.training.loop import tensors
    from phalanx.training.randomness import seeded

    start = time.perf_counter()
    portion = feed.take()
    batches, count = portion.batches, portion.predicted
    loading = time.perf_counter() - start
    stepper.forward_backward(seeded(tensors(batches[:1]), 0, step, mesh.data_rank), count)
    stepper.clip(job.spec.training.clip)
    stepper.update()
    times = stepper.times
    share = sum(batch.real_tokens for batch in batches) / batches[0].real_tokens
    computing = share * (times["data"] + times["forward"] + times["backward"])
    return loading + computing + times["communication"] + times["optimizer"]


def _slowest(mesh: Mesh, *values: float) -> list[float]:
    import torch

    numbers = torch.tensor(values, dtype=torch.float64)
    mesh.group.allreduce(numbers, "max", name="times").wait()
    found: list[float] = numbers.tolist()
    return found


def _leave() -> NoReturn:
    """Gloo now and then aborts a process that exits normally after correct work."""
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    run_child(main)
