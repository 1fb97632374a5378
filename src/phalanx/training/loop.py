"""The training loop: steps in order, each a row of events; held-out metrics and checkpoints at their times.

Every rank runs it. Decisions (stop, validate, checkpoint) are functions of the step or of numbers that
were summed over the ranks, so all ranks take them alike, and no message is sent for them. Knows nothing
of processes, environment or exit codes: `worker` starts and ends it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch

from phalanx.data import Batch, Cursor, Feed, TrainingData
from phalanx.events import Sink
from phalanx.job import Plan, TrainingSpec
from phalanx.parallel import Mesh
from phalanx.training.errors import Diverged, TrainingError
from phalanx.training.memory import ResidentSet
from phalanx.training.randomness import seeded
from phalanx.training.schedules import lr_at
from phalanx.training.stepper import MicroBatch, Stepper, Totals
from phalanx.training.validation import Validation, merged

Outcome = Literal["done", "preempted"]
VALIDATION_BATCHES = 4  # global batches' worth of held-out tokens: forward only, about the time of one and a half steps


@dataclass
class Loop:
    """`feed` begins with the first step that `run` does. `save(step, cursor)` keeps the state after `step` steps (on
    the rank that writes) and where the data goes on; `stop()`: whether to end soon."""

    stepper: Stepper
    data: TrainingData
    feed: Feed
    training: TrainingSpec
    plan: Plan
    mesh: Mesh
    emitter: Sink
    save: Callable[[int, Cursor], None]
    stop: Callable[[], bool]
    _resident: ResidentSet = field(default_factory=ResidentSet)
    _held_out: list[Batch] | None = None

    def run(self, first: int) -> Outcome:
        """Steps `first` (from 0) to the last, or to the one after which some rank wants to stop.

        Raises Diverged on all ranks alike, and what Group.allreduce raises.
        """
        steps = self.training.steps
        mark = time.perf_counter()
        for index in range(first, steps):
            step = index + 1  # what people count
            mark, leaving, cursor = self._step(index, mark)
            last = step == steps
            if last or step % self.training.evaluate_every == 0:
                self._validate(step)
            if last or leaving or step % self.training.checkpoint_every == 0:
                self.save(step, cursor)
            if leaving and not last:
                return "preempted"
            if last or step % self.training.evaluate_every == 0 or step % self.training.checkpoint_every == 0:
                mark = time.perf_counter()
        return "done"

    def _step(self, index: int, mark: float) -> tuple[float, bool, Cursor]:
        """One step, which began at `mark`; returns when it ended, whether a rank wants to stop, and where the data
        goes on."""
        loading = time.perf_counter()
        portion = self.feed.take()
        batches, count = portion.batches, portion.predicted
        loaded = time.perf_counter() - loading
        tokens = sum(batch.real_tokens for batch in batches)
        totals = self.stepper.forward_backward(
            seeded(tensors(batches), self.training.seed, index, self.mesh.data_rank),
            count,
            tokens=tokens,
            vote=self.stop(),
        )
        norm = float(self.stepper.clip(self.training.clip))
        loss = self._checked(totals, norm, count, index)
        rate = self.stepper.update(self._rate(index))
        end = time.perf_counter()
        times = self.stepper.times
        seconds = end - mark
        self.emitter.emit(
            "steps",
            {
                "step": index + 1,
                "loss": loss,
                "predicted_tokens": count,
                "tokens": tokens,
                "tokens_per_second": float(totals.tokens) / seconds,
                "learning_rate": rate,
                "gradient_norm": norm,
                "memory_bytes": self._resident.read(),
                "data_s": loaded + times["data"],
                "forward_s": times["forward"],
                "backward_s": times["backward"],
                "communication_s": times["communication"],
                "optimizer_s": times["optimizer"],
                "step_s": seconds,
            },
        )
        return end, float(totals.votes) > 0, portion.cursor

    def _rate(self, index: int) -> float:
        schedule = self.training.schedule
        return lr_at(index, self.training.steps, schedule)

    def _checked(self, totals: Totals, norm: float, count: int, index: int) -> float:
        """The global mean loss. Raises Diverged for one that is no number, TrainingError for a miscounted batch."""
        predicted = float(totals.predicted)
        if abs(predicted - count) > 1e-6 * count:
            raise TrainingError(
                f"step {index + 1}: the loader announced {count} predicted tokens, the model counted {predicted:.0f}",
                remedy="report this: loader and model disagree about what is predicted",
            )
        loss = float(totals.loss_sum) / count
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"step {index + 1}: the loss is {loss}, the gradient norm {norm}",
                remedy="lower training.optimizer.lr, raise schedule.warmup, or set training.clip",
            )
        return loss

    def _validate(self, step: int) -> None:
        """Metrics on a fixed sample of held-out files; each rank takes its part of it, rank 0 says what all found."""
        start = time.perf_counter()
        if self._held_out is None:
            tokens = VALIDATION_BATCHES * self.data.spec.global_batch * self.data.spec.sequence_length
            rank, world = self.mesh.data_rank, self.mesh.data_size
            self._held_out = list(self.data.validation_batches(tokens, self.plan.micro_batch, rank, world))
        mine = Validation()
        found = self.stepper.evaluate(tensors(self._held_out))
        for batch, (costs, ranks) in zip(self._held_out, found, strict=True):
            mine.update(costs.numpy(), ranks.numpy(), batch.predicted_bytes)
        whole = merged(mine, self.mesh.group)
        if self.mesh.group.rank == 0:
            row = {"step": step, "split": "held-out", **whole.compute(), "seconds": time.perf_counter() - start}
            self.emitter.emit("validations", row)


def tensors(batches: Iterable[Batch]) -> Iterator[MicroBatch]:
    """The batches' arrays as tensors that share their memory."""
    for batch in batches:
        yield {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
