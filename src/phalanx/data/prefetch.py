"""A process that prepares a stream's next portions while a step computes, so that no step waits for data.

    parent                                                     child: `main`
      orders, one line of JSON                        stdin ->   opens the datasets, seeks to the cursor
      one byte for each slot that is free again       stdin ->   fills the next slot of the shared buffer
      <- a line of JSON: slot, shapes, counts, cursor           (or what went wrong)

Arrays lie in a shared buffer without a name (memfd): the parent's arrays are views of it, nothing is copied, and
nothing is left when both have ended, however they end. The child loads no torch, ignores the terminal's signals, and
dies with the thread that started it. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from phalanx.data import errors
from phalanx.data.batches import Batch, Cursor, LoaderSpec, Portion
from phalanx.data.errors import DataChanged, DataError, DatasetDamaged
from phalanx.foundation import PhalanxError

if TYPE_CHECKING:
    from phalanx.data.stream import StreamLoader

MAX_BUFFER_BYTES = 64 << 20
_ALIGNMENT = 64
_BYTES_A_TOKEN = 8 + 4 + 8 + 8  # tokens, document, positions, targets
_PR_SET_PDEATHSIG = 1
_CHILD = "from phalanx.data.prefetch import main; main()"  # as a module it would be there twice


class PrefetchEnded(PhalanxError):
    """The process that prepares the batches has ended unasked."""


@dataclass(frozen=True)
class Orders:
    """What a child is to prepare. `fingerprint`: of the StreamLoader that gives the orders."""

    directories: tuple[str, ...]
    weights: tuple[float, ...]
    spec: LoaderSpec
    fingerprint: str
    cursor: Cursor | None
    rank: int
    world: int
    micro_batch: int

    @property
    def slot_bytes(self) -> int:
        """At least what a portion takes."""
        rows = -(-self.spec.global_batch // self.world)
        arrays = 4 * -(-rows // self.micro_batch)
        size = rows * (self.spec.sequence_length + 1) * _BYTES_A_TOKEN + arrays * _ALIGNMENT
        return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class PrefetchedFeed:
    """Portions that a child prepares, up to `ahead` of them (fewer, but two, of such as take more than
    MAX_BUFFER_BYTES together)."""

    def __init__(self, orders: Orders, ahead: int) -> None:
        self._orders = orders
        slots = max(2, min(ahead, MAX_BUFFER_BYTES // orders.slot_bytes)) + 1  # one is in the parent's hands
        self._held: int | None = None
        memory = os.memfd_create("phalanx-prefetch", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, slots * orders.slot_bytes)
            self._buffer = mmap.mmap(memory, slots * orders.slot_bytes)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, str(memory), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[memory],
            )
        finally:
            os.close(memory)
        self._say((json.dumps(asdict(orders)) + "\n").encode() + bytes(range(slots)))

    @property
    def process_id(self) -> int:
        """Of the child."""
        return self._process.pid

    def take(self) -> Portion:
        """The next one; the arrays of the one before are not to be used any more. Raises what was wrong in the child:
        DataError; DatasetDamaged when a file was cut under it; PrefetchEnded."""
        line = _stream(self._process.stdout).readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            kind = getattr(errors, told["kind"], DataError)
            raise kind(told["error"], where=told["where"], remedy=told["remedy"])
        if self._held is not None:
            self._say(bytes([self._held]))
        self._held = told["slot"]
        base = told["slot"] * self._orders.slot_bytes
        batches = []
        for batch in told["batches"]:
            arrays = {}
            for name, (dtype, shape, offset) in batch["arrays"].items():
                count = math.prod(shape)
                arrays[name] = np.frombuffer(self._buffer, dtype, count, base + offset).reshape(shape)
            batches.append(Batch(arrays, batch["real_tokens"], batch["predicted_tokens"], batch["predicted_bytes"]))
        return Portion(tuple(batches), told["predicted"], told["cursor"])

    def close(self) -> None:
        """End the child: it holds nothing that it would have to put in order."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                _stream(pipe).close()

    def _say(self, data: bytes) -> None:
        pipe = _stream(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # the child has ended: reading tells why
            pipe.write(data)
            pipe.flush()

    def _ended(self) -> PhalanxError:
        code = self._process.wait()
        where = " + ".join(self._orders.directories)
        if code == -signal.SIGBUS:
            return DatasetDamaged(
                "a file was cut while it was read, or its disk failed",
                where=where,
                remedy="bring the file back as it was; `phalanx data inspect --verify` names it",
            )
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return PrefetchEnded(
            f"the process that prepares the batches ended unasked ({how})",
            where=where,
            remedy="look into the worker's log; SIGKILL is most often the kernel's when memory is short",
        )


def main() -> None:
    """The child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    memory, parent = int(sys.argv[1]), int(sys.argv[2])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return  # it died before the call
    with contextlib.suppress(PermissionError):  # where a sandbox forbids it, waking up only costs the parent a little
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # never to take the parent's core when it wakes up
    orders = _orders(sys.stdin.buffer.readline())
    buffer = mmap.mmap(memory, 0)
    try:
        _prepare(_open(orders), orders, buffer)
    except PhalanxError as error:
        told = {"kind": type(error).__name__, "error": error.message, "where": error.where, "remedy": error.remedy}
        _tell(told)


def _prepare(data: StreamLoader, orders: Orders, buffer: mmap.mmap) -> None:
    """Fill slots as they become free, until the parent closes its end."""
    feed = data.feed(orders.cursor, orders.rank, orders.world, orders.micro_batch)
    for slot in _free_slots(sys.stdin.buffer):
        portion = feed.take()
        place, end = slot * orders.slot_bytes, (slot + 1) * orders.slot_bytes
        batches = []
        for batch in portion.batches:
            arrays = {}
            for name, array in batch.arrays.items():
                if place + array.nbytes > end:
                    raise PrefetchEnded(f"a portion takes more than the {orders.slot_bytes:,} bytes reckoned for it")
                np.frombuffer(buffer, array.dtype, array.size, place)[:] = array.ravel()
                arrays[name] = (array.dtype.str, array.shape, place - slot * orders.slot_bytes)
                place += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
            batches.append({**{key: value for key, value in vars(batch).items() if key != "arrays"}, "arrays": arrays})
        _tell({"slot": slot, "batches": batches, "predicted": portion.predicted, "cursor": portion.cursor})


def _open(orders: Orders) -> StreamLoader:
    from phalanx.data.dataset import Dataset
    from phalanx.data.stream import StreamLoader

    data = StreamLoader([Dataset.open(Path(path)) for path in orders.directories], orders.weights, orders.spec)
    if data.fingerprint != orders.fingerprint:
        raise DataChanged(
            "was built again while the run began", where=data.name, remedy="start the run once the dataset is finished"
        )
    return data


def _free_slots(pipe: IO[bytes]) -> Iterator[int]:
    while byte := pipe.read(1):
        yield byte[0]


def _orders(line: bytes) -> Orders:
    values: dict[str, Any] = json.loads(line)
    values["spec"] = LoaderSpec(**values["spec"])
    values["directories"], values["weights"] = tuple(values["directories"]), tuple(values["weights"])
    return Orders(**values)


def _tell(told: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
    sys.stdout.buffer.flush()


def _stream(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "the child is started with pipes"
    return pipe
