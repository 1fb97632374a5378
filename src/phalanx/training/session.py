"""One worker's share of a job, from the files of a run directory to the last step.

    job.json, plan.json -> corpus -> group -> model -> newest good checkpoint -> loop

Everything is built from the job, the plan and the seed, so all ranks, and a later generation, build the
same. Knows nothing of signals and exit codes (`worker`) or of how a step is computed (`stepper`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from phalanx.collectives import CollectiveError, Group, Membership, join, report_to
from phalanx.data import Cursor, open_data
from phalanx.events import Context, Emitter
from phalanx.foundation import UsageError
from phalanx.job import Job, Plan, read_value
from phalanx.parallel import Mesh
from phalanx.training import checkpoint, memory
from phalanx.training.beginning import begin, build_model, model_config
from phalanx.training.checkpoint import Checkpoint
from phalanx.training.loop import Loop, Outcome
from phalanx.training.manifest import Manifest, Rng
from phalanx.training.optimizers import make_optimizer
from phalanx.training.randomness import RULE
from phalanx.training.stepper import Stepper, build_stepper

JOIN_TIMEOUT_S = 120.0
STEPS_AHEAD = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orders:
    """What a worker is started with. `fallback`: index into the plan's fallbacks; -1: the plan itself."""

    run_dir: Path
    spool_dir: Path
    cache_dir: Path
    membership: Membership
    job_uid: str
    namespace: str
    attempt: int
    fallback: int = -1


