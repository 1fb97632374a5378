"""One rank of a plain torch script: a small GPT under DistributedDataParallel, over the backend that it is told.

    python -m benchmarks.side_ddp ORDERS      (see `Orders`; started on every rank by `ranks.run_ranks`)

Nothing in it is ours but the model and, where that is asked for, the backend. The tokens are drawn, the same for
every backend and number of processes, so that losses can be compared.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.ranks import Instant, Window
from phalanx.models import build, resolve


@dataclass(frozen=True)
class Orders:
    """`rows`: of `length` tokens, all processes together. `backend`: torch's name; "": one process; "none": processes
    that do not talk. Of all steps the first `warmup` do not count. `threads`: of each process."""

    model: str
    vocabulary: int
    length: int
    rows: int
    steps: int
    warmup: int
    threads: int
    backend: str


class Objective(nn.Module):
    """Mean cross-entropy in nats as a module's output: DDP only sees `forward`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        total, number = self.model.loss({"tokens": tokens})
        return total / number


def main(orders: Orders) -> Window:
    torch.set_num_threads(orders.threads)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.manual_seed(0)
    module: nn.Module = Objective(build(resolve(orders.model, orders.vocabulary, orders.length)))
    if orders.backend == "phalanx":
        import phalanx.collectives  # noqa: F401 - makes the backend known
    if orders.backend not in ("", "none"):
        dist.init_process_group(orders.backend)
        module = nn.parallel.DistributedDataParallel(module)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    draw = torch.Generator().manual_seed(1)
    losses, start = [], Instant.now()
    for step in range(-orders.warmup, orders.steps):
        if step == 0:
            start = Instant.now()
        tokens = torch.randint(orders.vocabulary, (orders.rows, orders.length + 1), generator=draw)
        loss = module(tokens.chunk(size)[rank])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    end = Instant.now()
    counted = orders.steps * (orders.rows // size) * orders.length
    if dist.is_initialized():
        dist.destroy_process_group()
    return Window(counted, counted, end.wall - start.wall, end.cpu - start.cpu, sum(losses) / len(losses))


if __name__ == "__main__":
    main(Orders(**json.loads(Path(sys.argv[1]).read_text()))).say()
