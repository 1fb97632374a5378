"""A small language model with a masked loss, and global batches whose rows have unequal numbers of predicted tokens.

Run as a script it is one rank: it trains STEPS steps with the stepper and says, as JSON, the global losses,
the gradient norms and its parameters.
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.nn.functional as F
from torch import nn

from phalanx.collectives import Membership, join
from phalanx.parallel import Mesh
from phalanx.training.randomness import seeded
from phalanx.training.stepper import build_stepper
from tests.training.values import make_plan

VOCABULARY, WIDTH, LENGTH = 37, 24, 12
STEPS, RATE, CLIP = 6, 0.01, 0.5


class SmallModel(nn.Module):
    """Tokens int64 [B, T], targets int64 [B, T] with -100 where nothing is predicted. The head is the embedding."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.full((1,), 0.5))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(tokens)
        hidden = hidden + self.dropout(torch.tanh(self.mix(hidden.cumsum(1) * self.scale)))
        return self.head(hidden)

    def loss(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        logits = self(batch["tokens"])
        targets = batch["targets"].flatten()
        return F.cross_entropy(logits.flatten(0, 1), targets, reduction="sum"), int((targets >= 0).sum())

    def costs_and_ranks(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        keep = batch["targets"] >= 0
        logits, targets = self(batch["tokens"])[keep], batch["targets"][keep]
        own = logits.gather(1, targets[:, None])
        return F.cross_entropy(logits, targets, reduction="none"), (logits > own).sum(1)


def make_model(dropout: float = 0.0) -> SmallModel:
    torch.manual_seed(5)
    return SmallModel(dropout)


def make_optimizer(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=RATE)


def global_batch(step: int, rows: int) -> dict[str, torch.Tensor]:
    """Row i has between 1 and LENGTH predicted tokens, very unequal."""
    generator = torch.Generator().manual_seed(100 + step)
    tokens = torch.randint(VOCABULARY, (rows, LENGTH), generator=generator)
    targets = torch.randint(VOCABULARY, (rows, LENGTH), generator=generator)
    keep = torch.tensor([1 + (7 * i + step) % LENGTH for i in range(rows)])
    targets[torch.arange(LENGTH)[None] >= keep[:, None]] = -100
    return {"tokens": tokens, "targets": targets}


def count(batch: dict[str, torch.Tensor]) -> int:
    return int((batch["targets"] >= 0).sum())


def share(batch: dict[str, torch.Tensor], rank: int, world: int, micro_batch: int) -> list[dict[str, torch.Tensor]]:
    mine = {name: tensor[rank::world] for name, tensor in batch.items()}
    rows = len(mine["tokens"])
    return [
        {name: tensor[start : start + micro_batch] for name, tensor in mine.items()}
        for start in range(0, rows, micro_batch)
    ]


def main(rows: int, dropout: float) -> None:
    group = join(Membership.from_environment(os.environ))
    mesh = Mesh.of(make_plan(group.size).mesh, group)
    stepper = build_stepper(lambda: make_model(dropout), make_optimizer, make_plan(group.size, rows, 2), mesh)
    losses, norms = [], []
    for step in range(STEPS):
        batch = global_batch(step, rows)
        mine = share(batch, group.rank, group.size, 2)
        totals = stepper.forward_backward(
            seeded(mine, 9, step, group.rank),
            count(batch),
            tokens=rows + group.rank,
            vote=group.rank == 1 and step == 3,
        )
        assert int(totals.predicted) == count(batch)
        assert int(totals.tokens) == sum(rows + rank for rank in range(group.size))
        assert int(totals.votes) == (group.size > 1 and step == 3)
        losses.append(float(totals.loss_sum) / count(batch))
        norms.append(float(stepper.clip(CLIP)))
        stepper.update(1.0 - step / STEPS)
    parameters = {piece.name: piece.tensor.tolist() for piece in stepper.state()}
    sys.stdout.write(json.dumps({"losses": losses, "norms": norms, "parameters": parameters}))
    sys.stdout.flush()
    group.close()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
