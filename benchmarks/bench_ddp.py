"""Tokens/s of a small GPT under DistributedDataParallel: 2 processes over ours and over gloo, 1 with 2 threads.

The same torch script for all, with the same tokens a step; the mean loss must be the same, else nothing is measured.
Two processes that do not talk at all are the most that any backend can give.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import Comparison, NotEqual, Options, Side, compare
from benchmarks.ranks import run_ranks, tokens_per_second
from benchmarks.side_ddp import Orders

PROCESSES = 2
LENGTH = 128
VOCABULARY = 4096
ROWS = {"gpt-tiny": 8, "decoder": 16}
"""Of a step, all processes together: few, as when a batch is spread over many processes; the sum of the gradients is
then a large part of a step."""
SAME_LOSS = 1e-3
"""Nats: what two orders of summing may differ by after some hundred steps."""


def run(options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    models = ["gpt-tiny"] if options.quick else list(ROWS)
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        return [_compare(model, options, Path(scratch), progress) for model in models]


def _compare(model: str, options: Options, scratch: Path, progress: Callable[[str], None]) -> Comparison:
    steps = 5 if options.quick else 100
    losses: dict[str, float] = {}

    def side(name: str, backend: str, size: int) -> Side:
        orders = Orders(
            model=model,
            vocabulary=VOCABULARY,
            length=LENGTH,
            rows=ROWS[model],
            steps=steps,
            warmup=3,
            threads=PROCESSES // size,
            backend=backend,
        )

        def measure() -> float:
            windows = run_ranks("side_ddp", asdict(orders), size, scratch)
            losses[name] = sum(window.loss for window in windows) / size
            return tokens_per_second(windows)

        return Side(name, measure, {"processes": size, "threads": orders.threads})

    comparison = compare(
        f"ddp {model}",
        "tokens/s",
        [
            side("phalanx", "phalanx", PROCESSES),
            side("gloo", "gloo", PROCESSES),
            side("one process", "", 1),
            side("no sum at all", "none", PROCESSES),
        ],
        rounds=options.rounds,
        notes={"tokens a step": ROWS[model] * LENGTH, "steps": steps},
        progress=progress,
    )
    _refuse_different_losses(losses)
    return comparison


def _refuse_different_losses(losses: dict[str, float]) -> None:
    """Raises NotEqual. Those that do not sum learn something else."""
    for name in ("gloo", "one process"):
        if abs(losses[name] - losses["phalanx"]) > SAME_LOSS:
            raise NotEqual(f"the mean loss is {losses['phalanx']:.6f} over phalanx, {losses[name]:.6f} with {name}")
