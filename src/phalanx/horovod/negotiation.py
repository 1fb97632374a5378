"""One order for operations that every rank may issue in an order of its own.

Rank 0 is told what each rank has announced, and says what all do next: an operation is ready when every member of
its process set has announced its name. Pure: no sockets, no tensors, no clocks. What ranks mean differently fails
under its name on all of them, and nothing else is touched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from phalanx.horovod.wire import Plain

Kind = Literal["allreduce", "allgather", "broadcast", "alltoall", "reducescatter", "barrier", "add set", "remove set"]

FUSE_BELOW = 256 << 10  # bytes: where copying costs more than another operation
_BITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Request:
    """What one rank wants done. `tensors`: dtype and shape of each; more than one of a grouped operation.

    `root`: a rank of the world; `op`: sum, average, min, max, product, adasum; `members`: of a set that is added.
    """

    kind: Kind
    name: str
    process_set: int = 0
    op: str = ""
    root: int = -1
    prescale: float = 1.0
    postscale: float = 1.0
    device: str = "cpu"
    tensors: tuple[tuple[str, tuple[int, ...]], ...] = ()
    members: tuple[int, ...] = ()

    def encode(self) -> Plain:
        """Without the names of the fields, in their order."""
        tensors: list[Plain] = [[dtype, list(shape)] for dtype, shape in self.tensors]
        plain: list[Plain] = [self.kind, self.name, self.process_set, self.op, self.root]
        return [*plain, self.prescale, self.postscale, self.device, tensors, list(self.members)]

    @classmethod
    def decode(cls, fields: Plain) -> Request:
        """What `encode` made, through JSON. Raises ValueError for anything else."""
        try:
            kind, name, process_set, op, root, *scales, device, tensors, members = cast("list[Any]", fields)
            described = tuple((str(dtype), tuple(map(int, shape))) for dtype, shape in tensors)
            prescale, postscale = map(float, scales)
            known = tuple(map(int, members))
            return cls(kind, name, process_set, op, root, prescale, postscale, device, described, known)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{fields!r} is no request") from error

    @cached_property
    def nbytes(self) -> int:
        """Of this rank's tensors."""
        return sum(width(dtype) * math.prod(shape) for dtype, shape in self.tensors)

    @cached_property
    def bucket(self) -> tuple[object, ...] | None:
        """What must be the same of two that travel together; None for what travels alone."""
        if self.kind != "allreduce" or self.op == "adasum" or len(self.tensors) != 1 or self.nbytes >= FUSE_BELOW:
            return None
        return self.process_set, self.op, self.prescale, self.postscale, self.device, self.tensors[0][0]

    def described(self) -> str:
        """In words, for a message that sets it beside another rank's."""
        how = self.kind if not self.op else f"{self.kind} {self.op}"
        if self.root >= 0:
            how += f" from rank {self.root}"
        if (self.prescale, self.postscale) != (1.0, 1.0):
            how += f" scaled by {self.prescale:g} before and {self.postscale:g} after"
        if self.kind in ("add set", "remove set"):
            return f"{how} {list(self.members) or self.process_set}"
        what = ", ".join(f"{dtype}{list(shape)}" for dtype, shape in self.tensors)
        return f"{how} of {what or 'nothing'}" + (f" on {self.device}" if self.device != "cpu" else "")


@dataclass(frozen=True, slots=True)
class Run:
    """Do these, in one bucket if there are several; `requests` is given for those who have joined and must guess."""

    process_set: int
    names: tuple[str, ...]
    requests: tuple[Request, ...] = ()


@dataclass(frozen=True, slots=True)
class Fail:
    """`name` cannot be done, for the reason given."""

    process_set: int
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """All ranks have joined; `last` was the last to."""

    last: int


@dataclass(frozen=True, slots=True)
class Sets:
    """The process sets that there are from now on; `made`: the id of the one that was asked for, -1 for none new."""

    ranks: dict[int, tuple[int, ...]]
    name: str
    made: int = -1


@dataclass(frozen=True, slots=True)
class End:
    """No more operations. `lost`: the rank that is gone, -1 when one left in peace."""

    reason: str
    lost: int = -1


Response = Run | Fail | Joined | Sets | End


