"""What was done when, as Horovod draws it: a file for Perfetto and chrome://tracing.

A lane (a process of the trace) for each name: who was ready when, then the operation and what it did. What is told
is kept, and a thread writes it down a little later, always as complete JSON. Knows neither operations nor ranks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from pathlib import Path

from phalanx.foundation import UsageError

log = logging.getLogger("phalanx.horovod")

_WRITE_S = 0.02  # what happened longer ago is in the file: people look at it while the job runs
_TAIL = "\n]\n"


class Timeline:
    """Of rank 0. Anything may be called from any thread, in any order, and after `close`, when it does nothing.

    What is not begun cannot end, and what begins ends first what its name still has open: lanes are always well formed.
    `mark_cycles`: whether `cycle` draws anything. Raises UsageError for a path that cannot be written.
    """

    def __init__(self, path: Path, mark_cycles: bool = False) -> None:
        self.path = path
        self._mark_cycles = mark_cycles
        self._lock = threading.Lock()
        self._lanes: dict[str, int] = {}
        self._open: dict[str, int] = {}  # how many bars, by name
        self._events: list[str] = []
        self._began = time.monotonic_ns()
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(
                f"the timeline cannot be written ({error.strerror})",
                where=str(path),
                remedy="name a file in a directory that is there (HOROVOD_TIMELINE, --timeline-filename)",
            ) from error
        self._size = 0
        self._describe("Horovod", 0, start_time_since_epoch_in_micros=time.time_ns() // 1000)
        self._ended = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._keep_writing, name="phalanx-timeline", daemon=True)
        self._thread.start()

    def negotiate_start(self, name: str, kind: str) -> None:
        """The first rank has announced `name`. `kind`: in capitals, such as ALLREDUCE."""
        with self._lock:
            self._end_all(name)
            self._begin(name, f"NEGOTIATE_{kind}")

    def negotiate_rank_ready(self, name: str, rank: int) -> None:
        """A tick under it."""
        with self._lock:
            if name in self._open:
                self._draw(name, "X", f'"name":"{rank}","dur":0,')

    def negotiate_end(self, name: str) -> None:
        """All have."""
        with self._lock:
            self._end_all(name)

    def start(self, name: str, kind: str) -> None:
        """The operation begins."""
        with self._lock:
            self._end_all(name)
            self._begin(name, kind)

    def activity(self, name: str, what: str) -> None:
        """A part of the operation begins, such as MEMCPY_IN_FUSION_BUFFER; the part before has ended."""
        with self._lock:
            if name in self._open:
                if self._open[name] > 1:
                    self._end(name)
                self._begin(name, what)

    def end(self, name: str, nbytes: int | None = None) -> None:
        """The operation is done. `nbytes`: of this rank's tensors."""
        with self._lock:
            self._end_all(name, "" if nbytes is None else f'"args":{{"bytes":{nbytes}}},')

    def cycle(self) -> None:
        """Rank 0 has looked at what is ready."""
        if self._mark_cycles:
            with self._lock:
                if not self._ended.is_set():
                    self._events.append(f'{{"ph":"i","name":"CYCLE_START","s":"g","pid":0,"ts":{self._now()}}}')

    def close(self) -> None:
        """Everything that was told is in the file. Idempotent."""
        self._ended.set()
        self._thread.join()
        with self._lock:
            for name in list(self._open):
                self._end_all(name)
        self._write()
        self._close_file()

    # With the lock held

    def _begin(self, name: str, what: str) -> None:
        if self._ended.is_set():
            return
        self._open[name] = self._open.get(name, 0) + 1
        self._draw(name, "B", f'"name":{json.dumps(what)},')

    def _end(self, name: str, more: str = "") -> None:
        self._draw(name, "E", more)
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]

    def _end_all(self, name: str, more: str = "") -> None:
        while name in self._open:
            self._end(name, more if self._open[name] == 1 else "")

    def _draw(self, name: str, phase: str, more: str) -> None:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = len(self._lanes) + 1
            self._describe(name, lane)
        # Perfetto puts all that has thread 0 into one lane of its own, so a lane's thread has its number as well.
        self._events.append(f'{{"ph":"{phase}",{more}"ts":{self._now()},"pid":{lane},"tid":{lane}}}')

    def _describe(self, name: str, lane: int, **more: int) -> None:
        for what, value in (("process_name", {"name": name, **more}), ("process_sort_index", {"sort_index": lane})):
            self._events.append(json.dumps({"ph": "M", "name": what, "pid": lane, "args": value}))

    def _now(self) -> int:
        return (time.monotonic_ns() - self._began) // 1000

    # The thread

    def _keep_writing(self) -> None:
        while not self._ended.wait(_WRITE_S):
            self._write()

    def _write(self) -> None:
        """Over the closing bracket, in one call, so that the file is complete before and after."""
        with self._lock:
            events, self._events = self._events, []
        if not events or self._file < 0:
            return
        text = ",\n".join(events)
        data = ((",\n" if self._size else "[\n") + text + _TAIL).encode()
        offset = max(self._size - len(_TAIL), 0)
        try:
            written = os.pwrite(self._file, data, offset)
            if written < len(data):  # the disk has filled up just here: this says so
                os.pwrite(self._file, data[written:], offset + written)
        except OSError as error:
            log.error("%s: the timeline ends here (%s)", self.path, error.strerror)
            with contextlib.suppress(OSError):
                os.pwrite(self._file, _TAIL.encode(), offset)
                os.ftruncate(self._file, self._size)
            self._close_file()
            return
        self._size = offset + len(data)

    def _close_file(self) -> None:
        with self._lock:
            descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)
