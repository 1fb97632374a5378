"""One rank of our own training, as a worker does it: group, loader, stepper, loop and a row of events a step.

    python -m benchmarks.side_phalanx ORDERS      (see `Orders`; started on every rank by `ranks.run_ranks`)

Only what is not a step is left out: validation is at the end, and nothing is saved.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.ranks import Instant, Window
from phalanx.collectives import Membership, join
from phalanx.data import Corpus, Loader, LoaderSpec
from phalanx.events import Context, Emitter, NullEmitter, Sink
from phalanx.job import Job, Plan
from phalanx.models import build, resolve
from phalanx.parallel import Mesh
from phalanx.training import build_stepper
from phalanx.training.loop import Loop
from phalanx.training.optimizers import make_optimizer


@dataclass(frozen=True)
class Orders:
    """`job` and `plan` as JSON values. `entries`: of the model's vocabulary, the corpus's own or more. `spool`: where
    events go; None: nowhere. Of the job's steps the first `warmup` do not count."""

    corpus: str
    job: dict[str, Any]
    plan: dict[str, Any]
    entries: int
    warmup: int
    spool: str | None = None


@dataclass
class Clock:
    """A sink that hands every row on, and notes when each step's came and what was read for it."""

    sink: Sink
    ends: list[Instant] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def emit(self, table: str, row: dict[str, Any], **context: int) -> None:
        self.sink.emit(table, row, **context)
        if table == "steps":
            self.ends.append(Instant.now())
            self.tokens.append(row["tokens"])
            self.losses.append(row["loss"])

    def close(self) -> None:
        self.sink.close()


def main(orders: Orders) -> Window:
    job, plan = Job.model_validate(orders.job), Plan.model_validate(orders.plan)
    spec = job.spec
    torch.set_num_threads(plan.threads)
    corpus = Corpus.open(Path(orders.corpus))
    loader = Loader(corpus, LoaderSpec.of(spec))
    config = resolve(spec.model.name, orders.entries, spec.data.sequence_length, spec.model.dropout)
    group = join(Membership.from_environment(os.environ))
    mesh = Mesh.of(plan.mesh, group)

    def make_model() -> nn.Module:
        torch.manual_seed(spec.training.seed)
        return build(config)

    stepper = build_stepper(make_model, lambda module: make_optimizer(module, spec.training.optimizer), plan, mesh)
    context = Context(os.uname().nodename, "benchmarks", job.metadata.uid, 1, 1, group.rank, "worker")
    clock = Clock(Emitter(Path(orders.spool), context) if orders.spool else NullEmitter())
    feed = loader.feed(None, mesh.data_rank, mesh.data_size, plan.micro_batch)
    loop = Loop(stepper, loader, feed, spec.training, plan, mesh, clock, lambda step, cursor: None, lambda: False)
    loop.run(0)
    clock.close()
    group.barrier("end")
    group.close()
    counted = clock.tokens[orders.warmup :]
    rows = -(-(spec.training.global_batch - group.rank) // group.size)
    first, last = clock.ends[orders.warmup - 1], clock.ends[-1]
    return Window(
        tokens=sum(counted),
        places=len(counted) * rows * spec.data.sequence_length,
        seconds=last.wall - first.wall,
        cpu_seconds=last.cpu - first.cpu,
        loss=sum(clock.losses) / len(clock.losses),
    )


if __name__ == "__main__":
    main(Orders(**json.loads(Path(sys.argv[1]).read_text()))).say()
