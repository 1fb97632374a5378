"""Finished operations as rows of the table `collectives`: bytes, times, and bandwidth as nccl-tests counts it.

Algorithm bandwidth is the size of the operation over its time, bus bandwidth what the slowest link must have
carried for it, which can be compared with the hardware and across numbers of ranks
(https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md). The time counted begins when all ranks have
arrived: waiting for a late one is a column of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from phalanx.collectives.transports.transport import Record

ROWS_AT_ONCE = 200  # of one drain, once a second; more than these are added up by kind, dtype and size

# Size of the operation over bytes of one rank's input: what nccl-tests calls the size is the larger side.
_WHOLE = {"allgather", "allgather_ragged", "gather"}
_SHARED = {"allgather", "allgather_ragged", "alltoall", "alltoall_ragged", "reducescatter", "gather", "scatter"}


def bus_factor(kind: str, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth; nccl-tests' PERFORMANCE.md derives each."""
    if ranks < 2:
        return 0.0
    if kind == "allreduce":
        return 2 * (ranks - 1) / ranks
    return (ranks - 1) / ranks if kind in _SHARED else 1.0


def size(kind: str, input_bytes: int, ranks: int) -> int:
    """Bytes of the whole operation, given those of one rank's input."""
    return input_bytes * ranks if kind in _WHOLE else input_bytes


def rows(
    records: Sequence[Record], lost: int, group: str, ranks: int, at_most: int = ROWS_AT_ONCE
) -> list[dict[str, Any]]:
    """A row for each record, or, of more than `at_most`, one for each kind, dtype and power of two of bytes.

    `lost`: operations before them of which nothing is known; the first row says so.
    """
    if len(records) <= at_most:
        found = [_row([record], group, ranks) for record in records]
    else:
        found = [_row(alike, group, ranks) for alike in _by_likeness(records)]
    if lost and found:
        found[0]["lost"] = lost
    return found


def _by_likeness(records: Iterable[Record]) -> Iterable[list[Record]]:
    classes: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in records:
        key = (record.kind, record.op, record.dtype, record.bytes.bit_length())
        classes.setdefault(key, []).append(record)
    return classes.values()


def _row(records: Sequence[Record], group: str, ranks: int) -> dict[str, Any]:
    """Times and bytes are sums over `records`, which are alike; names and shapes are said of one alone."""
    first, last = records[0], records[-1]
    total = sum(record.bytes for record in records)
    ran_s = sum(record.finished_ns - record.started_ns for record in records) / 1e9
    speed = size(first.kind, total, ranks) / ran_s if ran_s > 0 and total else None
    return {
        "group_name": group,
        "sequence": last.sequence,
        "operations": len(records),
        "kind": first.kind,
        "name": first.name if len(records) == 1 else "",
        "op": first.op,
        "dtype": first.dtype,
        "shape": ",".join(map(str, first.shape)) if len(records) == 1 else "",
        "bytes": total,
        "ranks": ranks,
        "submitted_ns": first.submitted_ns,
        "finished_ns": last.finished_ns,
        "queued_s": sum(max(0, record.arrived_ns - record.submitted_ns) for record in records) / 1e9,
        "waited_s": sum(max(0, record.started_ns - record.arrived_ns) for record in records) / 1e9,
        "ran_s": ran_s,
        "algorithm_bandwidth": speed,
        "bus_bandwidth": None if speed is None else speed * bus_factor(first.kind, ranks),
        "lost": 0,
    }
