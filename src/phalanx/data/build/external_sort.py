"""Sorting of more records than memory holds: rows of uint64 numbers, in runs on disk that are merged.

A record is a row of `columns` numbers; rows are compared number by number. Files are raw little-endian rows. Merging
reads a bounded block of each run and needs Python only once a block. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phalanx.foundation import writing

Rows = NDArray[np.uint64]

FAN_IN = 64
_ROW = np.dtype("<u8")
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def sorted_rows(rows: Rows) -> Rows:
    """uint64 [n, columns] in ascending order. Nearly always the first column decides, so only ties look further."""
    rows = rows[np.argsort(rows[:, 0])]
    same = rows[1:, 0] == rows[:-1, 0]
    if same.any():
        tied = np.zeros(len(rows), bool)
        tied[1:] = same
        tied[:-1] |= same
        among = rows[tied]
        rows[tied] = among[np.lexsort(among.T[::-1])]
    return rows


def distinct_rows(rows: Rows) -> Rows:
    """Of sorted rows, each once."""
    if not len(rows):
        return rows
    first: Rows = rows[np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])]
    return first


class RunWriter:
    """Takes rows in any order and leaves them as sorted runs, `<stem>.0`, `<stem>.1` ..., of about `memory` bytes each.

    `distinct`: equal rows of a run are written once. Raises StorageError (DiskFull) from `add` and `close`.
    """

    def __init__(self, stem: Path, columns: int, memory: int, *, distinct: bool = False) -> None:
        self._stem, self._columns, self._distinct = stem, columns, distinct
        self._most = max(memory // (8 * columns), 1)
        self._held: list[Rows] = []
        self._count = 0
        self.runs: list[Path] = []

    def add(self, rows: Rows) -> None:
        self._held.append(rows)
        self._count += len(rows)
        if self._count >= self._most:
            self._write()

    def close(self) -> list[Path]:
        """The runs, all on disk."""
        if self._count:
            self._write()
        return self.runs

    def _write(self) -> None:
        rows = sorted_rows(np.concatenate(self._held))
        self._held, self._count = [], 0
        path = self._stem.with_name(f"{self._stem.name}.{len(self.runs)}")
        with writing(path), path.open("wb") as file:
            file.write(np.ascontiguousarray(distinct_rows(rows) if self._distinct else rows, _ROW).data)
        self.runs.append(path)


def merged(runs: Sequence[Path], columns: int, memory: int, scratch: Path, *, distinct: bool = False) -> Iterator[Rows]:
    """Blocks of rows, uint64 [n, columns], that are all rows of all runs in ascending order.

    More than FAN_IN runs are first merged to fewer, in files below the directory `scratch`, which are deleted. With
    `distinct` equal rows come once. Holds about four times `memory` bytes at most.
    """
    runs = list(runs)
    made: list[Path] = []
    while len(runs) > FAN_IN:
        fewer: list[Path] = []
        for first in range(0, len(runs), FAN_IN):
            path = scratch / f"merge-{len(made)}"
            write_rows(path, _merge(runs[first : first + FAN_IN], columns, memory, distinct=distinct))
            made.append(path)
            fewer.append(path)
        for path in set(runs).intersection(made):
            path.unlink()
        runs = fewer
    yield from _merge(runs, columns, memory, distinct=distinct)
    for path in runs:
        if path in made:
            path.unlink()


def write_rows(path: Path, blocks: Iterator[Rows]) -> int:
    """Write blocks one after the other; returns how many rows there were."""
    count = 0
    with writing(path), path.open("wb") as file:
        for block in blocks:
            file.write(np.ascontiguousarray(block, _ROW).data)
            count += len(block)
    return count


def open_rows(path: Path, columns: int) -> NDArray[Any]:
    """uint64 [n, columns], mapped, read-only."""
    if not path.stat().st_size:
        return np.empty((0, columns), _ROW)
    return np.memmap(path, _ROW, "r").reshape(-1, columns)


class _Run:
    """One run while it is merged: a block of it, and how to get the next."""

    def __init__(self, path: Path, columns: int, rows: int) -> None:
        self._path, self._columns, self._rows = path, columns, rows
        self._at, self._size = 0, path.stat().st_size
        self.block = np.empty((0, columns), np.uint64)
        self.fill()

    @property
    def at_end(self) -> bool:
        """Whether the block in memory is the last."""
        return self._at >= self._size

    def fill(self) -> None:
        if len(self.block) or self.at_end:
            return
        with self._path.open("rb") as file:  # not kept open: there may be more runs than a process may have files
            file.seek(self._at)
            data = file.read(self._rows * self._columns * 8)
        self._at += len(data)
        self.block = np.frombuffer(data, _ROW).reshape(-1, self._columns)


def _merge(paths: Sequence[Path], columns: int, memory: int, *, distinct: bool) -> Iterator[Rows]:
    if not paths:
        return
    runs = [_Run(path, columns, max(memory // (len(paths) * columns * 8), 16)) for path in paths]
    last: Rows | None = None
    while runs := [run for run in runs if len(run.block)]:
        # What is still on disk is not before the end of its run's block: up to the least of these all rows are here.
        ends = [tuple(run.block[-1].tolist()) for run in runs if not run.at_end]
        taken = []
        for run in runs:
            count = _count_until(run.block, min(ends)) if ends else len(run.block)
            taken.append(run.block[:count])
            run.block = run.block[count:]
            run.fill()
        rows = sorted_rows(np.concatenate(taken))
        if distinct:
            rows = distinct_rows(rows)
            if last is not None and (rows[0] == last).all():
                rows = rows[1:]
        if len(rows):
            last = rows[-1]
            yield rows


def _count_until(block: Rows, row: tuple[int, ...]) -> int:
    """How many of the sorted rows are not behind `row`."""
    low, high = 0, len(block)
    for column, value in enumerate(row):
        numbers = block[low:high, column]
        low, high = (low + int(np.searchsorted(numbers, np.uint64(value), side=side)) for side in _SIDES)
    return high
