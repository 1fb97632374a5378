"""Every operation of a transport, made of a few unchecked moves: whoever has the moves gets the operations.

An operation begins with an exchange of headers among all ranks (`header`), so a mismatch raises on every rank before
data moves, and a rank that has joined learns what to take part in. The price is one small exchange an operation.
Knows nothing of connections: `torch` and `hierarchical` bring the moves.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.header import Header, describe, dtype_of, refuse_mismatch
from phalanx.collectives.transports.ordered import Call, Gathered, InOrder
from phalanx.collectives.transports.reference import refuse_meaningless
from phalanx.collectives.transports.transport import ReduceOp, refuse_splits


class Checked(InOrder):
    """`names`: what the ranks are called in messages."""

    def __init__(self, rank: int, size: int, names: Sequence[int]) -> None:
        super().__init__(rank, size)
        self._names = tuple(names)
        self._joined: set[int] = set()
        self._last_joined = -1

    # The moves. `present`: the ranks that have not joined; without `tensor`, this rank has.

    @abstractmethod
    def _exchange(self, call: Call, header: Header) -> list[Header]:
        """All ranks' headers."""

    @abstractmethod
    def _reduce_all(
        self, call: Call, output: torch.Tensor, tensor: torch.Tensor | None, how: Header, present: Sequence[int]
    ) -> None:
        """`output` becomes the reduction of all tensors."""

    @abstractmethod
    def _reduce_pieces(
        self,
        call: Call,
        output: torch.Tensor,
        tensor: torch.Tensor | None,
        counts: Sequence[int],
        how: Header,
        present: Sequence[int],
    ) -> None:
        """`output`, counts[rank] elements, becomes this rank's piece of the reduction of all tensors."""

    @abstractmethod
    def _gather_bytes(self, call: Call, sizes: Sequence[int], data: torch.Tensor) -> list[torch.Tensor]:
        """All ranks' `data` (flat uint8, `sizes[r]` of rank r); this rank's may be `data` itself."""

    @abstractmethod
    def _exchange_bytes(
        self, call: Call, output: torch.Tensor, data: torch.Tensor, received: Sequence[int], sent: Sequence[int]
    ) -> None:
        """`sent[r]` bytes of `data` go to rank r, `output` gets `received[r]` bytes from it."""

    @abstractmethod
    def _broadcast_bytes(self, call: Call, data: torch.Tensor, root: int) -> None:
        """`data` becomes that of `root`."""

    # The operations

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
        refuse_meaningless(tensor.dtype, op, prescale, postscale)
        into = tensor if output is None else output
        header = Header("allreduce", op, *describe(tensor), -1, prescale, postscale, name=name)

        def run(call: Call) -> None:
            present = _present(self._meet(call))
            self._reduce_all(call, into, tensor, header, present)

        return self._do(header, tensor, run, asynchronous)

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
        refuse_meaningless(tensor.dtype, op, prescale, postscale)
        header = Header("reduce", op, *describe(tensor), root, prescale, postscale, name=name)

        def run(call: Call) -> None:
            self._meet(call)
            counts = [tensor.numel() if rank == root else 0 for rank in range(self.size)]
            piece = tensor if self.rank == root else tensor.new_empty(0)
            self._reduce_pieces(call, piece, tensor, counts, header, range(self.size))

        return self._do(header, tensor, run, asynchronous)

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
        refuse_meaningless(tensor.dtype, op, prescale, postscale)
        digest = "" if counts is None else hashlib.sha256(repr(list(counts)).encode()).hexdigest()[:16]
        header = Header("reducescatter", op, *describe(tensor), -1, prescale, postscale, digest, name)
        pieces = self._pieces(header, tensor, output, counts)

        def run(call: Call) -> None:
            # A rank that has joined does not know the counts: those with data say them.
            headers = self._meet(call)
            if any(other.joined for other in headers):
                self._gather_counts(call, pieces)
            self._reduce_pieces(call, output, tensor, pieces, header, _present(headers))

        return self._do(header, tensor, run, asynchronous)

    def broadcast(self, tensor: torch.Tensor, root: int, *, name: str = "", asynchronous: bool = False) -> int:
        header = Header("broadcast", "", *describe(tensor), root, name=name)

        def run(call: Call) -> None:
            self._meet(call)
            self._broadcast_bytes(call, as_bytes(tensor), root)

        return self._do(header, tensor, run, asynchronous)

    def allgather(
        self, output: torch.Tensor, tensor: torch.Tensor, *, name: str = "", asynchronous: bool = False
    ) -> int:
        header = Header("allgather", "", *describe(tensor), name=name)
        self._fits(header, output, self.size * tensor.numel())

        def run(call: Call) -> None:
            self._meet(call)
            sizes = [tensor.nbytes] * self.size
            rows = self._gather_bytes(call, sizes, as_bytes(tensor))
            places = torch.split(as_bytes(output), sizes)
            others = [rank for rank in range(self.size) if rank != self.rank]
            for rank in (self.rank, *others):  # its own first: `tensor` may lie in another's place
                places[rank].copy_(rows[rank])

        return self._do(header, tensor, run, asynchronous)

    def alltoall(
        self, output: torch.Tensor, tensor: torch.Tensor, *, name: str = "", asynchronous: bool = False
    ) -> int:
        header = Header("alltoall", "", *describe(tensor), name=name)
        self._fits(header, output, tensor.numel())
        if tensor.numel() % self.size:
            raise CollectiveError(f"{header.in_words()}: not {self.size} equal pieces", where=self._where)

        def run(call: Call) -> None:
            self._meet(call)
            sizes = [tensor.nbytes // self.size] * self.size
            data = as_bytes(tensor).clone() if output.data_ptr() == tensor.data_ptr() else as_bytes(tensor)
            self._exchange_bytes(call, as_bytes(output), data, sizes, sizes)

        return self._do(header, tensor, run, asynchronous)

    def gather(
        self,
        output: torch.Tensor | None,
        tensor: torch.Tensor,
        root: int,
        *,
        name: str = "",
        asynchronous: bool = False,
    ) -> int:
        header = Header("gather", "", *describe(tensor), root, name=name)
        if self.rank == root:
            self._fits(header, output, self.size * tensor.numel())

        def run(call: Call) -> None:
            self._meet(call)
            into = (
                as_bytes(output) if output is not None and self.rank == root else tensor.new_empty(0).view(torch.uint8)
            )
            sent = [tensor.nbytes if rank == root else 0 for rank in range(self.size)]
            received = [tensor.nbytes if self.rank == root else 0] * self.size
            self._exchange_bytes(call, into, as_bytes(tensor), received, sent)

        return self._do(header, tensor, run, asynchronous)

    def scatter(
        self,
        output: torch.Tensor,
        tensor: torch.Tensor | None,
        root: int,
        *,
        name: str = "",
        asynchronous: bool = False,
    ) -> int:
        header = Header("scatter", "", *describe(output), root, name=name)
        if self.rank == root:
            self._fits(header, tensor, self.size * output.numel())

        def run(call: Call) -> None:
            self._meet(call)
            data = (
                as_bytes(tensor) if tensor is not None and self.rank == root else output.new_empty(0).view(torch.uint8)
            )
            sent = [output.nbytes if self.rank == root else 0] * self.size
            received = [output.nbytes if rank == root else 0 for rank in range(self.size)]
            self._exchange_bytes(call, as_bytes(output), data, received, sent)

        return self._do(header, output, run, asynchronous)

    def barrier(self, *, name: str = "", asynchronous: bool = False) -> int:
        return self._do(Header("barrier", name=name), None, self._only_meet, asynchronous)

    def allgather_ragged(self, tensor: torch.Tensor, *, name: str = "", asynchronous: bool = True) -> int:
        header = Header("allgather_ragged", "", *describe(tensor), name=name)
        self._has_rows(header, tensor)

        def run(call: Call) -> Gathered:
            headers = self._meet(call)
            rows = [0 if other.joined else other.shape[0] for other in headers]
            row_bytes = tensor[:0].new_empty((1, *tensor.shape[1:])).nbytes
            data = torch.cat(self._gather_bytes(call, [count * row_bytes for count in rows], as_bytes(tensor)))
            return data.view(tensor.dtype).view(sum(rows), *tensor.shape[1:]), rows

        return self._do(header, tensor, run, asynchronous)

    def alltoall_ragged(
        self, tensor: torch.Tensor, splits: Sequence[int], *, name: str = "", asynchronous: bool = True
    ) -> int:
        header = Header("alltoall_ragged", "", *describe(tensor), name=name)
        self._has_rows(header, tensor)
        refuse_splits(name, splits, tensor, self.size, self._where)

        def run(call: Call) -> Gathered:
            self._meet(call)
            mine = torch.tensor(list(splits), dtype=torch.int64)
            theirs = torch.empty_like(mine)
            self._exchange_bytes(call, as_bytes(theirs), as_bytes(mine), [8] * self.size, [8] * self.size)
            rows: list[int] = theirs.tolist()
            output = tensor.new_empty((sum(rows), *tensor.shape[1:]))
            row_bytes = tensor.new_empty((1, *tensor.shape[1:])).nbytes
            received, sent = [count * row_bytes for count in rows], [count * row_bytes for count in splits]
            self._exchange_bytes(call, as_bytes(output), as_bytes(tensor), received, sent)
            return output, rows

        return self._do(header, tensor, run, asynchronous)

    def join(self) -> int:
        """Of several that joined at the same operation, the highest rank counts as the last."""
        header = Header("join")

        def run(call: Call) -> None:
            while len(_present(headers := self._meet(call))):
                self._take_part(call, headers)
                self._count(call)

        self._do(header, None, run, asynchronous=False)
        self._joined = set()
        return self._last_joined

    def _take_part(self, call: Call, headers: Sequence[Header]) -> None:
        """In what those do who have data."""
        present = _present(headers)
        how = headers[present[0]]
        if how.kind == "barrier":
            return
        empty = torch.empty(0, dtype=dtype_of(how), device=how.device)
        if how.kind == "allgather_ragged":
            row_bytes = empty.new_empty((1, *how.shape[1:])).nbytes
            sizes = [0 if other.joined else other.shape[0] * row_bytes for other in headers]
            self._gather_bytes(call, sizes, as_bytes(empty))
        elif how.kind == "allreduce":
            self._reduce_all(call, empty.new_empty(how.shape), None, how, present)
        else:
            counts = self._gather_counts(call, None)
            self._reduce_pieces(call, empty.new_empty(counts[self.rank]), None, counts, how, present)

    def _gather_counts(self, call: Call, counts: Sequence[int] | None) -> list[int]:
        """The division of a reducescatter, to those who have joined (`counts` None) from the others."""
        mine = torch.tensor([-1] * self.size if counts is None else list(counts), dtype=torch.int64)
        rows = self._gather_bytes(call, [mine.nbytes] * self.size, as_bytes(mine))
        found: list[int] = torch.stack(rows).view(torch.int64).amax(0).tolist()
        return found

    # Before an operation

    def _meet(self, call: Call) -> list[Header]:
        """Exchange headers. Raises Mismatch on every rank if they do not agree."""
        headers = self._exchange(call, call.header)
        refuse_mismatch(headers, self._names, call.sequence)
        call.started()
        if any(header.joined for header in headers):
            joined = {rank for rank, header in enumerate(headers) if header.joined}
            self._last_joined = max(joined - self._joined, default=self._last_joined)
            self._joined = joined
        return headers

    def _only_meet(self, call: Call) -> None:
        self._meet(call)

    def _do(
        self,
        header: Header,
        tensor: torch.Tensor | None,
        run: Callable[[Call], Gathered | None],
        asynchronous: bool,
    ) -> int:
        if tensor is not None and not tensor.is_contiguous():
            raise CollectiveError(f"{header.in_words()}: the tensor is not contiguous", where=self._where)
        if tensor is not None and tensor.device.type != "cpu":
            header = replace(header, device=tensor.device.type)
        return self._submit(header, 0 if tensor is None else tensor.nbytes, run, asynchronous=asynchronous)

    def _pieces(
        self, header: Header, tensor: torch.Tensor, output: torch.Tensor, counts: Sequence[int] | None
    ) -> list[int]:
        if counts is None and tensor.numel() % self.size:
            raise CollectiveError(f"{header.in_words()}: not {self.size} equal pieces", where=self._where)
        pieces = [tensor.numel() // self.size] * self.size if counts is None else list(counts)
        if len(pieces) != self.size or sum(pieces) != tensor.numel() or min(pieces) < 0:
            raise CollectiveError(f"{header.in_words()}: counts {pieces} do not divide it", where=self._where)
        self._fits(header, output, pieces[self.rank])
        return pieces

    def _fits(self, header: Header, tensor: torch.Tensor | None, elements: int) -> None:
        if tensor is None or tensor.numel() != elements or not tensor.is_contiguous():
            has = "none" if tensor is None else str(list(tensor.shape))
            raise CollectiveError(
                f"{header.in_words()}: needs a contiguous tensor of {elements} elements, not {has}", where=self._where
            )

    def _has_rows(self, header: Header, tensor: torch.Tensor) -> None:
        if tensor.ndim == 0:
            raise CollectiveError(f"{header.in_words()}: a tensor without dimensions has no rows", where=self._where)

    @property
    def _where(self) -> str:
        return f"rank {self._names[self.rank]}"


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Its memory as flat uint8, shared. The stride of a single element may be anything, so `view` will not do."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def _present(headers: Sequence[Header]) -> list[int]:
    return [rank for rank, header in enumerate(headers) if not header.joined]
