"""What every transport does, and what it tells about itself.

A transport moves tensors among its ranks and knows nothing of hosts, process sets or models. All
ranks submit the same operations in the same order; each operation begins when every rank has
arrived with the same one, so a mismatch is seen before any data moves and raises on every rank.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from phalanx.collectives.errors import CollectiveError

ReduceOp = Literal["sum", "average", "min", "max", "product"]


@dataclass(frozen=True, slots=True)
class Record:
    """One operation of this rank, for the timeline and the flight recorder. Times: ns since the epoch; 0: not yet."""

    sequence: int  # counts this transport's operations from 1
    kind: str  # "allreduce", "allgather", "allgather_ragged", ...
    name: str  # the caller's name for the tensor; ""
    op: str  # reduction; "" where there is none
    dtype: str  # "float32", ...; "" for a barrier
    shape: tuple[int, ...]
    bytes: int  # of this rank's input
    submitted_ns: int
    arrived_ns: int  # this rank got to it (its turn in the queue)
    started_ns: int  # all ranks had arrived: started - arrived is waiting for others
    finished_ns: int


@dataclass(frozen=True, slots=True)
class RankState:
    """What is known of one rank from shared knowledge alone: works while that rank is stopped or spins."""

    rank: int
    pid: int
    sequence: int  # newest operation it has arrived at; 0: none
    operation: str  # that operation in words: "allreduce sum float32[1024] 'grad.a'"; ""
    inside: bool  # it has not finished that operation
    alive: bool
    whereabouts: str  # where its Python stood when it last said so: innermost frame last; ""
    whereabouts_age_s: float
    here: bool = True  # on this host, so that /proc/<pid> is that process


class Transport(ABC):
    """Ranks 0..size-1. Every operation returns a ticket: 0 when it has completed, as it has unless `asynchronous`.

    Tensors are contiguous and are kept alive until their operation is done. An output may be its
    input. `prescale` multiplies every input before, `postscale` the result after the reduction.
    Reductions are done in rank order, ((r0 + r1) + r2) + ..., float16, bfloat16 and float8 in
    float32 with one rounding at the end; "average" divides the sum by `size` (integers: towards zero).
    Errors: PeerLost, CollectiveTimeout, Mismatch, CollectiveError; after any the transport is dead.
    """

    rank: int
    size: int
    on_failure: Callable[[CollectiveError], None] | None = None  # is told the first error before that is raised

    @abstractmethod
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
        """`output` (default: `tensor` itself) becomes the reduction over all ranks."""

    @abstractmethod
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
        """`tensor` of `root` becomes the reduction; the others' keep their value."""

    @abstractmethod
    def broadcast(self, tensor: torch.Tensor, root: int, *, name: str = "", asynchronous: bool = False) -> int:
        """`tensor` becomes that of `root`."""

    @abstractmethod
    def allgather(
        self, output: torch.Tensor, tensor: torch.Tensor, *, name: str = "", asynchronous: bool = False
    ) -> int:
        """`output`, size x numel elements, becomes every rank's `tensor` (same shape on all) in rank order."""

    @abstractmethod
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
        """`output` becomes this rank's piece of the reduction of `tensor`; `counts`: elements of each rank's piece,
        the same on all ranks, default numel / size each."""

    @abstractmethod
    def alltoall(
        self, output: torch.Tensor, tensor: torch.Tensor, *, name: str = "", asynchronous: bool = False
    ) -> int:
        """Piece r of `tensor` (size equal pieces) goes to rank r; `output` gets them in rank order."""

    @abstractmethod
    def gather(
        self,
        output: torch.Tensor | None,
        tensor: torch.Tensor,
        root: int,
        *,
        name: str = "",
        asynchronous: bool = False,
    ) -> int:
        """`output` of `root` (None elsewhere) becomes every rank's `tensor` in rank order."""

    @abstractmethod
    def scatter(
        self,
        output: torch.Tensor,
        tensor: torch.Tensor | None,
        root: int,
        *,
        name: str = "",
        asynchronous: bool = False,
    ) -> int:
        """`output` of rank r becomes piece r of `tensor` of `root` (None elsewhere)."""

    @abstractmethod
    def barrier(self, *, name: str = "", asynchronous: bool = False) -> int:
        """Done when every rank has arrived."""

    @abstractmethod
    def allgather_ragged(self, tensor: torch.Tensor, *, name: str = "", asynchronous: bool = True) -> int:
        """Gather along the first dimension, which may differ by rank (also 0); the other dimensions must agree.

        The result does not exist before the others have said their sizes: fetch it with `take`.
        """

    @abstractmethod
    def alltoall_ragged(
        self, tensor: torch.Tensor, splits: Sequence[int], *, name: str = "", asynchronous: bool = True
    ) -> int:
        """Send `splits[r]` rows (first dimension) of `tensor` to rank r; fetch what came with `take`."""

    @abstractmethod
    def take(self, ticket: int) -> tuple[torch.Tensor, list[int]]:
        """Wait for a ragged operation (once); its result and the number of rows that came from each rank."""

    @abstractmethod
    def join(self) -> int:
        """This rank has no more data: take part in the others' operations until all have joined; the last that did.

        It counts as zeros in sums and averages (which still divide by `size`), not at all in other reductions, and
        has no rows (allgather_ragged). Operations other than these and barriers raise Mismatch.
        """

    @abstractmethod
    def done(self, ticket: int) -> bool:
        """Whether the operation has finished, well or badly. Never blocks."""

    @abstractmethod
    def wait(self, ticket: int, timeout_s: float | None = None) -> None:
        """Return when the operation has finished. Raises its error; CollectiveTimeout after `timeout_s`."""

    @abstractmethod
    def abort(self, reason: str) -> None:
        """Leave because of `reason`: the others' operations fail with PeerLost that repeats it."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back. Idempotent. Others who still wait for this rank get PeerLost."""

    @abstractmethod
    def records(self, after: int) -> tuple[list[Record], int]:
        """Operations with `sequence > after` that have finished, oldest first; and how many were lost before them."""

    @abstractmethod
    def unfinished(self) -> list[Record]:
        """Operations of this rank that were submitted and have not finished, oldest first."""

    @abstractmethod
    def states(self) -> list[RankState]:
        """One a rank, in rank order."""

    @abstractmethod
    def say_whereabouts(self, text: str) -> None:
        """Publish where this rank's Python stands (kept: the last 1,000 bytes), for `states` of the others."""


