"""Where every sample of an elastic run went, from what each worker wrote of its batches (`side_elastic`).

A batch counts when its position (epoch, samples processed before it) comes before that with which the next group
begins: then it is in the model that training went on with. Otherwise the survivors went back to a commit before it, and
its samples are processed again. Knows nothing of how workers are started or lost.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.harness import NotEqual


class Unaccounted(NotEqual):
    """Samples were lost, or workers do not agree on which were processed."""


@dataclass(frozen=True)
class Begin:
    """A worker begins with a group, at the position that it was given. `group` grows from one to the next."""

    worker: int
    at: float
    group: float
    position: tuple[int, int]
    rank: int
    size: int
    host: str


@dataclass(frozen=True)
class Batch:
    """What a worker took; `stepped_at` and `loss` once the optimizer's step is done. Times: seconds, one clock."""

    worker: int
    group: float
    position: tuple[int, int]
    samples: tuple[int, ...]
    stepped_at: float = math.nan
    loss: float = math.nan


@dataclass
class Logs:
    """All that the workers have written so far: `read` takes what is new."""

    directory: Path
    begins: list[Begin] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    _read: dict[Path, int] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)  # where in `batches` a worker's last is

    def read(self) -> None:
        for path in sorted(self.directory.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, end, _ = file.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(whole + end)
            for line in whole.splitlines():
                self._take(int(path.stem), json.loads(line))

    def _take(self, worker: int, line: Mapping[str, object]) -> None:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in line.items()}
        what, at = values.pop("what"), values.pop("at")
        if what == "began":
            self.begins.append(Begin(worker, at, **values))  # type: ignore[arg-type]
        elif what == "took":
            self._last[worker] = len(self.batches)
            self.batches.append(Batch(worker, **values))  # type: ignore[arg-type]
        else:
            last = self._last[worker]
            self.batches[last] = replace(self.batches[last], stepped_at=at, loss=values["loss"])  # type: ignore[arg-type]

    def members(self, group: float) -> list[Begin]:
        """By rank."""
        return sorted((begin for begin in self.begins if begin.group == group), key=lambda begin: begin.rank)

    @property
    def groups(self) -> list[float]:
        return sorted({begin.group for begin in self.begins})


@dataclass(frozen=True)
class Account:
    """Numbers of samples, of all `epochs`. `undone`: by the group that lost them, those that a restore took back.

    `dealt_twice`: those that the sampler gives out again at an epoch's end, for all ranks to have as many.
    """

    epochs: int
    dataset: int
    processed: int
    undone: Mapping[float, int]
    dealt_twice: int

    @property
    def repeated(self) -> int:
        return sum(self.undone.values()) + self.dealt_twice


def account(logs: Logs, dataset: int) -> Account:
    """Of a run that has ended, of whole epochs. Raises Unaccounted."""
    begins = _positions(logs)
    undone: dict[float, int] = dict.fromkeys(begins, 0)
    kept: list[Batch] = []
    following = dict(zip(begins, [*list(begins.values())[1:], (math.inf, 0)], strict=True))
    for batch in logs.batches:
        if batch.position < following[batch.group]:
            kept.append(batch)
        else:
            undone[batch.group] += len(batch.samples)
    _refuse_missing_ranks(logs, kept)
    by_epoch: dict[int, Counter[int]] = defaultdict(Counter)
    for batch in kept:
        by_epoch[batch.position[0]].update(batch.samples)
    for epoch in range(max(by_epoch) + 1):
        if missing := set(range(dataset)) - set(by_epoch[epoch]):
            raise Unaccounted(
                f"epoch {epoch}: {len(missing)} of {dataset} samples were not processed: {_some(missing)}"
            )
    processed = sum(len(batch.samples) for batch in logs.batches)
    result = Account(len(by_epoch), dataset, processed, undone, _dealt_twice(kept, begins, logs, dataset))
    expected = len(by_epoch) * dataset + result.repeated
    if processed != expected:
        raise Unaccounted(f"{processed} samples were processed, {expected} of the epochs and repeated")
    return result


def _positions(logs: Logs) -> dict[float, tuple[int, int]]:
    """Where each group began, in their order. Raises Unaccounted when its workers disagree, or it goes back too far."""
    result: dict[float, tuple[int, int]] = {}
    for group in logs.groups:
        positions = {begin.position for begin in logs.members(group)}
        if len(positions) > 1:
            raise Unaccounted(f"workers of one group began at different positions: {_some(positions)}")
        result[group] = positions.pop()
    if list(result.values()) != sorted(result.values()):
        raise Unaccounted(f"a group began before the one that it follows: {list(result.values())}")
    return result


def _refuse_missing_ranks(logs: Logs, kept: Sequence[Batch]) -> None:
    """Raises Unaccounted. What is in the model came from all ranks of its group, once."""
    sizes = {begin.group: begin.size for begin in logs.begins}
    taken = Counter((batch.group, batch.position) for batch in kept)
    for (group, position), number in taken.items():
        if number != sizes[group]:
            raise Unaccounted(f"{number} of {sizes[group]} workers took a batch at {position}")


def _dealt_twice(kept: Sequence[Batch], begins: Mapping[float, tuple[int, int]], logs: Logs, dataset: int) -> int:
    """By the sampler's rule: the group that ends an epoch deals out what is left of it in equal shares."""
    sizes = {begin.group: begin.size for begin in logs.begins}
    last: dict[int, float] = {}
    for batch in kept:
        last[batch.position[0]] = max(batch.group, last.get(batch.position[0], 0.0))
    total = 0
    for epoch, group in last.items():
        began_epoch, done = begins[group]
        left = dataset - (done if began_epoch == epoch else 0)
        total += -left % sizes[group]
    return total


def _some(values: Iterable[object]) -> str:
    first = sorted(values, key=str)[:5]
    return ", ".join(map(str, first))
