"""Mistakes that one of a few ranks makes, on purpose, over each way of calling collectives; what each rank was told.

Rank 1 errs, after one operation that goes well. Ranks are forks of a server that has torch loaded. Each says, through
a pipe, when it came to an operation, what it was told (an error, or the watch's warning), or what it took for the
result. Knows nothing of tables.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import FileStore  # type: ignore[attr-defined]

HANG_S = 10.0  # how long an operation may take, so that hangs end
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["phalanx.collectives.transports.shm", "torch.distributed"])


class Way(Protocol):
    """One way of calling collectives. `name` is for those who can take one."""

    size: int

    def allreduce(self, tensor: Tensor, op: str = "sum", name: str = "") -> None: ...
    def broadcast(self, tensor: Tensor, root: int, name: str = "") -> None: ...
    def allgather_ragged(self, tensor: Tensor, name: str = "") -> None: ...
    def alltoall(self, tensor: Tensor, sent: list[int], received: list[int], name: str = "") -> None: ...


class Torch:
    """torch.distributed with one of its backends, blocking calls."""

    def __init__(
        self, backend: str, meeting: str, rank: int, size: int, arrive: Callable[[], None], level: str = "OFF"
    ) -> None:
        import phalanx.collectives  # noqa: F401 - makes the backend "phalanx" known

        self._arrive = arrive
        os.environ["TORCH_DISTRIBUTED_DEBUG"] = level
        dist.set_debug_level_from_env()  # type: ignore[attr-defined]
        self.size = size
        store = FileStore(meeting, size)
        timeout = timedelta(seconds=HANG_S)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)

    def allreduce(self, tensor: Tensor, op: str = "sum", name: str = "") -> None:
        self._arrive()
        dist.all_reduce(tensor, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[op])

    def broadcast(self, tensor: Tensor, root: int, name: str = "") -> None:
        self._arrive()
        dist.broadcast(tensor, root)

    def allgather_ragged(self, tensor: Tensor, name: str = "") -> None:
        self._arrive()
        dist.all_gather([torch.empty_like(tensor) for _ in range(self.size)], tensor)

    def alltoall(self, tensor: Tensor, sent: list[int], received: list[int], name: str = "") -> None:
        self._arrive()
        dist.all_to_all_single(torch.empty(sum(received)), tensor, received, sent)


class Ours:
    """Our group, which takes names; blocking, by waiting at once. `hosts`: how many this one is to count as."""

    def __init__(
        self, transport: str, meeting: str, rank: int, size: int, arrive: Callable[[], None], hosts: int = 1
    ) -> None:
        from phalanx.collectives import Membership, join

        self._arrive = arrive
        self.size = size
        membership = Membership(
            rank=rank,
            size=size,
            local_rank=rank % (size // hosts),
            local_size=size // hosts,
            rendezvous=Path(meeting),
            host="" if hosts == 1 else f"host-{rank * hosts // size}",
            transport=transport,
        )
        self._group = join(membership, operation_timeout_s=HANG_S)

    def allreduce(self, tensor: Tensor, op: str = "sum", name: str = "") -> None:
        self._arrive()
        self._group.allreduce(tensor, op, name).wait()  # type: ignore[arg-type]

    def broadcast(self, tensor: Tensor, root: int, name: str = "") -> None:
        self._arrive()
        self._group.broadcast(tensor, root, name).wait()

    def allgather_ragged(self, tensor: Tensor, name: str = "") -> None:
        self._arrive()
        self._group.allgather(tensor, name)

    def alltoall(self, tensor: Tensor, sent: list[int], received: list[int], name: str = "") -> None:
        self._arrive()
        self._group.alltoall(tensor, sent, name)


WAYS: Mapping[str, Callable[..., Way]] = MappingProxyType(
    {
        "our group, shared memory": partial(Ours, "shared-memory"),
        "our group, gloo": partial(Ours, "gloo"),
        "our group, two hosts of two": partial(Ours, "auto", hosts=2),
        "torch.distributed, phalanx": partial(Torch, "phalanx"),
        "torch.distributed, gloo": partial(Torch, "gloo"),
        "torch.distributed, gloo, its debugging": partial(Torch, "gloo", level="DETAIL"),
    }
)
_SIZES = {"our group, two hosts of two": 4}


# The mistakes. Each returns whether the result is the right one; None where there is none to look at.


def _shape(way: Way, rank: int) -> None:
    way.allreduce(torch.ones(512 if rank == 1 else 1024), name="grad.a")


def _same_numel(way: Way, rank: int) -> bool:
    tensor = torch.ones((32, 32) if rank == 1 else (1024,))
    way.allreduce(tensor, name="grad.a")
    return bool((tensor == way.size).all())


def _dtype(way: Way, rank: int) -> bool:
    tensor = torch.ones(1024, dtype=torch.int32 if rank == 1 else torch.float32)
    way.allreduce(tensor, name="grad.a")
    return bool((tensor == way.size).all())


def _kind(way: Way, rank: int) -> None:
    if rank == 1:
        way.broadcast(torch.ones(1024), 0, name="grad.a")
    else:
        way.allreduce(torch.ones(1024), name="grad.a")


def _op(way: Way, rank: int) -> bool:
    tensor = torch.full((1024,), 2.0)
    way.allreduce(tensor, "max" if rank == 1 else "sum", name="grad.a")
    return bool((tensor == (2 if rank == 1 else 2 * way.size)).all())


def _root(way: Way, rank: int) -> bool:
    tensor = torch.full((1024,), float(rank))
    way.broadcast(tensor, 1 if rank == 1 else 0, name="weights")
    return bool((tensor == (1 if rank == 1 else 0)).all())


def _swapped(way: Way, rank: int, second: int) -> bool:
    tensors = {"grad.a": torch.full((1024,), 1.0), "grad.b": torch.full((second,), 10.0)}
    for name in reversed(tensors) if rank == 1 else tensors:
        way.allreduce(tensors[name], name=name)
    return bool((tensors["grad.a"] == way.size).all() and (tensors["grad.b"] == 10 * way.size).all())


def _order(way: Way, rank: int) -> bool:
    return _swapped(way, rank, 1024)


def _order_of_other_shapes(way: Way, rank: int) -> bool:
    return _swapped(way, rank, 2048)


def _trailing(way: Way, rank: int) -> None:
    way.allgather_ragged(torch.ones(2, 4 if rank == 1 else 3), name="rows")


def _splits(way: Way, rank: int) -> None:
    """Rank 1 expects 2 rows of everybody, who send 1; of ours, which nobody tells what to expect, it sends too many."""
    ones = [1] * way.size
    if isinstance(way, Ours):
        way.alltoall(torch.ones(way.size), [2, *ones[1:]] if rank == 1 else ones, [], name="tokens")
    else:
        way.alltoall(torch.ones(way.size), ones, [2] * way.size if rank == 1 else ones)


def _skip(way: Way, rank: int) -> None:
    for size, name in ((1024, "grad.a"), (2048, "grad.b")):
        if rank != 1 or name == "grad.b":
            way.allreduce(torch.ones(size), name=name)


def _then(deed: Callable[[], object]) -> Callable[[Way, int], None]:
    def mistake(way: Way, rank: int) -> None:
        if rank == 1:
            time.sleep(1.5)  # so that it has said where it stands
            deed()
        way.allreduce(torch.ones(1024), name="grad.a")

    return mistake


def _raise() -> None:
    raise ValueError("the batch is empty")


def _loop() -> None:
    while True:
        pass


MISTAKES: Mapping[str, Callable[[Way, int], bool | None]] = MappingProxyType(
    {
        "another shape": _shape,
        "another shape of as many elements": _same_numel,
        "another dtype of as many bytes": _dtype,
        "another operation": _kind,
        "another reduction": _op,
        "another root": _root,
        "two operations swapped": _order,
        "two operations of other shapes swapped": _order_of_other_shapes,
        "ragged rows of another width": _trailing,
        "splits that do not fit": _splits,
        "an operation left out": _skip,
        "it raises": _then(_raise),
        "it exits": _then(lambda: os._exit(0)),
        "it is killed": _then(lambda: os.kill(os.getpid(), signal.SIGKILL)),
        "it is stopped (SIGSTOP)": _then(lambda: os.kill(os.getpid(), signal.SIGSTOP)),
        "it is in an endless loop": _then(_loop),
        "it sleeps": _then(lambda: time.sleep(600)),
    }
)
HANGS = ("it is stopped (SIGSTOP)", "it is in an endless loop", "it sleeps")
DEATHS = ("it raises", "it exits", "it is killed")


@dataclass(frozen=True)
class Told:
    """What a rank was told first. `after_s`: since the last rank that came had come, or since a rank that died died.

    `how`: "raised", "warned", "wrong result" (and nothing said), "right result", "died" (words: its exit) or "nothing".
    """

    how: str
    words: str = ""
    after_s: float | None = None


@dataclass
class _Heard:
    arrived: float = 0.0
    at: float = 0.0
    how: str = "nothing"
    words: str = ""


def make(way: str, mistake: str, limit_s: float = HANG_S + 15) -> list[Told]:
    """Let the ranks do it; what each was told, in rank order. Nothing of them is left afterwards."""
    size = _SIZES.get(way, 3)
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(size):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_run, args=(way, mistake, rank, size, folder, theirs))
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        try:
            heard, ends = _listen(pipes, time.monotonic() + limit_s, mistake in HANGS)
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        for rank, process in enumerate(processes):
            process.join()
            if heard[rank].how == "nothing" and rank in ends:
                words = _last_line(Path(folder) / f"rank-{rank}.log")
                heard[rank] = _Heard(heard[rank].arrived, ends[rank], "died", words or f"exit {process.exitcode}")
            process.close()
    erring = 1 if mistake in HANGS or mistake in DEATHS else None
    began = max(one.arrived for rank, one in enumerate(heard) if rank != erring)
    if mistake in DEATHS and 1 in ends:
        began = max(began, ends[1])
    return [Told(one.how, one.words, max(0.0, one.at - began) if one.at else None) for one in heard]


def _listen(pipes: list[Connection], deadline: float, is_hang: bool) -> tuple[list[_Heard], dict[int, float]]:
    """Until every rank has said how it went, or has ended; of a hang, until the others have."""
    heard = [_Heard() for _ in pipes]
    ends: dict[int, float] = {}
    open_pipes = {pipe: rank for rank, pipe in enumerate(pipes)}
    while open_pipes and time.monotonic() < deadline:
        for pipe in wait(list(open_pipes), timeout=0.2):
            assert isinstance(pipe, Connection)
            rank = open_pipes[pipe]
            try:
                what, at, words = pipe.recv()
            except (EOFError, OSError):
                ends[rank] = time.monotonic()
                del open_pipes[pipe]
                continue
            one = heard[rank]
            if what == "arrived":
                one.arrived = at
            elif one.how == "nothing":
                one.how, one.at, one.words = what, at, words
        if is_hang and all(one.how != "nothing" for rank, one in enumerate(heard) if rank != 1):
            break
    return heard, ends


def _run(way: str, mistake: str, rank: int, size: int, folder: str, pipe: Connection) -> None:
    """In the rank's process."""
    log = os.open(f"{folder}/rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 2)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)

    def say(what: str, words: str = "") -> None:
        with contextlib.suppress(OSError):
            pipe.send((what, time.monotonic(), words))

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say("warned", record.getMessage())

    logging.getLogger("phalanx.collectives.watch").addHandler(Ear(logging.WARNING))
    made = WAYS[way](f"{folder}/meeting", rank, size, lambda: say("arrived"))
    made.allreduce(torch.ones(8), name="warm-up")
    try:
        right = MISTAKES[mistake](made, rank)
    except ValueError as error:  # a rank's own, which ends its process as it would without us
        if str(error) == "the batch is empty":
            _end_as_python_does(error)
        say("raised", _named(error))
    except Exception as error:  # noqa: BLE001 - whatever it is told
        say("raised", _named(error))
    else:
        say("right result" if right is None or right else "wrong result")
    pipe.close()
    os._exit(0)


def _end_as_python_does(error: BaseException) -> NoReturn:
    """What the interpreter does with an error that nobody caught; multiprocessing would leave at once."""
    sys.last_value = error
    traceback.print_exception(error)
    atexit._run_exitfuncs()
    os._exit(1)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return next((line.strip() for line in reversed(lines) if "Error" in line or "what()" in line), "")
