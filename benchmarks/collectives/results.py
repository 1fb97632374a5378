"""From launches of `bench_collectives` to comparisons: which number of a launch counts, and what is noted beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.collectives.peers import Order, Sample, Task
from benchmarks.collectives.report import OURS, name_of
from benchmarks.harness import Comparison


@dataclass
class Results:
    """Every launch of every side, and who was left out with the reason. A side that failed once counts no more."""

    launches: dict[str, list[list[Sample]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def fail(self, name: str, reason: str) -> None:
        self.launches.pop(name, None)
        self.left_out[name] = reason


def statistic_of(ranks: int, kind: str, cores: int) -> str:
    """Ranks that share a core wait for it now and then, for milliseconds: the median of short calls would hide that."""
    return "mean" if kind == "busy" or ranks > cores else "median"


def compared(results: Results, task: Task, kind: str, others: float) -> list[Comparison]:
    """By order; the first side is ours when it took part. `others`: cores that other programs used before."""
    statistic = statistic_of(task.ranks, kind, len(task.cores))
    found: list[Comparison] = []
    for order in task.orders:
        best: dict[str, list[Sample]] = {}
        for name, launches in results.launches.items():
            if all(_of(order, samples) for samples in launches):
                best[name] = [min(_of(order, samples), key=lambda one: _time(one, statistic)) for samples in launches]
        if not best:
            continue
        sides = sorted(best, key=lambda name: name != OURS)
        other = "mean" if statistic == "median" else "median"
        notes: dict[str, object] = {
            "ranks": task.ranks,
            "load": kind,
            "dtype": order.dtype,
            "bytes": order.bytes,
            "statistic": statistic,
            f"by the {other}": {side: [_time(one, other) for one in best[side]] for side in sides},
            "cores that others used before": round(others, 2),
            "left out": list(results.left_out.values()),
        }
        name = f"allreduce of {name_of(order.bytes)} {order.dtype}, {task.ranks} ranks, {kind}"
        values = {side: [_time(one, statistic) for one in best[side]] for side in sides}
        found.append(Comparison(name, "us", values, {side: _settings(best[side]) for side in sides}, notes))
    return found


def _of(order: Order, samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if (sample.bytes, sample.dtype) == order]


def _time(sample: Sample, statistic: str) -> float:
    return sample.mean_us if statistic == "mean" else sample.median_us


def _settings(samples: Sequence[Sample]) -> Mapping[str, object]:
    return {"variants": [sample.variant for sample in samples], "counts": [sample.count for sample in samples]}
