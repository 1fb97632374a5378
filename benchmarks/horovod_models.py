"""What `bench_horovod` trains, on every side alike: a convolutional net and a GPT, what they read, and the loop.

Plain torch and nothing else: the Python that has the real Horovod imports it too. Knows nothing of who averages the
gradients. Both nets have about eight million parameters, and the rows of a step are few, so that the averages are a
large part of it.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES, PIXELS = 1000, 32
VOCABULARY, LENGTH, WIDTH, HEADS, BLOCKS = 4096, 32, 256, 4, 8
BATCHES = 8
"""Of each rank, again and again: making numbers is not what is measured."""


@dataclass(frozen=True)
class Orders:
    """`rows`: of one rank in a step. Of all steps the first `warmup` do not count. `average`: of the gradients, for
    the twin without Horovod. Each rank writes `<rank>.json` in `results`."""

    model: str
    rows: int
    steps: int
    warmup: int
    average: bool
    results: str

    @classmethod
    def given(cls) -> Orders:
        """By the file that the command line names."""
        return cls(**json.loads(Path(sys.argv[1]).read_text()))


@dataclass(frozen=True)
class Trained:
    """What one rank says: of the steps that count, and its loss at each of all steps."""

    seconds: float
    losses: tuple[float, ...]

    def write(self, orders: Orders, rank: int) -> None:
        Path(orders.results, f"{rank}.json").write_text(json.dumps(asdict(self)))


class Convolutional(nn.Module):
    """Four convolutions over small pictures, and two wide layers above them, which have most of the parameters."""

    def __init__(self) -> None:
        super().__init__()
        channels = [3, 32, 64, 128, 256]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        left = PIXELS // 2 ** (len(channels) - 1)
        layers += [nn.Flatten(), nn.Linear(channels[-1] * left**2, 4096), nn.ReLU(), nn.Linear(4096, CLASSES)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        """[rows, 3, PIXELS, PIXELS] -> [rows, CLASSES]."""
        scores: Tensor = self.layers(pictures)
        return scores


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.inward, self.outward = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, rows: Tensor) -> Tensor:
        query, key, value = self.inward(self.before(rows)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        rows = rows + self.outward(mixed.transpose(1, 2).flatten(2))
        return rows + self.feed(self.after(rows))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.last, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[rows, LENGTH] -> [rows * LENGTH, VOCABULARY]."""
        rows = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        scores: Tensor = self.head(self.last(self.blocks(rows)))
        return scores.flatten(0, 1)


def build(name: str) -> nn.Module:
    """ "conv" or "gpt", with the same parameters in every process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return {"conv": Convolutional, "gpt": Gpt}[name]()


def draw(name: str, rows: int, rank: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of (inputs, targets), others for each rank, the same on every side."""
    chance = torch.Generator().manual_seed(1 + rank)
    if name == "gpt":
        tokens = torch.randint(VOCABULARY, (BATCHES, rows, LENGTH + 1), generator=chance)
        return [(batch[:, :-1], batch[:, 1:].flatten()) for batch in tokens]
    pictures = torch.randn(BATCHES, rows, 3, PIXELS, PIXELS, generator=chance)
    return list(zip(pictures, torch.randint(CLASSES, (BATCHES, rows), generator=chance), strict=True))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, orders: Orders, rank: int) -> Trained:
    batches = draw(orders.model, orders.rows, rank)
    losses, start = [], time.perf_counter()
    for step in range(orders.warmup + orders.steps):
        if step == orders.warmup:
            start = time.perf_counter()
        inputs, targets = batches[step % BATCHES]
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return Trained(time.perf_counter() - start, tuple(losses))
