"""The emitter: one `os.write` per row to a bounded file of the process's own.

A row that was written survives the process's `kill -9` and needs no collector. What does not fit
(a full disk, a spool at its bound) is dropped and counted, never waited for: training does not stop
for its diary. A dropped row uses up its sequence number, so that readers see the gap.

The process holds a shared `flock` on the file that it writes; the kernel drops it when the process
ends, however it ends and in whatever pid namespace. Whoever gets the exclusive lock of a file that has
rows therefore knows that no more will come.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from phalanx.events.spool import encode, file_name
from phalanx.events.tables import TABLES

MAX_SPOOL_BYTES = 64 << 20
FILE_BYTES = 4 << 20

log = logging.getLogger(__name__)
_PYTHON: dict[str, type | tuple[type, ...]] = {"int64": int, "float64": (float, int), "string": str, "bool": bool}
_TYPES = {table.name: {column.name: _PYTHON[column.type] for column in table.columns} for table in TABLES.values()}


@dataclass(frozen=True)
class Context:
    """What every row of a process says of it."""

    host: str
    namespace: str
    job_uid: str
    attempt: int
    generation: int = 0
    rank: int = -1
    program: str = ""


class Sink(Protocol):
    """Where rows go."""

    def emit(self, table: str, row: dict[str, Any], **context: int) -> None: ...
    def close(self) -> None: ...


class NullEmitter:
    """Takes rows and forgets them: for measuring what events cost."""

    def emit(self, table: str, row: dict[str, Any], **context: int) -> None:
        return None

    def close(self) -> None:
        return None


class Emitter:
    """Appends rows to `spool_dir`; safe to share between the threads of a process.

    `max_bytes` bounds what lies unread in the spool for this emitter; `file_bytes` is the size at which
    a new file is begun, so that the collector can delete the old one.
    """

    def __init__(
        self, spool_dir: Path, context: Context, *, max_bytes: int = MAX_SPOOL_BYTES, file_bytes: int = FILE_BYTES
    ) -> None:
        self.source = f"{time.time_ns()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.dropped = 0
        self._directory = spool_dir
        self._common: dict[str, Any] = {
            "source": self.source,
            "host": context.host,
            "namespace": context.namespace,
            "job_uid": context.job_uid,
            "attempt": context.attempt,
            "generation": context.generation,
            "rank": context.rank,
        }
        self._program = context.program
        self._max_files = max(1, max_bytes // file_bytes)
        self._file_bytes = file_bytes
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._number = 0
        self._written = 0
        self._torn = False
        self._closed = False
        self._seq = 0
        with contextlib.suppress(OSError):  # then every row is dropped and counted, as on a full disk
            spool_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.emit("sources", {"event": "opened", "program": context.program, "pid": os.getpid(), "dropped": 0})

    def emit(self, table: str, row: dict[str, Any], **context: int) -> None:
        """Write one row of a declared table; `context` overrides `generation` or `rank` for this row.

        Never blocks and never raises for the disk's sake. Raises ValueError for an unknown table, column or type:
        that is a mistake in the program.
        """
        types = _TYPES.get(table)
        if types is None:
            raise ValueError(f"no table {table!r} is declared in events.tables")
        for name, value in row.items():
            expected = types.get(name)
            if expected is None:
                raise ValueError(f"table {table} has no column {name!r}")
            if value is not None and not isinstance(value, expected):
                raise ValueError(f"{table}.{name} is {type(value).__name__}")
        with self._lock:
            self._append(table, row, context)

    def close(self) -> None:
        """Say goodbye, so that readers know which sequence number was the last. Rows after it are dropped."""
        with self._lock:
            if self._closed:
                return
            row = {"event": "closed", "program": self._program, "pid": os.getpid(), "dropped": self.dropped}
            self._append("sources", row, {})
            self._closed = True
            self._release()

    def _append(self, table: str, row: dict[str, Any], context: dict[str, int]) -> None:
        self._seq += 1
        line = encode(table, row, {**self._common, **context, "seq": self._seq, "time_ns": time.time_ns()})
        if not self._write(line):
            self.dropped += 1
            if self.dropped == 1 and not self._closed:
                log.warning("events are being dropped: the spool %s is full", self._directory)

    def _write(self, line: bytes) -> bool:
        if (self._descriptor is None or self._written >= self._file_bytes) and not self._next_file():
            return False
        assert self._descriptor is not None
        data = b"\n" + line if self._torn else line
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            return False
        self._written += written
        self._torn = (written < len(data) and written > 0) or (self._torn and written == 0)
        return written == len(data)

    def _next_file(self) -> bool:
        if self._closed:
            return False
        unread = len(list(self._directory.glob(f"{self.source}.*"))) if self._number else 0
        if unread >= self._max_files:
            return False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        while True:
            self._number += 1
            try:
                descriptor = os.open(self._directory / file_name(self.source, self._number), flags, 0o600)
                break
            except FileExistsError:  # somebody's copy of an earlier one
                continue
            except OSError:
                return False
        with contextlib.suppress(OSError):  # a file system without locks: then the collector keeps the file
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._release()
        self._descriptor, self._written, self._torn = descriptor, 0, False
        return True

    def _release(self) -> None:
        """Let go of the present file; unlocked by name, as a forked child may still have it open."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
        self._descriptor = None
