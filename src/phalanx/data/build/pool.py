"""Processes that do the tasks of a build, as many at once as there are; which one does which task changes nothing.

Knows nothing of what the tasks are.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any

from phalanx.data import errors
from phalanx.data.build.work import Result, Work
from phalanx.foundation import DiskFull, PhalanxError, ReadOnly, StorageError, UsageError

Task = dict[str, Any]

_KINDS: dict[str, type[PhalanxError]] = {
    kind.__name__: kind
    for kind in (UsageError, StorageError, DiskFull, ReadOnly, *vars(errors).values())
    if isinstance(kind, type) and issubclass(kind, PhalanxError)
}
_ALONE = {  # one thread each: processes are what is parallel
    "TOKENIZERS_PARALLELISM": "false",
    "RAYON_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
_READ = 1 << 16


class WorkerLost(PhalanxError):
    """A process of the build ended in the middle of a task. Remedy: run the command again, it goes on."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    said: bytes = b""
    task: Task | None = field(default=None)

    def give(self, task: Task) -> None:
        assert self.process.stdin is not None
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # its end is noticed when its output ends
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()


class Pool:
    """At most `size` processes, begun when there is a task for them; a context manager that ends them all.

    `peak`: the most bytes of memory that any of them held.
    """

    def __init__(self, work: Work, size: int) -> None:
        self._work, self._size = work, size
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self.peak = 0

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            for pipe in (worker.process.stdin, worker.process.stdout, worker.log):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._selector.close()

    def run(self, tasks: Iterable[Task], progress: Callable[[int], None] = lambda count: None) -> Iterator[Result]:
        """Results in the order of their ends. Raises what a task raised, WorkerLost when a process was killed."""
        waiting: Iterator[Task | None] = iter(tasks)
        busy = 0
        while busy < self._size and (task := next(waiting, None)) is not None:
            worker = next((one for one in self._workers if one.task is None), None)
            if worker is None:
                worker = self._start()
            worker.give(task)
            busy += 1
        while busy:
            for key, _ in self._selector.select():
                worker = key.data
                for message in self._heard(worker):
                    if "bytes" in message:
                        progress(message["bytes"])
                        continue
                    if "error" in message:
                        raise _raised(message)
                    self.peak = max(self.peak, message["peak"])
                    worker.task = None
                    busy -= 1
                    if (task := next(waiting, None)) is not None:
                        worker.give(task)
                        busy += 1
                    yield message["result"]

    def _start(self) -> _Worker:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "phalanx.data.build.worker",
                *map(str, (self._work.directory, self._work.out, os.getpid())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | _ALONE,
            start_new_session=True,  # a terminal's Ctrl-C is for us; we end them
        )
        worker = _Worker(process, log)
        self._workers.append(worker)
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _heard(self, worker: _Worker) -> list[dict[str, Any]]:
        assert worker.process.stdout is not None
        data = os.read(worker.process.stdout.fileno(), _READ)
        if not data:
            raise _lost(worker)
        *lines, worker.said = (worker.said + data).split(b"\n")
        return [json.loads(line) for line in lines]


def _raised(message: dict[str, Any]) -> PhalanxError:
    kind = _KINDS.get(message["error"], PhalanxError)
    return kind(message["message"], where=message["where"], remedy=message["remedy"])


def _lost(worker: _Worker) -> WorkerLost:
    code = worker.process.wait()
    worker.log.seek(0)
    last = worker.log.read()[-4096:].decode(errors="replace").strip().rpartition("\n")[2]
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    doing = f" in the middle of {worker.task['stage']} {worker.task['number']}" if worker.task else ""
    return WorkerLost(
        f"a process of the build {how}{doing}" + (f": {last}" if last else ""),
        remedy="run the same command again: it goes on where it stopped"
        + ("; if memory ran out, with fewer --processes or less --memory" if code == -signal.SIGKILL else ""),
    )
