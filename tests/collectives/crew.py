"""Ranks that are started once and then told what to do: many cases, one rendezvous.

A rank is a fork of a server that has loaded torch. A job is a function of a module that gets the group and its
arguments; what it returns, or the error that it raises, comes back through a pipe. Knows nothing of the jobs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from phalanx.collectives import CollectiveError, Group, Membership, join

CONTEXT = multiprocessing.get_context("forkserver")
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Failure:
    """What a rank was told: the error's class, its message, and the ranks it names."""

    kind: str
    message: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """A transport with as many ranks, on as many (pretended) hosts."""

    transport: str
    size: int
    hosts: int = 1

    def __str__(self) -> str:
        return f"{self.transport}-{self.size}-on-{self.hosts}"

    def host(self, rank: int) -> str:
        return f"host-{rank * self.hosts // self.size}" if self.hosts > 1 else ""


class Crew:
    """`tell(job, ...)` runs `job(group, ...)` on all ranks and returns their answers in rank order."""

    def __init__(self, kind: Kind, meeting: Path) -> None:
        self.kind = kind
        self.size = kind.size
        self._pipes: list[Connection] = []
        self.processes = []
        for rank in range(kind.size):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_serve, args=(kind, rank, meeting, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)
        assert self.hear(range(self.size)) == [None] * self.size

    def tell(
        self, job: Callable[..., Any], *arguments: Any, each: Sequence[tuple[Any, ...]] | None = None
    ) -> list[Any]:
        """`each`: further arguments of each rank."""
        self.start(job, *arguments, each=each)
        return self.hear(range(self.size))

    def start(self, job: Callable[..., Any], *arguments: Any, each: Sequence[tuple[Any, ...]] | None = None) -> None:
        for rank, pipe in enumerate(self._pipes):
            pipe.send((job, (*arguments, *(each[rank] if each else ()))))

    def hear(self, ranks: Sequence[int]) -> list[Any]:
        answers = []
        for rank in ranks:
            assert self._pipes[rank].poll(PATIENCE_S), f"rank {rank} does not answer"
            answers.append(self._pipes[rank].recv())
        return answers

    def kill(self, rank: int) -> None:
        pid = self.processes[rank].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.processes[rank].join(PATIENCE_S)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(PATIENCE_S)


@contextmanager
def crew(kind: Kind, folder: Path) -> Iterator[Crew]:
    ranks = Crew(kind, folder / f"meeting-{kind}")
    try:
        yield ranks
    finally:
        ranks.end()


def _serve(kind: Kind, rank: int, meeting: Path, pipe: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    choice = "auto" if kind.hosts > 1 else kind.transport
    member = Membership(
        rank=rank, size=kind.size, local_size=kind.size, local_rank=rank, rendezvous=meeting, host=kind.host(rank),
        transport=choice,
    )  # fmt: skip
    group = _answer(pipe, lambda: join(member, timeout_s=PATIENCE_S), tell=False)
    pipe.send(None)
    while True:
        try:
            job, arguments = pipe.recv()
        except EOFError:
            os._exit(0)
        _answer(pipe, lambda: job(group, *arguments))  # noqa: B023


def _answer(pipe: Connection, do: Callable[[], Any], *, tell: bool = True) -> Any:
    try:
        value = do()
    except CollectiveError as error:
        ranks = getattr(error, "ranks", getattr(error, "missing", ()))
        pipe.send(Failure(type(error).__name__, error.message, tuple(ranks)))
        return None
    if tell:
        pipe.send(value)
    return value


def name_of_transport(group: Group) -> str:
    return type(group.transport).__name__