def shorten(name: str, most_bytes: int) -> str:
    """`name` in at most `most_bytes` of UTF-8 (16 or more). Of a longer one the end becomes a digest: what differs
    still does."""
    text = name.encode()
    if len(text) <= most_bytes:
        return name
    digest = hashlib.blake2b(text, digest_size=4).hexdigest()
    return f"{text[: most_bytes - 9].decode(errors='ignore')}~{digest}"


def refuse_splits(name: str, splits: Sequence[int], tensor: torch.Tensor, size: int, where: str) -> None:
    """Raise CollectiveError unless `splits` divide the rows of `tensor` among `size` ranks."""
    rows = tensor.shape[0] if tensor.ndim else -1
    if len(splits) != size or sum(splits) != rows or min(splits) < 0:
        what = f"alltoall {name}".strip()
        raise CollectiveError(
            f"{what}: splits {list(splits)} do not divide {list(tensor.shape)} among {size} ranks",
            where=where,
            remedy=f"give {size} numbers that add up to the first dimension",
        )


def unfit(what: str, tensor: torch.Tensor, dtype: torch.dtype, where: str) -> CollectiveError:
    """Why the shared memory of a host cannot take this tensor for an operation on `dtype`."""
    if not tensor.is_cpu:
        return CollectiveError(
            f"{what}: the tensor is on {tensor.device}, and this group shares the memory of the host",
            where=where,
            remedy="move it to the CPU, or set PHALANX_TRANSPORT=gloo, where tensors of a GPU go to NCCL",
        )
    if tensor.dtype != dtype:
        return CollectiveError(f"{what}: one tensor is {dtype}, the other {tensor.dtype}", where=where)
    if not tensor.is_contiguous():
        return CollectiveError(f"{what}: the tensor is not contiguous", where=where)
    return CollectiveError(
        f"{what}: {dtype} is a type that nothing can be computed in",
        where=where,
        remedy="view it as torch.uint8 to move it, or convert it to add it up",
    )
