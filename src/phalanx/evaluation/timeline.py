"""A run as a timeline in Chrome's trace format, which Perfetto and chrome://tracing open.

    a process  = a rank
    its lanes  = steps and their phases | checkpoints and validations | the operations of each group

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU ("Trace Event
Format"). Times are microseconds since the first event of the timeline. Clocks of other hosts are set by the moments
at which operations began, which are one moment on all ranks. Knows nothing of files and terminals.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phalanx.evaluation.errors import NothingHappened
from phalanx.foundation import size_in_words

Row = Mapping[str, Any]
Rows = Callable[[str], Sequence[Row]]
Event = dict[str, Any]

MOST_ROWS = 100_000  # of a table; these take 0.7 GB here, and Perfetto is slow beyond
PHASES = ("data", "forward", "backward", "communication", "optimizer")
_STEPS, _OTHERS = (0, "steps"), (1, "checkpoints and validations")  # lanes: where they stand, and what they are called


@dataclass
class _Slice:
    """Something that took time, in ns of its host's clock; `parts` lie inside it, one after the other."""

    row: Row
    lane: tuple[int, str]
    name: str
    category: str
    start: int
    end: int
    args: dict[str, Any]
    parts: list[_Slice] = field(default_factory=list)


def timeline_of(rows: Rows, job_uid: str, attempt: int) -> dict[str, Any]:
    """The JSON object to write; `otherData` says what was left out. Raises NothingHappened.

    `rows` answers SQL of DuckDB's dialect. The newest MOST_ROWS of a table are shown.
    """
    mine = f"job_uid = '{job_uid}' AND attempt = {int(attempt)}"

    def newest(table: str, condition: str) -> Sequence[Row]:
        return rows(
            f"SELECT * FROM (SELECT * FROM {table} WHERE {mine} AND {condition} "
            f"ORDER BY time_ns DESC LIMIT {MOST_ROWS}) ORDER BY time_ns, seq"
        )

    operations, steps = newest("collectives", "true"), newest("steps", "step_s IS NOT NULL")
    others = [*newest("checkpoints", "seconds IS NOT NULL"), *newest("validations", "seconds IS NOT NULL")]
    slices = [*_operations(operations), *_steps(steps), *_others(others)]
    if not slices:
        raise NothingHappened("the run has no steps and no operations to show", remedy="let it run some steps first")
    corrections = clock_corrections(operations)
    start = min(one.start + corrections.get(one.row["host"], 0) for one in slices)
    lanes = {lane: number for number, lane in enumerate(sorted({one.lane for one in slices}))}
    return {
        "traceEvents": [*_names(slices, lanes), *_events(_untangled(slices), lanes, corrections, start)],
        "displayTimeUnit": "ms",
        "otherData": {
            "job_uid": job_uid,
            "attempt": attempt,
            "start_ns": start,
            "clock_corrections_ns": corrections,
            "cut": MOST_ROWS in (len(operations), len(steps)),
            "forgotten_operations": sum(row["lost"] or 0 for row in operations),
        },
    }


def clock_corrections(operations: Iterable[Row]) -> dict[str, int]:
    """Nanoseconds to add to each host's clock so that operations begin together on all; the first host's is right.

    An operation begins when its last rank has come, which every rank learns at once, or as late as the wire makes it.
    """
    began: dict[tuple[Any, ...], dict[str, int]] = defaultdict(dict)
    hosts: list[str] = []
    for row in operations:
        if row["host"] not in hosts:
            hosts.append(row["host"])
        if row["operations"] == 1:
            key = (row["generation"], row["group_name"], row["sequence"])
            began[key].setdefault(row["host"], _began(row))
    corrections = dict.fromkeys(hosts[:1], 0)
    for host in hosts[1:]:
        apart = [times[hosts[0]] - times[host] for times in began.values() if hosts[0] in times and host in times]
        corrections[host] = round(statistics.median(apart)) if apart else 0
    return corrections


def _began(row: Row) -> int:
    began: int = row["finished_ns"] - round(row["ran_s"] * 1e9)
    return began


