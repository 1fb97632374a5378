"""One Horovod script, 2 ranks: under ours, under the real Horovod 0.28.1, and its twin under DDP over gloo.

Steps/s of a convolutional net and a GPT, whose sizes are such that the averages of gradients take about a third of a
step of the peers: by twins that average nothing. The losses must be the same, else nothing is measured. Then the time
of three kinds of sums, ours against the real Horovod. A launch starts both ranks anew; sides take turns.

`PHALANX_BENCH_HOROVOD_PYTHON` names the Python that has the real Horovod; docs/benchmarks.md says how it is built.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, NotEqual, Options, Side, compare
from benchmarks.horovod_models import Orders
from benchmarks.ranks import TIMEOUT_S, environment, free_port, run_processes

RANKS = 2
ROWS = {"conv": 3, "gpt": 4}
"""Of one rank in a step, so few that the peers average for about a third of it."""
STEPS, WARMUP = 100, 10
CALLS = 400
SAME_LOSS = 1e-3
"""Nats, at any step. Two ranks add the same two numbers whoever adds them, so it is usually nothing."""
TARGET = 1.3
PYTHON = "PHALANX_BENCH_HOROVOD_PYTHON"
OURS, REAL, DDP, ALONE = "phalanx", "Horovod", "DDP over gloo", "no average at all"
OPERATIONS = {
    "small": "one named sum of 64 B",
    "large": "one named sum of 25 MB",
    "many": "100 named sums of 1 KB under way at once",
}

Progress = Callable[[str], None]


class HorovodMissing(Exception):
    """There is no real Horovod to compare with; the message says why."""


@dataclass(frozen=True)
class Launcher:
    """Who runs a Horovod script: the command up to the module's name."""

    name: str
    command: Sequence[str]
    settings: Mapping[str, object]


def run(options: Options, progress: Progress) -> list[Comparison]:
    """Raises NotEqual when a side learns something else, RankFailed when one fails. Without Horovod, says so."""
    launchers = [ours()]
    notes: dict[str, object] = {"ranks": RANKS}
    try:
        launchers.append(real(os.environ.get(PYTHON)))
    except HorovodMissing as error:
        notes["left out"] = f"{REAL}: {error}"
        progress(f"horovod: LEFT OUT: {notes['left out']}")
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        found = [_training(model, launchers, notes, options, Path(scratch), progress) for model in ROWS]
        return found + _operations(launchers, notes, options, Path(scratch), progress)


def ours() -> Launcher:
    command = [sys.executable, "-m", "phalanx", "horovodrun", "-np", str(RANKS), sys.executable, "-m"]
    return Launcher(OURS, command, {})


def real(python: str | None) -> Launcher:
    """The Horovod of another Python. Raises HorovodMissing."""
    if not python:
        raise HorovodMissing(f"set {PYTHON} to a Python that has it")
    ask = "import horovod, horovod.torch, torch; print(horovod.__version__, torch.__version__)"
    try:
        asked = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    except OSError as error:
        raise HorovodMissing(str(error)) from error
    if asked.returncode:
        words = asked.stderr.strip().splitlines() or [f"it ended with {asked.returncode}"]  # a signal says nothing
        raise HorovodMissing(f"{python} cannot import it: {words[-1]}")
    horovod, torch = asked.stdout.split()
    launcher = str(Path(python).parent / "horovodrun")
    command = [python, launcher, "-np", str(RANKS), "--gloo", python, "-m"]
    return Launcher(REAL, command, {"version": horovod, "torch": torch, "operations": "gloo"})


