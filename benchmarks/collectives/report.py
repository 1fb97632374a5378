"""The tables of `bench_collectives`: microseconds, and what was to be reached with whether it was. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.harness import Comparison

OURS = "phalanx"
ORDER = ("copy", "gloo", "openmpi", "mpich", "deepspeed", OURS)
KIB, MIB = 1 << 10, 1 << 20
SIZES = (8, 4 * KIB, 64 * KIB, 256 * KIB, 4 * MIB, 64 * MIB, 440_000_000)  # the last: the gradients of BERT-Base
NAMES = dict(zip(SIZES, ("8 B", "4 KiB", "64 KiB", "256 KiB", "4 MiB", "64 MiB", "440 MB"), strict=True))


@dataclass(frozen=True)
class Target:
    """`peer` takes at least `factor` times as long as we do, with `ranks` and a load, from one size up to another."""

    peer: str
    factor: float
    smallest: int
    largest: int
    ranks: Sequence[int]
    loads: Sequence[str]

    def asks(self, comparison: Comparison) -> bool:
        notes = comparison.notes
        size = notes["bytes"]
        assert isinstance(size, int)
        return (
            notes["ranks"] in self.ranks
            and notes["load"] in self.loads
            and self.smallest <= size <= self.largest
            and not (self.peer in ("openmpi", "mpich") and notes["dtype"] != "float32")
        )


TARGETS = (
    Target("gloo", 15, 0, 256 * KIB, [2], ["idle"]),
    Target("gloo", 8, 4 * MIB, 4 * MIB, [2], ["idle"]),
    Target("gloo", 5, 64 * MIB, SIZES[-1], [2], ["idle"]),
    Target("deepspeed", 1.3, 256 * KIB, SIZES[-1], [2], ["idle"]),
    Target("openmpi", 1, 256 * KIB, SIZES[-1], [2], ["idle"]),
    Target("mpich", 1, 256 * KIB, SIZES[-1], [2], ["idle"]),
    Target("copy", 0.8, 64 * MIB, SIZES[-1], [2], ["idle"]),
    Target("gloo", 1, 0, SIZES[-1], [2], ["busy"]),
    Target("gloo", 1, 0, SIZES[-1], [4], ["idle", "busy"]),
    Target("deepspeed", 10, 4 * KIB, 4 * KIB, [4], ["idle"]),
)


def name_of(size: int) -> str:
    return NAMES.get(size, f"{size:,} B")


def report(comparisons: Sequence[Comparison]) -> str:
    """The tables of every setting, and who did not take part. Where ranks share cores, times by both statistics."""
    settings: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        notes = comparison.notes
        settings.setdefault(f"{notes['ranks']} ranks, {notes['load']}, {notes['dtype']}", []).append(comparison)
    parts: list[str] = []
    for title, group in settings.items():
        parts.append(times(title, group))
        if group[0].notes["statistic"] == "mean":
            parts.append(times(title, [by_the_other(comparison) for comparison in group]))
        parts.append(reached(group))
    reasons = {text: None for comparison in comparisons for text in left_out(comparison)}
    return "\n\n".join([*parts, *(f"LEFT OUT: {text}" for text in reasons)])


def by_the_other(comparison: Comparison) -> Comparison:
    """The same launches, by the median instead of the mean, or the mean instead of the median."""
    other = "mean" if comparison.notes["statistic"] == "median" else "median"
    values = comparison.notes[f"by the {other}"]
    assert isinstance(values, dict)
    return replace(comparison, values=values, notes={**comparison.notes, "statistic": other})


def times(title: str, group: Sequence[Comparison]) -> str:
    """A line for each size, a column for each that took part."""
    sides = [side for side in ORDER if any(side in comparison.values for comparison in group)]
    launches = max(len(values) for values in group[0].values.values())
    statistic = group[0].notes["statistic"]
    head = f"{title}: microseconds, median of {launches} launch(es), each the slowest rank's {statistic}"
    rows = [["bytes", *sides]]
    rows += [[_size(comparison), *(_number(comparison, side) for side in sides)] for comparison in group]
    return "\n".join([head, *aligned(rows)])


def reached(group: Sequence[Comparison]) -> str:
    """A line for each target and size that this setting has."""
    other = "mean" if group[0].notes["statistic"] == "median" else "median"
    rows = [["their time / ours", "bytes", "at least", "median (smallest to largest)", f"by the {other}", ""]]
    rows += [list(_verdict(target, comparison)) for target, comparison in _asked(group)]
    return "\n".join(aligned(rows)) if len(rows) > 1 else "(no target for this setting)"


def _asked(group: Sequence[Comparison]) -> Iterator[tuple[Target, Comparison]]:
    for target in TARGETS:
        for comparison in group:
            if target.asks(comparison):
                yield target, comparison


def _verdict(target: Target, comparison: Comparison) -> tuple[str, ...]:
    start = (target.peer, _size(comparison), f"{target.factor:g}")
    missing = [side for side in (target.peer, OURS) if side not in comparison.values]
    if missing:
        return (*start, "-", "-", f"not measured: no {' and no '.join(missing)}")
    ratios = comparison.ratios(target.peer, OURS)
    middle = comparison.ratio(target.peer, OURS)
    shown = f"{middle:.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
    other = f"{by_the_other(comparison).ratio(target.peer, OURS):.2f}"
    return (*start, shown, other, "pass" if middle >= target.factor else "FAIL")


def _size(comparison: Comparison) -> str:
    size = comparison.notes["bytes"]
    assert isinstance(size, int)
    return name_of(size)


def _number(comparison: Comparison, side: str) -> str:
    if side not in comparison.values:
        return "-"
    value = comparison.median(side)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def left_out(comparison: Comparison) -> list[str]:
    """Why sides are missing from it."""
    reasons = comparison.notes["left out"]
    return list(reasons) if isinstance(reasons, list) else []


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right, a rule under the first row."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
