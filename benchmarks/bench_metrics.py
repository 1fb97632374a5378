"""Exact ROC-AUC and average precision of a few needles, and confusion matrices, beside scikit-learn and torchmetrics.

Processor seconds of 10^7 and 10^8 scores, one needle in a thousand. Ours are two ranks that each open a generator of
their chunks twice and never hold more than one; the states go from process to process as bytes. scikit-learn is given
one array, torchmetrics the batches. The answers must be the same to 1e-12 (torchmetrics: to 1e-5, as it computes in
float32), else nothing is measured.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, NotEqual, Options, Side, compare
from benchmarks.ranks import RankFailed
from benchmarks.side_metrics import CHUNK, Timer
from phalanx.metrics import ConfusionMatrix, Gaps, Needles, ScoreHistogram, State

RANKS = 2
SIZE, LARGE = 10**7, 10**8
SAME, NEARLY = 1e-12, 1e-5
OURS, PEER, TORCH, ONE_PASS = "phalanx", "scikit-learn", "torchmetrics", "phalanx, one pass"
TARGETS = {"unweighted": 20.0, "weighted": 8.0, "confusion": 10.0}

Progress = Callable[[str], None]


def run(options: Options, progress: Progress) -> list[Comparison]:
    """Raises NotEqual when two sides answer differently, RankFailed when one fails."""
    if not has_torchmetrics():
        progress(f"metrics: LEFT OUT: {TORCH}: it is not installed; `make bench` does that")
    sizes = {10**5: options.rounds} if options.quick else {SIZE: options.rounds, LARGE: min(options.rounds, 2)}
    found = []
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        for size, rounds in sizes.items():
            found += [
                _ranking(size, dtype, weighted, rounds, Path(scratch), progress)
                for weighted in (False, True)
                for dtype in ("float32", "float64")
            ]
        found.append(_confusion(min(sizes), options.rounds, Path(scratch), progress))
    return found


def _ranking(size: int, dtype: str, weighted: bool, rounds: int, scratch: Path, progress: Progress) -> Comparison:
    orders = {"what": "ranking", "size": size, "dtype": dtype, "weighted": weighted}
    answers: dict[str, Mapping[str, Any]] = {}
    facts: dict[str, float] = {"state of a rank, MB": 0.0, "beyond one chunk, MB": 0.0}

    def remember(results: list[dict[str, Any]]) -> float:
        facts["state of a rank, MB"] = max(facts["state of a rank, MB"], *(each["state"] / 1e6 for each in results))
        beyond = max(each["beyond one chunk"] / 1e6 for each in results)
        facts["beyond one chunk, MB"] = max(facts["beyond one chunk, MB"], beyond)
        return sum(float(each["seconds"]) for each in results)

    def both_passes() -> float:
        timer = Timer()
        seconds = remember(_ranks("needles", orders, scratch))
        merged = timer(_merged, scratch)
        assert isinstance(merged, Needles)
        (scratch / "needles").write_bytes(timer(merged.to_bytes))
        seconds += remember(_ranks("gaps", orders | {"needles": str(scratch / "needles")}, scratch))
        merged = timer(_merged, scratch)
        assert isinstance(merged, Gaps)
        curve = timer(merged.compute)
        answers[OURS] = timer(lambda: {"roc_auc": curve.roc_auc, "average_precision": curve.average_precision})
        return seconds + timer.seconds

    def one_pass() -> float:
        timer = Timer()
        seconds = sum(float(each["seconds"]) for each in _ranks("histogram", orders, scratch))
        merged = timer(_merged, scratch)
        assert isinstance(merged, ScoreHistogram)
        certified = timer(merged.compute)
        for what in ("roc_auc", "average_precision"):
            interval = getattr(certified, what)
            facts[f"width of {what} in one pass"] = interval.high - interval.low
            if not interval.low <= answers[OURS][what] <= interval.high:
                raise NotEqual(f"{what} {answers[OURS][what]} lies outside the certified interval {interval}")
        return seconds + timer.seconds

    def peer(side: str, name: str) -> Callable[[], float]:
        def measure() -> float:
            answers[name] = _child(orders | {"side": side})
            if "roc_auc alone" in answers[name]:
                facts["scikit-learn's ROC-AUC alone, s"] = answers[name]["roc_auc alone"]
            facts[f"{name}'s peak, MB"] = answers[name]["peak"] / 1e6
            return float(answers[name]["seconds"])

        return measure

    sides = [Side(OURS, both_passes), Side(PEER, peer("scikit_learn", PEER))]
    if not weighted:
        sides.append(Side(ONE_PASS, one_pass))
        if size < LARGE and has_torchmetrics():
            sides.append(Side(TORCH, peer("torchmetrics", TORCH)))
    kind = "weighted" if weighted else "unweighted"
    comparison = compare(
        f"ROC-AUC and AP of 10^{len(str(size)) - 1} {dtype} scores, {kind}",
        "CPU s",
        sides,
        rounds=rounds,
        warmup=0,
        progress=progress,
    )
    _refuse_different(answers)
    notes = {"ranks": RANKS, "scores a chunk": CHUNK, **{name: f"{value:.4g}" for name, value in facts.items()}}
    return replace(comparison, notes={**notes, **_verdict(comparison, TARGETS[kind])})


def _confusion(size: int, rounds: int, scratch: Path, progress: Progress) -> Comparison:
    orders = {"what": "confusion", "size": size}
    answers: dict[str, Any] = {}

    def ours() -> float:
        timer = Timer()
        seconds = sum(float(each["seconds"]) for each in _ranks("confusion", orders, scratch))
        merged = timer(_merged, scratch)
        assert isinstance(merged, ConfusionMatrix)
        answers[OURS] = timer(merged.compute).counts.tolist()
        return seconds + timer.seconds

    def peer(side: str, name: str) -> Callable[[], float]:
        def measure() -> float:
            result = _child(orders | {"side": side})
            answers[name] = result["matrix"]
            return float(result["seconds"])

        return measure

    sides = [Side(OURS, ours), Side(PEER, peer("scikit_learn", PEER))]
    if has_torchmetrics():
        sides.append(Side(TORCH, peer("torchmetrics", TORCH)))
    comparison = compare(
        f"confusion matrix of 10^{len(str(size)) - 1} guesses among 10 classes",
        "CPU s",
        sides,
        rounds=rounds,
        warmup=0,
        notes={"ranks": RANKS},
        progress=progress,
    )
    if any(answers[name] != answers[OURS] for name in answers):
        raise NotEqual("the confusion matrices differ")
    return replace(comparison, notes={**comparison.notes, **_verdict(comparison, TARGETS["confusion"])})


def has_torchmetrics() -> bool:
    return importlib.util.find_spec("torchmetrics") is not None


def _verdict(comparison: Comparison, target: float) -> dict[str, object]:
    """How many times less processor time than scikit-learn, and whether that is enough."""
    times = 1 / comparison.ratio(OURS, PEER)
    return {
        f"target {target:g} x less than {PEER}": f"{times:.1f} x, {'reached' if times >= target else 'NOT REACHED'}"
    }


def _refuse_different(answers: Mapping[str, Mapping[str, Any]]) -> None:
    for name, answer in answers.items():
        for what in ("roc_auc", "average_precision"):
            apart = abs(answer[what] - answers[OURS][what])
            if not apart <= (NEARLY if name == TORCH else SAME):
                raise NotEqual(f"{what} of {OURS} and of {name} are {apart:.2e} apart")


def _ranks(side: str, orders: Mapping[str, Any], scratch: Path) -> list[dict[str, Any]]:
    """All ranks at once, each with its part; the state of rank i is then in `state-i`."""
    children = [
        _start({**orders, "side": side, "part": rank, "parts": RANKS, "state": str(scratch / f"state-{rank}")})
        for rank in range(RANKS)
    ]
    return [_answer(child) for child in children]


def _merged(scratch: Path) -> State:
    first, *others = (State.from_bytes((scratch / f"state-{rank}").read_bytes()) for rank in range(RANKS))
    for other in others:
        first.merge(other)
    return first


def _child(orders: Mapping[str, Any]) -> dict[str, Any]:
    return _answer(_start(orders))


def _start(orders: Mapping[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.side_metrics", json.dumps(orders)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = child.communicate()
    if child.returncode:
        raise RankFailed(f"{child.args} ended with {child.returncode}")
    found: dict[str, Any] = json.loads(output)
    return found
