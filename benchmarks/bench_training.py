"""Training tokens/s of GPT-2 and of Llama's shape against transformers' own modules: one process, the same steps.

Both sides take the same weights, tokens, optimizer (fused AdamW), clipping and number of steps, in float32 without
dropout, on 1 thread and on 2; the losses of all steps must agree, else nothing is measured. The sizes are those of
a small model that a laptop trains: 2 layers, hidden 128, 4,096 entries, 16 rows of 128 tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Comparison, NotEqual, Options, Side, compare, stopwatch
from phalanx.models import ModelConfig, build, resolve

Progress = Callable[[str], None]
ENTRIES, ROWS, LENGTH = 4096, 16, 128
THREADS = (1, 2)
WARMUP = 2
LOSS_TOLERANCE = 1e-4
"""Nats, of each step's mean loss."""


def configs() -> list[ModelConfig]:
    gpt2 = resolve("gpt2", ENTRIES, LENGTH, 0.0)
    small = replace(gpt2, name="gpt2-like", layers=2, hidden=128, heads=2, kv_heads=2, head_width=64, feed_forward=512)
    return [small, replace(resolve("llama-tiny", ENTRIES, LENGTH, 0.0), name="llama-like")]


def ours_loss(module: Any, tokens: Tensor) -> Tensor:
    loss_sum, count = module.loss({"tokens": tokens})
    return loss_sum / count  # type: ignore[no-any-return]


def peer_loss(module: Any, tokens: Tensor) -> Tensor:
    return module(input_ids=tokens, labels=tokens).loss  # type: ignore[no-any-return]


class Contestant:
    """Trains a fresh copy each time it is measured; `losses` of the last run, in nats."""

    def __init__(self, module: nn.Module, loss: Callable[[Any, Tensor], Tensor], batches: list[Tensor]) -> None:
        self._module, self._loss, self._batches = module, loss, batches
        self.losses: list[float] = []
        self.cpu = 0.0

    def measure(self) -> float:
        module = copy.deepcopy(self._module).train()
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
        self.losses = []
        self._steps(module, optimizer, self._batches[:WARMUP])
        with stopwatch() as elapsed:
            self._steps(module, optimizer, self._batches[WARMUP:])
        self.cpu = elapsed.cpu
        return (len(self._batches) - WARMUP) * ROWS * LENGTH / elapsed.wall

    def _steps(self, module: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Tensor]) -> None:
        for tokens in batches:
            loss = self._loss(module, tokens)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            self.losses.append(float(loss.detach()))


def contest(config: ModelConfig, options: Options, progress: Progress) -> Comparison:
    from benchmarks.same_loss import peer_of

    torch.manual_seed(0)
    ours = build(config)
    generator = torch.Generator().manual_seed(1)
    steps = WARMUP + (3 if options.quick else 20)
    batches = [torch.randint(ENTRIES, (ROWS, LENGTH), generator=generator) for _ in range(steps)]
    sides = {
        "phalanx": Contestant(ours, ours_loss, batches),
        "transformers": Contestant(peer_of(ours), peer_loss, batches),
    }
    comparison = compare(
        f"training {config.name}, threads: {torch.get_num_threads()}",
        "tokens/s",
        [Side(name, side.measure) for name, side in sides.items()],
        rounds=options.rounds,
        progress=progress,
    )
    differences = [abs(a - b) for a, b in zip(sides["phalanx"].losses, sides["transformers"].losses, strict=True)]
    if not max(differences) <= LOSS_TOLERANCE:
        raise NotEqual(f"{config.name}: the losses of the same step differ by {max(differences):.2e} nats")
    cpu = {f"{name} CPU seconds": round(side.cpu, 2) for name, side in sides.items()}
    return replace(comparison, notes={"largest difference of losses": max(differences), **cpu})


def run(options: Options, progress: Progress) -> list[Comparison]:
    found = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        found += [contest(config, options, progress) for config in configs()]
    return found
