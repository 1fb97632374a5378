"""The transport between hosts: torch.distributed's own connections, under our operations.

On gloo, ranks only exchange bytes; what they add up, they add up themselves (`combine`), so that every dtype works
and the order of sums is the documented one: rank order. Two exchanges a large reduction, 2(n-1)/n of its bytes sent
and received by each rank (as a ring's; Patarasuk & Yuan 2009); one exchange a small one, or one of two ranks. What is
large goes in segments, one summed while others are on the wire. Every operation begins with an exchange of headers,
one round trip: see `checked`. Tensors of a GPU are NCCL's (`nccl`), after headers over gloo. Knows nothing of hosts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.fusion import divided
from phalanx.collectives.transports.checked import Checked, as_bytes
from phalanx.collectives.transports.gloo import Gloo, Moves
from phalanx.collectives.transports.header import HEADER_BYTES, Header
from phalanx.collectives.transports.nccl import Nccl, on_stream_of_caller
from phalanx.collectives.transports.ordered import Call, Gathered
from phalanx.collectives.transports.peers import Peers
from phalanx.collectives.transports.reduction import combine
from phalanx.collectives.transports.transport import RankState

_DONE = object()  # of a part that has no more steps
SMALL = 64 << 10  # bytes that a rank may send in excess if that saves a move: see `at_once`
SEGMENT = 1 << 20  # bytes of an allreduce in one move: several are under way, and buffers are used again


class Torch(Checked):
    """All ranks of `store`; making one is collective. `names`: what the ranks are called in messages, if not 0, 1, ...
    `address`: of this host, to listen on; see `Gloo`.

    `timeout_s`: for all to come and connect; `operation_timeout_s`: for one operation.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        *,
        names: Sequence[int] | None = None,
        address: str = "",
        timeout_s: float = 60.0,
        operation_timeout_s: float = 600.0,
    ) -> None:
        combine([torch.zeros(1)], "sum", output=torch.zeros(1))  # compiles, which must not be in the first operation
        self.peers = Peers(PrefixStore("peers", store), rank, size, names)
        super().__init__(rank, size, self.peers.names)
        self._gloo = Gloo(
            store,
            rank,
            size,
            self.peers,
            address=address,
            timeout_s=timeout_s,
            operation_timeout_s=operation_timeout_s,
        )
        self.peers.learn()
        self._store = store
        self._limit_s = operation_timeout_s
        self._gpus: Nccl | None = None

    def _exchange(self, call: Call, header: Header) -> list[Header]:
        mine = header.encode()
        data = torch.frombuffer(bytearray(mine * self.size), dtype=torch.uint8)
        rows = torch.empty_like(data)
        self._gloo.alltoall(call, rows, data, [HEADER_BYTES] * self.size, [HEADER_BYTES] * self.size)
        if torch.equal(rows, data):
            return [header] * self.size
        text = rows.numpy().tobytes()
        return [Header.decode(text[at : at + HEADER_BYTES]) for at in range(0, len(text), HEADER_BYTES)]

    def _reduce_all(
        self, call: Call, output: torch.Tensor, tensor: torch.Tensor | None, how: Header, present: Sequence[int]
    ) -> None:
        if output.is_cuda:
            self._nccl().reduce_all(output, tensor, how)
            return
        into, data = output.view(-1), None if tensor is None else tensor.view(-1)
        step = SEGMENT // output.dtype.itemsize
        in_turn(
            self._reduce_part(
                call,
                into[start : start + step],
                None if data is None else data[start : start + step],
                how,
                present,
            )
            for start in range(0, into.numel(), step)
        )

    def _reduce_part(
        self, call: Call, output: torch.Tensor, tensor: torch.Tensor | None, how: Header, present: Sequence[int]
    ) -> Iterator[None]:
        """Yields while its bytes are on their way."""
        if at_once(self.size, output.nbytes):
            sizes = [output.nbytes if rank in present else 0 for rank in range(self.size)]
            gathered, moves = self._gloo.start_gather(call, as_bytes(output[:0] if tensor is None else tensor), sizes)
            yield
            self._gloo.finish(call, moves)
            combine_present([gathered[rank].view(output.dtype) for rank in present], how, self.size, output)
            return
        counts = divided(output.numel(), self.size)
        piece = torch.empty(counts[self.rank], dtype=output.dtype)
        rows, moves = self._start_pieces(call, piece, tensor, counts, present)
        yield
        self._gloo.finish(call, moves)
        if len(piece):
            combine_present(list(rows), how, self.size, piece)
        sizes = [count * piece.itemsize for count in counts]
        data = as_bytes(piece).repeat(self.size)
        moves = self._gloo.start_alltoall(call, as_bytes(output), data, sizes, [piece.nbytes] * self.size)
        yield
        self._gloo.finish(call, moves)

    def _reduce_pieces(
        self,
        call: Call,
        output: torch.Tensor,
        tensor: torch.Tensor | None,
        counts: Sequence[int],
        how: Header,
        present: Sequence[int],
    ) -> None:
        if output.is_cuda:
            self._nccl().reduce_pieces(output, tensor, counts, how)
            return
        rows, moves = self._start_pieces(call, output, tensor, counts, present)
        self._gloo.finish(call, moves)
        if counts[self.rank]:
            combine_present(list(rows), how, self.size, output)

    def _start_pieces(
        self,
        call: Call,
        output: torch.Tensor,
        tensor: torch.Tensor | None,
        counts: Sequence[int],
        present: Sequence[int],
    ) -> tuple[torch.Tensor, Moves]:
        """What will be this rank's piece of all tensors, a row each."""
        width = output.dtype.itemsize
        rows = torch.empty((len(present), counts[self.rank]), dtype=output.dtype)
        received = [counts[self.rank] * width if rank in present else 0 for rank in range(self.size)]
        sent = [0 if tensor is None else count * width for count in counts]
        data = as_bytes(rows[:0] if tensor is None else tensor)
        return rows, self._gloo.start_alltoall(call, as_bytes(rows), data, received, sent)

    def _gather_bytes(self, call: Call, sizes: Sequence[int], data: torch.Tensor) -> list[torch.Tensor]:
        if data.is_cuda:
            return list(torch.split(self._nccl().gather(sizes, data), list(sizes)))
        rows, moves = self._gloo.start_gather(call, data, sizes)
        self._gloo.finish(call, moves)
        return rows

    def _exchange_bytes(
        self, call: Call, output: torch.Tensor, data: torch.Tensor, received: Sequence[int], sent: Sequence[int]
    ) -> None:
        if data.is_cuda:
            self._nccl().alltoall(output, data, received, sent)
        else:
            self._gloo.alltoall(call, output, data, received, sent)

    def _broadcast_bytes(self, call: Call, data: torch.Tensor, root: int) -> None:
        if data.is_cuda:
            self._nccl().broadcast(data, root)
        else:
            self._gloo.broadcast(call, data, root)

    def _do(
        self,
        header: Header,
        tensor: torch.Tensor | None,
        run: Callable[[Call], Gathered | None],
        asynchronous: bool,
    ) -> int:
        if tensor is not None and tensor.is_cuda:
            run = on_stream_of_caller(tensor.device, run)
        return super()._do(header, tensor, run, asynchronous)

    def _nccl(self) -> Nccl:
        """Connected with the first tensor of a GPU, which comes to all ranks in the same operation."""
        if self._gpus is None:
            self._gpus = Nccl(self._store, self.rank, self.size, self._limit_s)
        return self._gpus

    def _give_up(self, reason: str) -> None:
        self.peers.give_up(reason)

    def _shut(self, error: CollectiveError) -> None:
        self._gloo.close()
        if self._gpus is not None:
            self._gpus.close()

    def states(self) -> list[RankState]:
        return self.peers.states()

    def say_whereabouts(self, text: str) -> None:
        self.peers.say_whereabouts(text)
        unfinished = self.unfinished()
        sequence = unfinished[0].sequence if unfinished else self._completed
        self.peers.publish(sequence, self._last.in_words(), inside=bool(unfinished))


def combine_present(rows: Sequence[torch.Tensor], how: Header, size: int, output: torch.Tensor) -> None:
    """Reduce the rows of the ranks that have data. An average is still over all: the others count as zeros."""
    assert how.op
    absent = size - len(rows) if how.op == "average" else 0
    combine(
        [*rows, *[torch.zeros_like(rows[0])] * absent],
        how.op,
        output=output,
        prescale=how.prescale,
        postscale=how.postscale,
    )


def at_once(ranks: int, size_bytes: int) -> bool:
    """Whether everybody gets everything and sums it, in one move. Of two ranks each sends as much as in two moves."""
    return (ranks - 2) * size_bytes <= SMALL


def in_turn(parts: Iterable[Iterator[None]]) -> None:
    """Run them all, a step of each after a step of the next: while bytes of one are on their way, others compute.

    The same steps in the same order on every rank, whoever is faster.
    """
    coming, begun = iter(parts), deque[Iterator[None]]()
    while True:
        begun.extendleft(islice(coming, 1))
        if not begun:
            return
        begun = deque(part for part in begun if next(part, _DONE) is not _DONE)
