"""Ranks that have called `hvd.init()` and are then told what to do: many cases, one start.

A rank is a fork of a server that has loaded torch. A job is a function of a test module, and may assert: what it
returns comes back, and what it raises fails the test. Ranks that one test has broken are not used by the next.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torch.optim", "phalanx.horovod.torch"])
PATIENCE_S = 60.0


class Crew:
    """`tell(job, ...)` runs `job(...)` on all ranks and returns what each has returned."""

    def __init__(self, size: int, meeting: Path, extra: dict[str, str] | None = None) -> None:
        self.size = size
        self.broken = False
        self._pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            environment = {
                "RANK": str(rank),
                "WORLD_SIZE": str(size),
                "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(size),
                "PHALANX_GENERATION": "1",
                "PHALANX_RENDEZVOUS": str(meeting),
                "GLOO_SOCKET_IFNAME": "lo",
                "HOROVOD_DYNAMIC_PROCESS_SETS": "1",
            }
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_serve, args=(environment | (extra or {}), theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)
        self._hear()

    def tell(
        self, job: Callable[..., Any], *arguments: Any, each: Sequence[tuple[Any, ...]] | None = None
    ) -> list[Any]:
        """`each`: further arguments of each rank."""
        for rank, pipe in enumerate(self._pipes):
            pipe.send((job, (*arguments, *(each[rank] if each else ()))))
        return self._hear()

    def _hear(self) -> list[Any]:
        answers = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(PATIENCE_S):
                answers.append((False, f"rank {rank} does not answer"))
                break
            try:
                answers.append(pipe.recv())
            except EOFError:
                answers.append((False, f"rank {rank} has ended"))
        wrong = [answer for fine, answer in answers if not fine]
        if wrong:
            self.broken = True
            raise AssertionError(wrong[0])
        return [answer for _, answer in answers]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(PATIENCE_S)


class Crews:
    """One crew of each size, made when it is first wanted, and anew when it was broken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._crews: dict[int, Crew] = {}
        self._made = 0

    def __call__(self, size: int) -> Crew:
        if size in self._crews and self._crews[size].broken:
            self._crews.pop(size).end()
        if size not in self._crews:
            self._made += 1
            self._crews[size] = Crew(size, self._folder / f"meeting-{self._made}")
        return self._crews[size]

    def end(self) -> None:
        for crew in self._crews.values():
            crew.end()


@contextmanager
def crews() -> Iterator[Crews]:
    with tempfile.TemporaryDirectory(prefix="phalanx-crew-") as folder:
        made = Crews(Path(folder))
        try:
            yield made
        finally:
            made.end()


def _serve(environment: dict[str, str], pipe: Connection) -> None:
    os.environ.update(environment)
    import torch

    import phalanx.horovod.torch as hvd

    torch.set_num_threads(1)
    _answer(pipe, hvd.init, ())
    while True:
        try:
            job, arguments = pipe.recv()
        except EOFError:
            os._exit(0)
        _answer(pipe, job, arguments)


def _answer(pipe: Connection, job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer = (True, job(*arguments))
    except BaseException:  # noqa: BLE001 - the test shows it
        answer = (False, traceback.format_exc())
    pipe.send(answer)