class Negotiation:
    """Of a world of `size` ranks. `fuse_bytes`: how much goes into one bucket, 0 for no buckets."""

    def __init__(self, size: int, fuse_bytes: int = 64 << 20) -> None:
        self.sets: dict[int, tuple[int, ...]] = {0: tuple(range(size))}
        self._next_set = 1
        self._fuse_bytes = fuse_bytes
        self._pending: dict[tuple[int, str], dict[int, Request]] = {}
        self._joined: list[int] = []
        self._ready: list[Response] = []

    def announce(self, rank: int, request: Request) -> None:
        """`rank` is ready to do `request`."""
        key = request.process_set, request.name
        if request.process_set not in self.sets:
            # A slower rank may announce for a set that the others have removed: it must not wait for ever.
            self._ready.append(Fail(*key, f"{request.name}: there is no process set {request.process_set}"))
            return
        requests = self._pending.get(key)
        if requests is None:
            requests = self._pending[key] = {}
        requests[rank] = request
        if len(requests) + len(self._joined) >= len(self.sets[request.process_set]):
            self._look_at(key)

    def join(self, rank: int) -> None:
        """`rank` has no more data: what others announce is done with zeros of it, until all have joined."""
        self._joined.append(rank)
        if len(self._joined) == len(self.sets[0]):
            last = self._joined[-1]
            self._joined.clear()
            self._ready.append(Joined(last))
            return
        for key in list(self._pending):
            self._look_at(key)

    def waiting(self) -> dict[str, tuple[list[int], list[int]]]:
        """What some have announced, as it is `shown`: who has, and who has not."""
        found = {}
        for (process_set, name), requests in self._pending.items():
            missing = [rank for rank in self.sets[process_set] if rank not in requests]
            found[shown(process_set, name)] = (sorted(requests), [rank for rank in missing if rank not in self._joined])
        return found

    def take(self) -> list[Response]:
        """What became ready since the last time, small reductions of a kind in one bucket."""
        ready, self._ready = self._ready, []
        if self._fuse_bytes <= 0 or len(ready) < 2:
            return ready
        fused: list[Response | list[Request]] = []
        open_: dict[object, tuple[list[Request], int]] = {}  # by kind of bucket: the last one's requests, their bytes
        for response in ready:
            bucket = response.requests[0].bucket if isinstance(response, Run) else None
            if not isinstance(response, Run) or bucket is None:
                fused.append(response)
                if not isinstance(response, Run):
                    open_.clear()  # nothing is moved past what changes the sets or the members
                continue
            request = response.requests[0]
            requests, size = open_.get(bucket, ([], self._fuse_bytes))
            if size + request.nbytes > self._fuse_bytes:
                requests, size = [], 0
                fused.append(requests)
            requests.append(request)
            open_[bucket] = requests, size + request.nbytes
        return [_together(item) if isinstance(item, list) else item for item in fused]

    def is_joined(self, process_set: int) -> bool:
        """Whether a member of the set must guess what the others do."""
        return bool(self._joined) and not set(self._joined).isdisjoint(self.sets[process_set])

    def _look_at(self, key: tuple[int, str]) -> None:
        """Is it complete now?"""
        process_set, name = key
        requests, members = self._pending[key], self.sets[process_set]
        missing = [rank for rank in members if rank not in requests] if len(requests) < len(members) else []
        if any(rank not in self._joined for rank in missing):
            return
        del self._pending[key]
        wrong = disagreement(name, requests) or _no_zeros(name, requests, missing)
        if wrong:
            self._ready.append(Fail(process_set, name, wrong))
            return
        request = next(iter(requests.values()))
        if request.kind == "add set":
            self._ready.append(self._add(name, request.members))
        elif request.kind == "remove set":
            self._remove(name, request.members[0])
        else:
            self._ready.append(Run(process_set, (name,), (request,)))

    def _remove(self, name: str, number: int) -> None:
        made = -1
        if number and self.sets.pop(number, ()):
            made = number
        for key in [key for key in self._pending if key[0] not in self.sets]:
            del self._pending[key]
            self._ready.append(Fail(*key, f"{key[1]}: its process set {number} was removed meanwhile"))
        self._ready.append(Sets(dict(self.sets), name, made))

    def _add(self, name: str, members: tuple[int, ...]) -> Response:
        if members in self.sets.values():
            return Sets(dict(self.sets), name)
        made, self._next_set = self._next_set, self._next_set + 1
        self.sets[made] = members
        return Sets(dict(self.sets), name, made)


def disagreement(name: str, requests: dict[int, Request]) -> str:
    """What the ranks mean differently by `name`, in words; "" when they mean the same."""
    first = next(iter(requests.values()))
    if first.kind == "allreduce" and all(request is first for request in requests.values()):
        return ""
    comparable = {rank: _comparable(request) for rank, request in requests.items()}
    if len(set(comparable.values())) == 1:
        scalar = any(not shape for _, shape in first.tensors)
        if scalar and first.kind in ("allgather", "alltoall", "reducescatter"):
            return f"{name}: a tensor without dimensions has no rows; give it one with tensor.reshape(1)"
        return ""
    said: dict[str, list[int]] = {}
    for rank in sorted(requests):
        said.setdefault(requests[rank].described(), []).append(rank)
    each = "; ".join(f"rank {_ranks(ranks)}: {words}" for words, ranks in said.items())
    return f"{name}: the ranks do not mean the same ({each})"


def shown(process_set: int, name: str) -> str:
    """What people are shown, who look at all sets at once: in each, a name may be in flight."""
    return f"{name} of process set {process_set}" if process_set else name


def width(dtype: str) -> int:
    """Bytes of an element, by torch's name: float32, complex64, float8_e4m3fn, bool."""
    bits = _BITS.search(dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1


def _comparable(request: Request) -> object:
    """What must be the same on all ranks: of gathered tensors the first dimension need not."""
    if request.kind not in ("allgather", "alltoall"):
        return request
    rows_left_out = tuple((dtype, len(shape), shape[1:]) for dtype, shape in request.tensors)
    return request.kind, request.device, rows_left_out


def _no_zeros(name: str, requests: dict[int, Request], joined: Sequence[int]) -> str:
    """Why it cannot be done with zeros of those who have joined; "" when it can, or nobody has."""
    request = next(iter(requests.values()))
    if not joined or request.kind == "barrier" or (request.kind == "allreduce" and request.op != "adasum"):
        return ""
    return f"{name}: {request.kind} {request.op}".rstrip() + f" cannot be done while rank {_ranks(joined)} has joined"


def _together(requests: list[Request]) -> Run:
    return Run(requests[0].process_set, tuple(request.name for request in requests), tuple(requests))


def _ranks(ranks: Iterable[int]) -> str:
    return ", ".join(map(str, ranks))
