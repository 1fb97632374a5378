"""The transport of ranks on one host: a shared buffer that only they can open, and the C that works in it.

Rank 0 makes the buffer in /dev/shm, readable by its user alone, under a name that cannot be guessed, and removes
the name once all have joined. What a group that died while it met leaves behind, the next one removes.
Knows nothing of hosts or process sets: the caller says who is here.
"""

from __future__ import annotations

import ctypes
import math
import os
import weakref
from collections import deque
from collections.abc import Sequence

import torch
from torch.distributed import Store  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, Mismatch, PeerLost
from phalanx.collectives.transports import library as c
from phalanx.collectives.transports.buffer import meet_over_buffer
from phalanx.collectives.transports.reduction import NUMBERS
from phalanx.collectives.transports.reference import refuse_meaningless
from phalanx.collectives.transports.told import record_of, state_of
from phalanx.collectives.transports.transport import (
    RankState,
    Record,
    ReduceOp,
    Transport,
    refuse_splits,
    shorten,
    unfit,
)
from phalanx.foundation import BuildError

AREA = 4 << 20  # bytes of staging a rank
SMALL = 16 << 10  # bytes that travel with the arrival
LARGE = 8 << 20  # results from here on are written past the caches
SPIN_S = 250e-6  # to look at a flag before sleeping on it: more than waking a core and one chunk take
_MOST_STAGING = 32 << 20

_KIND = {name: number for number, name in enumerate(c.KINDS)}
_OP: dict[str, int] = {name: number << 8 for number, name in enumerate(c.OPS)}
_DTYPE = {dtype: number << 16 for dtype, number in NUMBERS.items()}
_ASYNCHRONOUS = 1 << 40
_REDUCTIONS = frozenset(_KIND[kind] for kind in ("allreduce", "reduce", "reducescatter"))
_NO_SHAPE = (ctypes.c_int64 * 1)(0)
_SUM_CODE = {dtype: _KIND["allreduce"] | number for dtype, number in _DTYPE.items()}