class Session:
    """One worker of one generation. `stop()` is asked once a step whether to end after it."""

    def __init__(self, orders: Orders, stop: Callable[[], bool]) -> None:
        self._orders = orders
        self._stop = stop
        self._job = read_value(orders.run_dir / "job.json", Job)
        plan = read_value(orders.run_dir / "plan.json", Plan)
        if not -1 <= orders.fallback < len(plan.fallbacks):
            raise UsageError(f"the plan has no fallback {orders.fallback}", where=str(orders.run_dir / "plan.json"))
        self._plan = plan if orders.fallback < 0 else plan.fallbacks[orders.fallback]
        self._checkpoints = orders.run_dir / "checkpoints"

    def prepare(self) -> None:
        """Read the data: may take long the first time, and fails alike on all ranks. Raises DataError, StorageError.

        A run that goes on gets the very text that it began with, whatever has become of the source meanwhile.
        """
        torch.set_num_threads(self._plan.threads)
        record = self._orders.run_dir / "data"
        self._data = open_data(self._job.spec, self._orders.cache_dir, record=record)
        if self._orders.membership.rank == 0:
            self._data.describe_into(record)

    def run(self) -> Outcome:
        """Form the group, take up the newest good checkpoint and train.

        Raises PeerLost, CollectiveTimeout, Diverged, CheckpointMismatch, StorageError, MemoryError.
        """
        member = self._orders.membership
        context = Context(
            host=os.uname().nodename,
            namespace=self._orders.namespace,
            job_uid=self._orders.job_uid,
            attempt=self._orders.attempt,
            generation=member.generation,
            rank=member.rank,
            program="worker",
        )
        self._emitter = Emitter(self._orders.spool_dir, context)
        dumps = self._orders.run_dir / "flight-recorder" / f"generation-{member.generation}"
        report_to(sink=self._emitter, prefix=f"{dumps}/rank-")
        group = join(member, timeout_s=JOIN_TIMEOUT_S)
        try:
            outcome = self._train(group)
            group.barrier("end")
        except CollectiveError:
            raise
        except Exception as error:  # whatever it is, the others are told, and it goes on
            group.abort(f"{type(error).__name__}: {error}".partition("\n")[0])
            raise
        finally:
            report_to()  # the last operations become rows
            self._emitter.close()
        group.close()
        return outcome

    def _train(self, group: Group) -> Outcome:
        self._data.touch()
        _load_lazy_parts()
        baseline = memory.ResidentSet().read()
        measurable = memory.reset_peak()
        stepper, first, begin = self._take_up(group)

        def save(step: int, cursor: Cursor) -> None:
            if group.rank == 0:
                self._save(stepper, step, cursor)
            if measurable:
                self._emitter.emit("memory", {"category": "baseline", "bytes": baseline})
                self._emitter.emit("memory", {"category": "measured_peak", "bytes": memory.peak_bytes() - baseline})

        mesh = Mesh.of(self._plan.mesh, group)
        training = self._job.spec.training
        micro_batch = self._plan.micro_batch
        with closing(self._data.feed(begin, mesh.data_rank, mesh.data_size, micro_batch, ahead=STEPS_AHEAD)) as feed:
            loop = Loop(stepper, self._data, feed, training, self._plan, mesh, self._emitter, save, self._stop)
            log.info("rank %d of %d: steps %d to %d", group.rank, group.size, first + 1, training.steps)
            return loop.run(first)

    def _take_up(self, group: Group) -> tuple[Stepper, int, Cursor | None]:
        """The stepper, in the state of the newest good checkpoint, the number of steps it has done, and where its data
        goes on."""
        spec = self._job.spec
        self._config = model_config(spec, self._data)
        found = self._choose(group)

        def make_model() -> nn.Module:
            module = build_model(spec, self._config)
            if found is None and spec.model.weights is not None:
                self._begin(module, Path(spec.model.weights).expanduser(), group)
            return module

        mesh = Mesh.of(self._plan.mesh, group)
        stepper = build_stepper(
            make_model, lambda module: make_optimizer(module, spec.training.optimizer), self._plan, mesh
        )
        start = time.perf_counter()
        if found is None:
            return stepper, 0, None
        stepper.load(found)
        step = found.manifest.step
        row = {"event": "read", "step": step, "path": str(found.path), "bytes": found.bytes}
        self._emitter.emit("checkpoints", row | {"seconds": time.perf_counter() - start})
        memory.reset_peak()  # what loading took is not a step's
        return stepper, step, found.manifest.data_cursor

    def _begin(self, module: nn.Module, path: Path, group: Group) -> None:
        """With the weights at `path`; rank 0 says what was taken, and what is fresh."""
        start = time.perf_counter()
        begun = begin(module, self._config, path)
        if group.rank == 0:
            log.info("begins with %s", begun.describe())
            row = {"event": "begun with", "step": 0, "path": str(path), "message": begun.describe()}
            self._emitter.emit("checkpoints", row | {"seconds": time.perf_counter() - start})

    def _choose(self, group: Group) -> Checkpoint | None:
        """Rank 0 chooses, so that all take the same one."""
        chosen = torch.tensor([-1])
        found = None
        if group.rank == 0:
            result = checkpoint.newest_good(self._checkpoints)
            for error in result.damaged:
                self._emitter.emit("checkpoints", {"event": "damaged", "path": error.where, "message": error.message})
            checkpoint.set_aside(result)
            found = result.checkpoint
            if found is not None:
                chosen[0] = found.manifest.step
        group.broadcast(chosen, name="checkpoint").wait()
        step = int(chosen)
        if step < 0 or found is not None:
            return found
        return Checkpoint.open(checkpoint.path_of(self._checkpoints, step))

    def _save(self, stepper: Stepper, step: int, cursor: Cursor) -> None:
        start = time.perf_counter()
        manifest = Manifest(
            step=step,
            data_cursor=cursor,
            rng=Rng(seed=self._job.spec.training.seed, rule=RULE),
            model=self._config.to_dict(),
            plan=self._plan,
        )
        companions = {
            "tokenizer.json": self._orders.run_dir / "data" / "tokenizer.json",
            "job.json": self._orders.run_dir / "job.json",
        }
        keep = self._job.spec.training.keep_checkpoints
        written = checkpoint.write(self._checkpoints, manifest, stepper.state(), companions, keep)
        row = {"event": "written", "step": step, "path": str(written.path), "bytes": written.bytes}
        self._emitter.emit("checkpoints", row | {"seconds": time.perf_counter() - start})


def _load_lazy_parts() -> None:
    """Let torch load now what it loads with the first gradient and optimizer (70 MiB of its compiler with 2.13), so
    that it is not counted as memory of the model."""
    weight = torch.zeros(8, 8, requires_grad=True)
    (weight @ weight).sum().backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD([weight]).step()
