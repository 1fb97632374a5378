"""What every benchmark shares: interleaved rounds, medians, ratios to a peer in the same run, a table and JSON.

A machine is slow for a minute now and then, so sides take turns (A B A B) and a ratio is taken
within each round; the median over rounds is reported, with the smallest and largest, never the best
alone. Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

SCHEMA = 1
LIBRARIES = ("phalanx-ml", "torch", "numpy", "tokenizers", "transformers", "accelerate", "duckdb", "pyarrow")


class MissingData(Exception):
    """A benchmark needs data that is not here; its message says which and where it was looked for."""


class NotEqual(Exception):
    """Two sides that must compute the same do not, so their speeds cannot be compared."""


@dataclass(frozen=True)
class Options:
    """What a benchmark is told: how many rounds, whether to be quick, where outside data lies, where pictures go."""

    rounds: int = 5
    quick: bool = False
    data: Path | None = None
    out: Path | None = None

    def outside(self, name: str) -> Path:
        """The file `name` under `PHALANX_DATA`. Raises MissingData."""
        if self.data is None:
            raise MissingData(f"needs {name}: set PHALANX_DATA to the directory that holds it")
        path = self.data / name
        if not path.exists():
            raise MissingData(f"needs {name}, which is not in {self.data}")
        return path


@dataclass(frozen=True)
class Side:
    """One of those compared. `measure` does the work once and returns its number, in the comparison's unit."""

    name: str
    measure: Callable[[], float]
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The numbers of one run: `values[side][round]`. The first side is ours, the second the peer."""

    name: str
    unit: str
    values: Mapping[str, Sequence[float]]
    settings: Mapping[str, Mapping[str, object]]
    notes: Mapping[str, object] = field(default_factory=dict)

    def median(self, side: str) -> float:
        return statistics.median(self.values[side])

    def ratios(self, side: str, peer: str) -> list[float]:
        """`side` over `peer`, one for each round."""
        return [ours / theirs for ours, theirs in zip(self.values[side], self.values[peer], strict=True)]

    def ratio(self, side: str, peer: str) -> float:
        """The median over rounds of the ratio within a round."""
        return statistics.median(self.ratios(side, peer))

    def as_json(self) -> dict[str, Any]:
        ours, *others = self.values
        return {
            "name": self.name,
            "unit": self.unit,
            "sides": {
                side: {"median": self.median(side), "values": list(values), "settings": dict(self.settings[side])}
                for side, values in self.values.items()
            },
            "ratios": {
                f"{ours} / {peer}": {"median": self.ratio(ours, peer), "values": self.ratios(ours, peer)}
                for peer in others
            },
            "notes": dict(self.notes),
        }


def compare(
    name: str,
    unit: str,
    sides: Sequence[Side],
    *,
    rounds: int,
    warmup: int = 1,
    notes: Mapping[str, object] | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measure `sides` in turn, `warmup` rounds that do not count and `rounds` that do.

    Raises ValueError for no round, a name used twice, or a number that is not positive (no ratio then).
    """
    if rounds < 1 or len({side.name for side in sides}) != len(sides):
        raise ValueError("a comparison needs at least one round, and sides of different names")
    values: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(-warmup, rounds):
        for side in sides:
            value = side.measure()
            if not value > 0:
                raise ValueError(f"{side.name} measured {value}, which is no {unit}")
            label = "warm-up" if number < 0 else f"round {number + 1} of {rounds}"
            progress(f"{name}: {label}: {side.name} {value:,.6g} {unit}")
            if number >= 0:
                values[side.name].append(value)
    return Comparison(name, unit, values, {side.name: dict(side.settings) for side in sides}, dict(notes or {}))


@dataclass
class Elapsed:
    """Seconds: of the wall, and of the processors for this process and the children it has waited for."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Elapsed]:
    """Times its block. On a machine shared with others, CPU seconds say more than those of the wall."""
    elapsed = Elapsed()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    try:
        yield elapsed
    finally:
        elapsed.wall, elapsed.cpu = time.perf_counter() - wall, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def table(comparisons: Sequence[Comparison]) -> str:
    """For a person: a line for each side, with the ratio of the first to it."""
    rows = [("benchmark", "side", "median", "smallest to largest", "ratio to it")]
    for comparison in comparisons:
        ours, *_ = comparison.values
        for side, values in comparison.values.items():
            ratio = ""
            if side != ours:
                each = comparison.ratios(ours, side)
                ratio = f"{comparison.ratio(ours, side):.2f} x  ({min(each):.2f} to {max(each):.2f})"
            rows.append(
                (
                    comparison.name if side == ours else "",
                    side,
                    f"{comparison.median(side):,.5g} {comparison.unit}",
                    f"{min(values):,.5g} to {max(values):,.5g}",
                    ratio,
                )
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    for comparison in comparisons:
        for side, settings in comparison.settings.items():
            if settings:
                lines.append(f"{comparison.name}, {side}: " + ", ".join(f"{key} {settings[key]}" for key in settings))
        if comparison.notes:
            lines.append(
                f"{comparison.name}: " + ", ".join(f"{key} {value}" for key, value in comparison.notes.items())
            )
    return "\n".join(lines)


def machine() -> dict[str, object]:
    """What a number depends on: processor, cores, kernel, Python, libraries."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        model = next(names, "")
    versions: dict[str, str] = {}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def save(comparisons: Sequence[Comparison], directory: Path, command: str) -> Path:
    """Write every measurement, the machine and the command that made them; returns the file."""
    now = datetime.now(UTC)
    record = {
        "schema": SCHEMA,
        "time": now.isoformat(timespec="seconds"),
        "command": command,
        "machine": machine(),
        "comparisons": [comparison.as_json() for comparison in comparisons],
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{now:%Y%m%dT%H%M%S%f}.json"
    path.write_text(json.dumps(record, indent=2, default=str) + "\n")
    return path