def _operations(rows: Sequence[Row]) -> Iterator[_Slice]:
    """From this rank's coming to the end, the wait for others inside; of a flood, from its first to its last.

    Times of those that were added up overlap with others', so that each kind of them has a lane of its own.
    """
    places = {group: 2 + number for number, group in enumerate(dict.fromkeys(row["group_name"] for row in rows))}
    for row in rows:
        place, group = places[row["group_name"]], row["group_name"]
        what = f"{row['kind']} {row['op']}".strip()
        args = {key: row[key] for key in ("sequence", "dtype", "shape", "bytes", "ranks")}
        args |= {key: row[key] for key in ("queued_s", "waited_s", "ran_s", "bus_bandwidth")}
        if row["operations"] > 1:
            each = row["bytes"] // row["operations"]
            lane = (place, f"{group}, added up: {what} {row['dtype']} up to {size_in_words(1 << each.bit_length())}")
            name = f"{row['operations']} x {what}"
            yield _Slice(row, lane, name, "collective", row["submitted_ns"], row["finished_ns"], args)
            continue
        began = _began(row)
        come = began - round(row["waited_s"] * 1e9)
        lane = (place, f"operations: {group}")
        one = _Slice(row, lane, f"{what} {row['name']}".strip(), "collective", come, row["finished_ns"], args)
        if come < began:
            one.parts.append(_Slice(row, lane, "wait for other ranks", "wait", come, began, {}))
        yield one


def _steps(rows: Sequence[Row]) -> Iterator[_Slice]:
    """A step ended when its row was written. Phases of several micro-batches are sums: each is shown in one piece."""
    for row in rows:
        end = row["time_ns"]
        at = end - round(row["step_s"] * 1e9)
        args = {key: row[key] for key in ("loss", "tokens", "tokens_per_second", "gradient_norm", "memory_bytes")}
        step = _Slice(row, _STEPS, f"step {row['step']}", "step", at, end, args)
        for phase in PHASES:
            until = at + round((row[f"{phase}_s"] or 0.0) * 1e9)
            if until > at:
                step.parts.append(_Slice(row, _STEPS, phase, "phase", at, until, {}))
            at = until
        yield step


def _others(rows: Sequence[Row]) -> Iterator[_Slice]:
    for row in rows:
        name = f"checkpoint {row['event']}" if "event" in row else f"validation: {row['split']}"
        args = {key: row[key] for key in ("step", "bytes", "path", "loss", "tokens") if key in row}
        end = row["time_ns"]
        yield _Slice(row, _OTHERS, name, "other", end - round(row["seconds"] * 1e9), end, args)


def _untangled(slices: Iterable[_Slice]) -> Iterator[_Slice]:
    """Slices of a lane must not overlap: one that seems to begin before its neighbour's end begins there.

    A row is written a moment after what it tells of has ended, and a duration is a rounded number.
    """
    ends: dict[tuple[int, tuple[int, str]], int] = {}
    for one in sorted(slices, key=lambda one: (one.start, one.end)):
        key = (one.row["rank"], one.lane)
        one.start = max(one.start, ends.get(key, one.start))
        ends[key] = one.end = max(one.start, one.end)
        at = one.start
        for part in one.parts:
            part.start = min(max(part.start, at), one.end)
            at = part.end = min(max(part.start, part.end), one.end)
        yield one
        yield from one.parts


def _events(
    slices: Iterable[_Slice], lanes: Mapping[tuple[int, str], int], corrections: Mapping[str, int], start: int
) -> Iterator[Event]:
    """Complete events ("X")."""
    for one in slices:
        moved = corrections.get(one.row["host"], 0) - start
        yield {
            "ph": "X",
            "pid": one.row["rank"],
            "tid": lanes[one.lane],
            "name": one.name,
            "cat": one.category,
            "ts": (one.start + moved) / 1e3,
            "dur": (one.end - one.start) / 1e3,
            "args": one.args | {"generation": one.row["generation"]},
        }


def _names(slices: Iterable[_Slice], lanes: Mapping[tuple[int, str], int]) -> Iterator[Event]:
    """Metadata events ("M"): what ranks and lanes are called, and the order in which they are to stand."""
    hosts = {one.row["rank"]: one.row["host"] for one in slices}
    for rank, host in sorted(hosts.items()):
        yield _name("process_name", rank, 0, name=f"rank {rank} ({host})")
        yield _name("process_sort_index", rank, 0, sort_index=rank)
    for rank, lane in sorted({(one.row["rank"], one.lane) for one in slices}):
        yield _name("thread_name", rank, lanes[lane], name=lane[1])
        yield _name("thread_sort_index", rank, lanes[lane], sort_index=lanes[lane])


def _name(what: str, rank: int, lane: int, **args: str | int) -> Event:
    return {"ph": "M", "pid": rank, "tid": lane, "name": what, "ts": 0, "args": args}