class SharedMemory(Transport):
    """Ranks of one host, `size` <= 64. Making one is collective: every rank passes a `store` that all share.

    `names`: what messages call the ranks, where that is not 0..size-1; `timeout_s`: for all to come;
    `operation_timeout_s`: for one operation.
    Raises CollectiveTimeout naming who did not come; CollectiveError when the buffer cannot be had (no compiler,
    /dev/shm too small, ranks that cannot see one another's memory): every rank raises then.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        *,
        names: Sequence[int] | None = None,
        timeout_s: float = 60.0,
        operation_timeout_s: float = 600.0,
    ) -> None:
        if size > c.MAX_RANKS:
            raise CollectiveError(f"{size} ranks on one host, and {c.MAX_RANKS} at most share memory")
        self.rank, self.size = rank, size
        self.names = tuple(range(size) if names is None else names)
        self._where = f"rank {self.names[rank]}, shared memory"
        try:
            self._c = c.library()
        except BuildError as error:
            if rank == 0:
                store.set("buffer", "!" + error.message)
            raise CollectiveError(error.message, remedy=error.remedy) from error
        area = AREA
        while area * size > _MOST_STAGING and area > 512 << 10:
            area //= 2
        geometry = (area, SMALL)
        path, token = meet_over_buffer(self._c, self._c.ph_bytes(size, *geometry), store, rank, self.names, timeout_s)
        problem_words = ctypes.create_string_buffer(c.TEXT)
        missing = (ctypes.c_uint8 * c.MAX_RANKS)()
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as problem:
            raise CollectiveError(
                f"cannot open the shared buffer of rank 0: {problem.strerror}",
                where=self._where,
                remedy="run all ranks as one user in one mount namespace, and start them before the others give up",
            ) from problem
        try:
            self._group = self._c.ph_open(
                fd, rank, size, *geometry, LARGE, SPIN_S, timeout_s, operation_timeout_s,
                token, (ctypes.c_int32 * size)(*self.names), problem_words, missing,
            )  # fmt: skip
        finally:
            os.close(fd)
            if rank == 0 or any(missing):  # who was refused removes nothing
                path.unlink(missing_ok=True)
        if not self._group:
            absent = tuple(self.names[r] for r in range(size) if missing[r])
            words = problem_words.value.decode(errors="replace")
            if absent:
                raise CollectiveTimeout(
                    f"rank {', '.join(map(str, absent))} did not join within {timeout_s:g} s",
                    missing=absent,
                    where=self._where,
                    remedy="look at the log of that rank, or whether its process was started",
                )
            raise CollectiveError(words, where=self._where)
        self._close = weakref.finalize(self, self._c.ph_close, self._group)
        self._held: deque[tuple[int, tuple[object, ...]]] = deque()  # tensors of operations that may still run
        self._ragged: dict[int, tuple[torch.dtype, tuple[int, ...]]] = {}
        self._shapes: dict[tuple[int, ...], tuple[int, object]] = {}
        self._pointer: int = self._group
        self._call = self._c.ph_call

    # Operations

    def allreduce(
        self,
        tensor: torch.Tensor,
        op: ReduceOp = "sum",
        *,
        output: torch.Tensor | None = None,
        name: str = "",
        prescale: float = 1.0,
        postscale: float = 1.0,
        asynchronous: bool = False,
    ) -> int:
        if output is not None:
            self._refuse_other_sizes("allreduce", output, tensor.numel())
        return self._reduction("allreduce", tensor, output if output is not None else tensor, op, 0, name,
                               prescale, postscale, asynchronous)  # fmt: skip

    def allreduce_together(
        self,
        tensors: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        op: ReduceOp = "sum",
        *,
        name: str = "",
        prescale: float = 1.0,
        postscale: float = 1.0,
        asynchronous: bool = False,
    ) -> int:
        """As one `allreduce` of all of them beside each other, all of one dtype; nothing is copied for it."""
        refuse_meaningless(tensors[0].dtype, op, prescale, postscale)
        code = _KIND["allreduce"] | _OP[op] | (_ASYNCHRONOUS if asynchronous else 0)
        code |= self._number(code, name, tensors[0].dtype, [*tensors, *outputs])
        parts: list[int] = []  # of each, a `piece` of shm.c
        for tensor, output in zip(tensors, outputs, strict=True):
            self._refuse_other_sizes("allreduce", output, tensor.numel())
            parts += tensor.data_ptr(), output.data_ptr(), tensor.nbytes
        array = (ctypes.c_int64 * len(parts))(*parts)
        more = c.Extras(prescale, postscale, None, ctypes.addressof(array), len(tensors))
        count = sum(tensor.numel() for tensor in tensors)
        shape, _ = self._shape(torch.Size((count,)))
        ticket = self._call(self._pointer, code, None, None, count, shape, _name(name), ctypes.byref(more))
        return self._begun(ticket, asynchronous, (tensors, outputs))

    def reduce(
        self,
        tensor: torch.Tensor,
        root: int,
        op: ReduceOp = "sum",
        *,
        name: str = "",
        prescale: float = 1.0,
        postscale: float = 1.0,
        asynchronous: bool = False,
    ) -> int:
        return self._reduction("reduce", tensor, tensor, op, root, name, prescale, postscale, asynchronous)

    def reducescatter(
        self,
        output: torch.Tensor,
        tensor: torch.Tensor,
        op: ReduceOp = "sum",
        *,
        counts: Sequence[int] | None = None,
        name: str = "",
        prescale: float = 1.0,
        postscale: float = 1.0,
        asynchronous: bool = False,
    ) -> int:
        pieces = [tensor.numel() // self.size] * self.size if counts is None else list(counts)
        self._refuse_other_sizes("reducescatter", tensor, sum(pieces))
        self._refuse_other_sizes("reducescatter", output, pieces[self.rank])
        return self._reduction("reducescatter", tensor, output, op, 0, name, prescale, postscale, asynchronous, counts)

    def _reduction(
        self,
        kind: str,
        tensor: torch.Tensor,
        output: torch.Tensor,
        op: ReduceOp,
        root: int,
        name: str,
        prescale: float,
        postscale: float,
        asynchronous: bool,
        counts: Sequence[int] | None = None,
    ) -> int:
        more = None
        code = _KIND[kind] | _OP[op] | self._root(root)
        if op != "sum" or prescale != 1.0 or postscale != 1.0:
            refuse_meaningless(tensor.dtype, op, prescale, postscale)
        if prescale != 1.0 or postscale != 1.0 or counts is not None:
            array = (ctypes.c_int64 * self.size)(*counts) if counts is not None else None
            more = c.Extras(prescale, postscale, ctypes.addressof(array) if array is not None else None)
            if array is not None:
                code |= 1 << 24
            ticket = self._submit(code, tensor, output, name, asynchronous, ctypes.byref(more))
            del array
            return ticket
        return self._submit(code, tensor, output, name, asynchronous, None)

    def sum_in_place(self, tensor: torch.Tensor) -> None:
        """`allreduce(tensor)`, blocking and without a name: the least that a call can cost."""
        shape = self._shapes.get(tensor.shape)
        code = _SUM_CODE.get(tensor.dtype)
        if shape is None or code is None:
            self._submit(_KIND["allreduce"], tensor, tensor, "", False, None)
            return
        data = tensor.data_ptr()
        status = self._call(self._pointer, code, data, data, tensor.numel(), shape[0], None, None)
        if status:
            self._begun(status, False, (tensor,))

    def broadcast(self, tensor: torch.Tensor, root: int, *, name: str = "", asynchronous: bool = False) -> int:
        return self._submit(_KIND["broadcast"] | self._root(root), tensor, tensor, name, asynchronous, None)

    def allgather(
        self, output: torch.Tensor, tensor: torch.Tensor, *, name: str = "", asynchronous: bool = False
    ) -> int:
        self._refuse_other_sizes("allgather", output, self.size * tensor.numel())
        return self._submit(_KIND["allgather"], tensor, output, name, asynchronous, None)

    def alltoall(
        self, output: torch.Tensor, tensor: torch.Tensor, *, name: str = "", asynchronous: bool = False
    ) -> int:
        self._refuse_other_sizes("alltoall", output, tensor.numel() // self.size * self.size)
        self._refuse_other_sizes("alltoall", tensor, output.numel())
        return self._submit(_KIND["alltoall"], tensor, output, name, asynchronous, None)

    def gather(
        self,
        output: torch.Tensor | None,
        tensor: torch.Tensor,
        root: int,
        *,
        name: str = "",
        asynchronous: bool = False,
    ) -> int:
        if self.rank == root:
            self._refuse_other_sizes("gather", output, self.size * tensor.numel())
        return self._submit(_KIND["gather"] | self._root(root), tensor, output, name, asynchronous, None)

    def scatter(
        self,
        output: torch.Tensor,
        tensor: torch.Tensor | None,
        root: int,
        *,
        name: str = "",
        asynchronous: bool = False,
    ) -> int:
        if self.rank == root:
            self._refuse_other_sizes("scatter", tensor, self.size * output.numel())
        code = _KIND["scatter"] | self._root(root)
        return self._submit(code, tensor, output, name, asynchronous, None, described=output)

    def barrier(self, *, name: str = "", asynchronous: bool = False) -> int:
        code = _KIND["barrier"] | (_ASYNCHRONOUS if asynchronous else 0)
        ticket = self._call(self._pointer, code, None, None, 0, _NO_SHAPE, _name(name), None)
        return self._begun(ticket, asynchronous, ())

    def allgather_ragged(self, tensor: torch.Tensor, *, name: str = "", asynchronous: bool = True) -> int:
        ticket = self._submit(_KIND["allgather_ragged"], tensor, None, name, True, None)
        self._expect(ticket, tensor)
        if not asynchronous:
            self.wait(ticket)
        return ticket

    def alltoall_ragged(
        self, tensor: torch.Tensor, splits: Sequence[int], *, name: str = "", asynchronous: bool = True
    ) -> int:
        refuse_splits(name, splits, tensor, self.size, self._where)
        array = (ctypes.c_int64 * self.size)(*splits)
        more = c.Extras(1.0, 1.0, ctypes.addressof(array))
        ticket = self._submit(_KIND["alltoall_ragged"], tensor, None, name, True, ctypes.byref(more))
        self._expect(ticket, tensor)
        if not asynchronous:
            self.wait(ticket)
        return ticket

    def _expect(self, ticket: int, tensor: torch.Tensor) -> None:
        self._ragged[ticket] = (tensor.dtype, tuple(tensor.shape[1:]))
        while len(self._ragged) > c.RING:  # nobody came for them; C has forgotten them too
            del self._ragged[next(iter(self._ragged))]

    def take(self, ticket: int) -> tuple[torch.Tensor, list[int]]:
        self.wait(ticket)
        dtype, rest = self._ragged.pop(ticket, (torch.uint8, ()))
        rows = (ctypes.c_int64 * self.size)()
        address = self._c.ph_take(self._pointer, ticket, rows)
        shape = (sum(rows), *rest)
        if address is None:
            raise CollectiveError("the result of a ragged operation was fetched too late, or twice", where=self._where)
        if not torch.Size(shape).numel():
            self._c.ph_free(address)
            return torch.empty(shape, dtype=dtype), list(rows)
        memory = (ctypes.c_char * (torch.Size(shape).numel() * dtype.itemsize)).from_address(address)
        weakref.finalize(memory, self._c.ph_free, address)
        return torch.frombuffer(memory, dtype=dtype).view(shape), list(rows)

    def join(self) -> int:
        ticket = self._call(self._pointer, _KIND["join"] | _ASYNCHRONOUS, None, None, 0, _NO_SHAPE, None, None)
        self.wait(self._begun(ticket, True, ()))
        rows = (ctypes.c_int64 * self.size)()
        self._c.ph_take(self._pointer, ticket, rows)
        return rows[0]

    def _submit(
        self,
        code: int,
        tensor: torch.Tensor | None,
        output: torch.Tensor | None,
        name: str,
        asynchronous: bool,
        more: object,
        described: torch.Tensor | None = None,
    ) -> int:
        what = described if described is not None else tensor
        assert what is not None
        number = self._number(code, name, what.dtype, (tensor, output))
        shape = self._shape(what.shape)
        ticket = self._call(
            self._pointer,
            code | number | (_ASYNCHRONOUS if asynchronous else 0),
            tensor.data_ptr() if tensor is not None else None,
            output.data_ptr() if output is not None else None,
            what.numel(),
            shape[0],
            _name(name),
            more,
        )
        return self._begun(ticket, asynchronous, (tensor, output)) if ticket else 0

    def _number(self, code: int, name: str, dtype: torch.dtype, tensors: Sequence[torch.Tensor | None]) -> int:
        """Of the dtype that all `tensors` must have. Raises CollectiveError for those that will not do."""
        number = _DTYPE.get(dtype, -1)
        if number < 0 and code & 0xFF not in _REDUCTIONS and dtype.itemsize == 1:
            number = _DTYPE[torch.uint8]  # bytes are moved as they are
        for tensor in tensors:
            if tensor is None or (number >= 0 and tensor.is_cpu and tensor.is_contiguous() and tensor.dtype == dtype):
                continue
            raise unfit(f"{c.KINDS[code & 0xFF]} {name}".strip(), tensor, dtype, self._where)
        return number

    def _root(self, root: int) -> int:
        if not 0 <= root < self.size:
            raise CollectiveError(f"there is no rank {root} in a group of {self.size}", where=self._where)
        return root << 24

    def _refuse_other_sizes(self, kind: str, tensor: torch.Tensor | None, elements: int) -> None:
        if tensor is None or tensor.numel() != elements:
            given = "no tensor" if tensor is None else f"one of {list(tensor.shape)}"
            raise CollectiveError(
                f"{kind} over {self.size} ranks needs a tensor of {elements} elements here, not {given}",
                where=self._where,
                remedy="give the other tensor, or this one, another size",
            )

    def _shape(self, shape: torch.Size) -> tuple[int, object]:
        """Address of the number of dimensions and the dimensions, and what keeps it valid; made once a shape."""
        known = self._shapes.get(shape)
        if known is None:
            if len(self._shapes) >= 4096:
                self._shapes.clear()
            most = c.DIMENSIONS - 1  # the rest counts as one
            kept = shape if len(shape) <= most else (*shape[:most], math.prod(shape[most:]))
            array = (ctypes.c_int64 * (1 + len(kept)))(len(kept), *kept)
            known = self._shapes[shape] = (ctypes.addressof(array), array)
        return known

    def _begun(self, ticket: int, asynchronous: bool, held: tuple[object, ...]) -> int:
        """What C said of an operation: its failure, its ticket; 0 when it is done, as a blocking one will be."""
        if ticket < 0:
            raise self._failure()
        if ticket == 0:
            return 0
        completed = self._c.ph_completed(self._pointer)
        while self._held and self._held[0][0] <= completed:
            self._held.popleft()
        self._held.append((ticket, held))
        if asynchronous:
            return ticket
        self.wait(ticket)
        return 0

    # Waiting and ending

    def done(self, ticket: int) -> bool:
        return bool(self._c.ph_completed(self._pointer) >= ticket)

    def wait(self, ticket: int, timeout_s: float | None = None) -> None:
        if ticket == 0:
            return
        if timeout_s is None:
            while (status := self._c.ph_wait(self._pointer, ticket, -1)) > 0:
                pass  # Python hears signals in between
        else:
            status = self._c.ph_wait(self._pointer, ticket, int(timeout_s * 1e9))
        if status < 0:
            raise self._failure()
        if status:
            states = self.states()
            mine = states[self.rank]
            missing = tuple(self.names[state.rank] for state in states if state.sequence < mine.sequence)
            who = f": rank {', '.join(map(str, missing))} has not come to it" if missing else ""
            raise CollectiveTimeout(
                f"{mine.operation or 'an operation'} is not finished within {timeout_s:g} s{who}",
                missing=missing,
                where=self._where,
                remedy="see which rank is stopped or far behind; its log tells what it does",
            )

    def _failure(self) -> CollectiveError:
        error = self._error()
        if self.on_failure is not None:
            self.on_failure(error)
        return error

    def _error(self) -> CollectiveError:
        words = self._c.ph_message(self._pointer).decode(errors="replace")
        culprit = self._c.ph_culprit(self._pointer)
        gone = (self.names[culprit],) if culprit >= 0 else ()
        if words.startswith(("the ranks called different operations", "ranks that have joined")):
            return Mismatch(
                words, where=self._where, remedy="make all ranks call the same operations in the same order"
            )
        if "not finished by all ranks within" in words:
            remedy = "see which rank is stopped or far behind; its log tells what it does"
            return CollectiveTimeout(words, missing=gone, where=self._where, remedy=remedy)
        if gone:
            return PeerLost(words, ranks=gone, where=self._where)
        return CollectiveError(words, where=self._where)

    def abort(self, reason: str) -> None:
        if self._close.alive:
            self._c.ph_abort(self._pointer, f"rank {self.names[self.rank]}: {reason}".encode())

    def close(self) -> None:
        self._pointer = 0  # the C says "closed" for it
        self._close()

    # What can be told

    def records(self, after: int) -> tuple[list[Record], int]:
        room = 1024
        raw = (c.RawRecord * room)()
        found: list[Record] = []
        lost = 0
        while True:
            n = self._c.ph_records(self._pointer, after, 0, raw, room)
            if n and not found:
                lost = raw[0].ticket - after - 1
            found += [record_of(raw[i]) for i in range(n)]
            if n < room:
                return found, lost
            after = raw[n - 1].ticket

    def unfinished(self) -> list[Record]:
        raw = (c.RawRecord * 256)()
        n = self._c.ph_records(self._pointer, 0, 1, raw, 256)
        return [record_of(raw[i]) for i in range(n)]

    def states(self) -> list[RankState]:
        raw = c.RawRank()
        found = []
        for rank in range(self.size):
            self._c.ph_state(self._pointer, rank, ctypes.byref(raw))
            found.append(state_of(rank, raw))
        return found

    def say_whereabouts(self, text: str) -> None:
        if self._close.alive:
            self._c.ph_say_where(self._pointer, text.encode()[-1000:])


def _name(name: str) -> bytes | None:
    return shorten(name, c.NAME_BYTES - 1).encode() if name else None
