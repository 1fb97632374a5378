"""One side of `bench_metrics`, in a process of its own: reads its orders, prints what it measured as JSON.

    python -m benchmarks.side_metrics '{"side": "needles", ...}'

Scores come from a generator of chunks that is opened anew for each pass: the same chunks whoever opens it. Processor
time is that of the metric alone, without the generator's.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 20
PREVALENCE = 1e-3
CLASSES = 10

Batch = tuple[NDArray[Any], ...]


def scores(size: int, dtype: str, weighted: bool, part: int = 0, parts: int = 1) -> Iterator[Batch]:
    """Labels and scores, and weights where `weighted`; of every `parts`th chunk."""
    for index, start in enumerate(range(0, size, CHUNK)):
        if index % parts == part:
            random = np.random.default_rng([7, index])
            length = min(CHUNK, size - start)
            labels = random.random(length, np.float32) < PREVALENCE
            found = random.standard_normal(length, np.dtype(dtype)) + labels.astype(dtype) * 2
            yield (labels, found, random.random(length)) if weighted else (labels, found)


def guesses(size: int, part: int = 0, parts: int = 1) -> Iterator[Batch]:
    """True and guessed classes."""
    for index, start in enumerate(range(0, size, CHUNK)):
        if index % parts == part:
            random = np.random.default_rng([8, index])
            length = min(CHUNK, size - start)
            truth = random.integers(0, CLASSES, length)
            yield truth, np.where(random.random(length) < 0.8, truth, random.integers(0, CLASSES, length))


class Timer:
    """Processor seconds of what it is asked to do."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return work(*arguments, **options)
        finally:
            self.seconds += time.process_time() - start


def peak() -> int:
    """Bytes: the largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def needles(orders: dict[str, Any], timer: Timer) -> dict[str, Any]:
    """A rank's first pass; its state goes into a file."""
    from phalanx.metrics import Needles

    return _passed(orders, timer, Needles(weighted=orders["weighted"]))


def gaps(orders: dict[str, Any], timer: Timer) -> dict[str, Any]:
    """A rank's second pass, between the needles of all."""
    from phalanx.metrics import Needles, State

    first = timer(State.from_bytes, Path(orders["needles"]).read_bytes())
    assert isinstance(first, Needles)
    return _passed(orders, timer, timer(first.gaps))


def histogram(orders: dict[str, Any], timer: Timer) -> dict[str, Any]:
    """A rank's only pass, for a certified interval."""
    from phalanx.metrics import ScoreHistogram

    return _passed(orders, timer, ScoreHistogram())


def _passed(orders: dict[str, Any], timer: Timer, state: Any) -> dict[str, Any]:
    before = None
    for batch in scores(orders["size"], orders["dtype"], orders["weighted"], orders["part"], orders["parts"]):
        before = before or peak()  # with one chunk, and all that is imported
        timer(state.update, *batch)
    data = timer(state.to_bytes)
    Path(orders["state"]).write_bytes(data)
    return {"beyond one chunk": peak() - (before or peak()), "state": len(data)}


def confusion(orders: dict[str, Any], timer: Timer) -> dict[str, Any]:
    """A rank's counts of guesses; its state goes into a file."""
    from phalanx.metrics import ConfusionMatrix

    state = ConfusionMatrix()
    for batch in guesses(orders["size"], orders["part"], orders["parts"]):
        timer(state.update, *batch)
    Path(orders["state"]).write_bytes(timer(state.to_bytes))
    return {}


def scikit_learn(orders: dict[str, Any], timer: Timer) -> dict[str, Any]:
    """Of one array, as it must be."""
    from sklearn import metrics

    if orders["what"] == "confusion":
        truth, guessed = map(np.concatenate, zip(*guesses(orders["size"]), strict=True))
        return {"matrix": timer(metrics.confusion_matrix, truth, guessed).tolist()}
    whole = tuple(map(np.concatenate, zip(*scores(orders["size"], orders["dtype"], orders["weighted"]), strict=True)))
    weights = whole[2] if orders["weighted"] else None
    area = timer(metrics.roc_auc_score, whole[0], whole[1], sample_weight=weights)
    alone = timer.seconds
    precision = timer(metrics.average_precision_score, whole[0], whole[1], sample_weight=weights)
    return {"roc_auc": float(area), "average_precision": float(precision), "roc_auc alone": alone}


def torchmetrics(orders: dict[str, Any], timer: Timer) -> dict[str, Any]:
    """By batches of one process, exactly (`thresholds=None`), which keeps all scores."""
    import torch
    from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, MulticlassConfusionMatrix

    torch.set_num_threads(1)
    if orders["what"] == "confusion":
        matrix = MulticlassConfusionMatrix(CLASSES)
        for truth, guessed in guesses(orders["size"]):
            timer(matrix.update, torch.from_numpy(guessed), torch.from_numpy(truth))
        return {"matrix": timer(matrix.compute).tolist()}
    area, precision = BinaryAUROC(thresholds=None), BinaryAveragePrecision(thresholds=None)
    for labels, found in scores(orders["size"], orders["dtype"], weighted=False):
        for metric in (area, precision):
            timer(metric.update, torch.from_numpy(found), torch.from_numpy(labels).int())
    return {"roc_auc": float(timer(area.compute)), "average_precision": float(timer(precision.compute))}


SIDES = {each.__name__: each for each in (needles, gaps, histogram, confusion, scikit_learn, torchmetrics)}


def main() -> None:
    orders = json.loads(sys.argv[1])
    timer = Timer()
    result = SIDES[orders["side"]](orders, timer)
    print(json.dumps({"seconds": timer.seconds, "peak": peak(), **result}))


if __name__ == "__main__":
    main()