def _training(
    model: str,
    launchers: Sequence[Launcher],
    notes: Mapping[str, object],
    options: Options,
    scratch: Path,
    progress: Progress,
) -> Comparison:
    losses: dict[str, list[float]] = {}
    steps = 5 if options.quick else STEPS

    def side(name: str, average: bool, start: Callable[[Path], None], settings: Mapping[str, object]) -> Side:
        def measure() -> float:
            with tempfile.TemporaryDirectory(dir=scratch) as results:
                orders = Orders(model, ROWS[model], steps, WARMUP, average, results)
                file = Path(results, "orders")
                file.write_text(json.dumps(asdict(orders)))
                start(file)
                ranks = _results(Path(results))
            losses[name] = [sum(of_ranks) / RANKS for of_ranks in zip(*(rank["losses"] for rank in ranks), strict=True)]
            return steps / max(float(rank["seconds"]) for rank in ranks)

        return Side(name, measure, settings)

    def horovod(launcher: Launcher) -> Side:
        def start(orders: Path) -> None:
            launch(launcher, "side_horovod", [str(orders)], scratch)

        return side(launcher.name, True, start, launcher.settings)

    comparison = compare(
        f"horovod {model}",
        "steps/s",
        [
            *map(horovod, launchers),
            side(DDP, True, lambda orders: _twins(orders, scratch), {"broadcast_buffers": False}),
            side(ALONE, False, lambda orders: _twins(orders, scratch), {}),
        ],
        rounds=options.rounds,
        warmup=0,  # a launch has steps of its own that do not count
        notes={**notes, "rows of a rank": ROWS[model], "steps": steps},
        progress=progress,
    )
    apart = refuse_different_losses(losses)
    return replace(comparison, notes={**comparison.notes, "losses differ by": f"{apart:.1e}", **verdict(comparison)})


def _operations(
    launchers: Sequence[Launcher], notes: Mapping[str, object], options: Options, scratch: Path, progress: Progress
) -> list[Comparison]:
    calls = 20 if options.quick else CALLS
    values: dict[str, dict[str, list[float]]] = {kind: {each.name: [] for each in launchers} for kind in OPERATIONS}
    for number in range(options.rounds):
        for launcher in launchers:
            with tempfile.TemporaryDirectory(dir=scratch) as results:
                launch(launcher, "side_horovod_operations", [str(calls), results], scratch)
                ranks = _results(Path(results))
            for kind in OPERATIONS:
                values[kind][launcher.name].append(1e3 * max(rank[kind] for rank in ranks))
            said = ", ".join(f"{kind} {of[launcher.name][-1]:.3f} ms" for kind, of in values.items())
            progress(f"horovod operations: round {number + 1} of {options.rounds}: {launcher.name}: {said}")
    settings = {each.name: each.settings for each in launchers}
    return [Comparison(what, "ms", values[kind], settings, notes) for kind, what in OPERATIONS.items()]


def launch(launcher: Launcher, side: str, arguments: Sequence[str], scratch: Path) -> None:
    """Run `benchmarks.<side>` on all ranks. Raises RankFailed."""
    command = [*launcher.command, f"benchmarks.{side}", *arguments]
    run_processes(side, [command], [os.environ | {"OMP_NUM_THREADS": "1"}], scratch, TIMEOUT_S)


def _twins(orders: Path, scratch: Path) -> None:
    port = free_port()
    run_processes(
        "side_horovod_ddp",
        [[sys.executable, "-m", "benchmarks.side_horovod_ddp", str(orders)]] * RANKS,
        [environment(rank, RANKS, orders.parent / "rendezvous", port) for rank in range(RANKS)],
        scratch,
        TIMEOUT_S,
    )


def _results(directory: Path) -> list[dict[str, Any]]:
    return [json.loads((directory / f"{rank}.json").read_text()) for rank in range(RANKS)]


def refuse_different_losses(losses: Mapping[str, Sequence[float]]) -> float:
    """The largest difference from ours at any step. Raises NotEqual. Those that do not average learn something else."""
    largest = 0.0
    for name in losses.keys() - {OURS, ALONE}:
        apart = [abs(one - other) for one, other in zip(losses[OURS], losses[name], strict=True)]
        if not all(each <= SAME_LOSS for each in apart):  # nor is it where one is no number
            raise NotEqual(f"the losses under {OURS} and under {name} differ by up to {max(apart):.6f}")
        largest = max(largest, *apart)
    return largest


def verdict(comparison: Comparison) -> dict[str, object]:
    """Which part of a step each side averages for, and whether ours is as far ahead as it should be."""
    averaging = [side for side in comparison.values if side != ALONE]
    # Steps/s of those with averages over that of those without is the share that is left for the net.
    shares = {side: 1 - comparison.ratio(side, ALONE) for side in averaging}
    ahead = {side: comparison.ratio(OURS, side) >= TARGET for side in averaging if side != OURS}
    return {
        "averages' part of a step": "; ".join(f"{side} {share:.0%}" for side, share in shares.items()),
        f"target {TARGET:g} x": "; ".join(
            f"{side} {'reached' if done else 'NOT REACHED'}" for side, done in ahead.items()
        ),
    }
