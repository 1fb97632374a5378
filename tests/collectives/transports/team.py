"""Ranks to be harmed: forks of one server, so that each starts in milliseconds when the server has loaded torch.

A rank runs a function of a module (found by name, as multiprocessing does) and says things to the test
through a pipe. Knows nothing of what the ranks do.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.distributed import FileStore

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.library import library
from phalanx.collectives.transports.shm import SharedMemory

CONTEXT = multiprocessing.get_context("forkserver")
PATIENCE_S = 30.0


@dataclass
class Failure:
    """What a rank was told: the error's class, the ranks it names, its text; and when (s of CLOCK_MONOTONIC)."""

    kind: str
    ranks: tuple[int, ...]
    message: str
    at: float


@dataclass
class Seat:
    """A rank from inside."""

    rank: int
    size: int
    meeting: Path
    pipe: Connection

    def join(self, **options: Any) -> SharedMemory:
        store = FileStore(str(self.meeting), self.size)
        return SharedMemory(store, self.rank, self.size, **({"timeout_s": 20.0} | options))

    def say(self, what: object) -> None:
        self.pipe.send(what)

    def hear(self) -> Any:
        return self.pipe.recv()


@dataclass
class Rank:
    """A rank from outside."""

    process: Any
    pipe: Connection
    rank: int

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def hear(self, timeout_s: float = PATIENCE_S) -> Any:
        assert self.pipe.poll(timeout_s), f"rank {self.rank} says nothing"
        try:
            return self.pipe.recv()
        except EOFError:
            self.process.join(PATIENCE_S)
            raise AssertionError(f"rank {self.rank} ended ({self.process.exitcode}) without a word") from None

    def tell(self, what: object) -> None:
        self.pipe.send(what)

    def kill(self, number: int = signal.SIGKILL) -> float:
        """Send the signal; when that was."""
        os.kill(self.pid, number)
        return time.monotonic()

    def fails(self, timeout_s: float = PATIENCE_S) -> Failure:
        """The failure it reports; everything it says before is dropped."""
        while not isinstance(said := self.hear(timeout_s), Failure):
            pass
        return said


class Team:
    def __init__(self, folder: Path) -> None:
        self._folder, self._meetings = folder, 0
        self._started: list[Rank] = []
        self._pids: list[int] = []

    def meeting(self) -> Path:
        """Where a new group meets."""
        self._meetings += 1
        return self._folder / f"meeting-{self._meetings}"

    def start(self, size: int, program: Callable[..., None], *arguments: object) -> list[Rank]:
        """Ranks 0..size-1 of a new group, each running `program(seat, *arguments)`."""
        meeting = self.meeting()
        return [self.start_one(rank, size, meeting, program, *arguments) for rank in range(size)]

    def start_one(self, rank: int, size: int, meeting: Path, program: Callable[..., None], *arguments: object) -> Rank:
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_run, args=(program, Seat(rank, size, meeting, theirs), *arguments))
        process.start()
        theirs.close()
        self._started.append(Rank(process, ours, rank))
        self._pids.append(int(process.pid or 0))
        return self._started[-1]

    def pids(self) -> list[int]:
        """Of all ranks that were ever started."""
        return list(self._pids)

    def dismiss(self) -> None:
        for rank in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank.pid, signal.SIGKILL)
        for rank in self._started:
            rank.process.join(PATIENCE_S)
            rank.process.close()
            rank.pipe.close()
        self._started.clear()


def _run(program: Callable[..., None], seat: Seat, *arguments: object) -> None:
    torch.set_num_threads(1)
    try:
        program(seat, *arguments)
    except CollectiveError as error:
        named = getattr(error, "ranks", None) or getattr(error, "missing", ())
        with contextlib.suppress(BrokenPipeError):
            seat.say(Failure(type(error).__name__, tuple(named), error.message, time.monotonic()))


def left_by(pids: list[int]) -> list[str]:
    """Names in /dev/shm of buffers that these made."""
    return sorted(name for name in os.listdir("/dev/shm") for pid in pids if name.startswith(f"phalanx-{pid}-"))


def teams(folder: Path) -> Iterator[Team]:
    """The body of a fixture."""
    library()  # compiled now: no rank waits for it while others count the time
    team = Team(folder)
    yield team
    team.dismiss()
