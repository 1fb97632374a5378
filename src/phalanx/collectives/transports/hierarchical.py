"""The transport of several hosts with as many ranks each: what one host can do alone, it does in its shared memory.

    allreduce       reducescatter on the host, this rank's piece among the ranks of its number on the other
                    hosts, allgather on the host: every byte crosses the wire once a host, not once a rank
    reducescatter   on the host, then each host's sum of a piece to the rank that wants it
    allgather       among the ranks of one number on all hosts, then on the hosts
    broadcast       among the ranks of the root's number, then on the hosts

Order of sums: on each host in rank order, then hosts in order of their first rank, with one rounding to the tensor's
dtype on each level, so that 16-bit tensors cross the wire in 16 bits. An average is that of the hosts' averages
(integers: of the sum). Other operations, and all while a rank has joined, go over all ranks' own connections, where
sums are in rank order. Every operation begins with an exchange of headers, on the host and then between hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, PeerLost
from phalanx.collectives.fusion import divided
from phalanx.collectives.transports.checked import as_bytes
from phalanx.collectives.transports.gloo import Gloo, Moves
from phalanx.collectives.transports.header import HEADER_BYTES, Header
from phalanx.collectives.transports.ordered import Call
from phalanx.collectives.transports.torch import SMALL, Torch, at_once, combine_present, in_turn
from phalanx.collectives.transports.transport import Transport

SEGMENT = 128 << 10  # bytes of a rank's piece for each host in one move: several are under way


class Hierarchical(Torch):
    """`local`: of the ranks of this host, in order; `hosts`: the ranks of each. All else as `Torch` of all ranks."""

    def __init__(
        self,
        local: Transport,
        store: Store,
        rank: int,
        hosts: Sequence[Sequence[int]],
        *,
        names: Sequence[int] | None = None,
        address: str = "",
        timeout_s: float = 60.0,
        operation_timeout_s: float = 600.0,
    ) -> None:
        self._local = local
        self._hosts = [list(ranks) for ranks in hosts]
        self._host = next(number for number, ranks in enumerate(self._hosts) if rank in ranks)
        self._order = [rank for ranks in self._hosts for rank in ranks]  # of headers: host by host
        super().__init__(
            PrefixStore("all", store),
            rank,
            len(self._order),
            names=names,
            address=address,
            timeout_s=timeout_s,
            operation_timeout_s=operation_timeout_s,
        )
        self._cross = Gloo(  # the ranks of this number on each host
            PrefixStore(f"across-{local.rank}", store),
            self._host,
            len(self._hosts),
            self.peers,
            address=address,
            timeout_s=timeout_s,
            operation_timeout_s=operation_timeout_s,
        )

    def _exchange(self, call: Call, header: Header) -> list[Header]:
        mine = torch.frombuffer(bytearray(header.encode()), dtype=torch.uint8)
        here = torch.empty(self._local.size * HEADER_BYTES, dtype=torch.uint8)
        self._on_host(call, lambda: self._local.allgather(here, mine))
        everywhere = self._gather_across(call, [here.numel()] * len(self._hosts), here)
        if torch.equal(everywhere, mine.repeat(self.size)):
            return [header] * self.size
        text = everywhere.numpy().tobytes()
        found = [Header.decode(text[at : at + HEADER_BYTES]) for at in range(0, len(text), HEADER_BYTES)]
        return [found[self._order.index(rank)] for rank in range(self.size)]

    def _reduce_all(
        self, call: Call, output: torch.Tensor, tensor: torch.Tensor | None, how: Header, present: Sequence[int]
    ) -> None:
        if tensor is None or tensor.is_cuda or len(present) < self.size:
            super()._reduce_all(call, output, tensor, how, present)
            return
        on_host, across = _levels(how, tensor)
        data, into = tensor.view(-1), output.view(-1)
        if len(self._hosts) * tensor.nbytes <= SMALL:
            sums = torch.empty_like(data)
            self._on_host(call, lambda: self._reduce_on_host(sums, data, on_host))
            in_turn([self._reduce_across(call, into, sums, across)])
            return
        step = SEGMENT * self.size // data.itemsize
        in_turn(
            self._reduce_on_levels(call, into[start : start + step], data[start : start + step], on_host, across)
            for start in range(0, data.numel(), step)
        )

    def _reduce_on_levels(
        self, call: Call, output: torch.Tensor, tensor: torch.Tensor, on_host: Header, across: Header
    ) -> Iterator[None]:
        """Yields while its bytes are on their way to other hosts."""
        counts = divided(tensor.numel(), self._local.size)
        piece = torch.empty(counts[self._local.rank], dtype=tensor.dtype)
        self._scatter_on_host(call, piece, tensor, counts, on_host)
        yield from self._reduce_across(call, piece, piece, across)
        self._on_host(call, lambda: self._gather_on_host(output, piece, counts))

    def _reduce_pieces(
        self,
        call: Call,
        output: torch.Tensor,
        tensor: torch.Tensor | None,
        counts: Sequence[int],
        how: Header,
        present: Sequence[int],
    ) -> None:
        if tensor is None or tensor.is_cuda or len(present) < self.size:
            super()._reduce_pieces(call, output, tensor, counts, how, present)
            return
        on_host, across = _levels(how, tensor)
        pieces = torch.split(tensor.view(-1), list(counts))
        columns = [[ranks[number] for ranks in self._hosts] for number in range(self._local.size)]
        data = torch.cat([pieces[rank] for column in columns for rank in column])
        per_rank = [sum(counts[rank] for rank in column) for column in columns]
        sums = torch.empty(per_rank[self._local.rank], dtype=tensor.dtype)
        self._scatter_on_host(call, sums, data, per_rank, on_host)
        wanted = [counts[rank] for rank in columns[self._local.rank]]
        rows, moves = self._start_pieces_across(call, sums, wanted)
        self._cross.finish(call, moves)
        if output.numel():
            self._combine(rows, across, output.view(-1))

    def _gather_bytes(self, call: Call, sizes: Sequence[int], data: torch.Tensor) -> list[torch.Tensor]:
        if data.is_cuda:
            return super()._gather_bytes(call, sizes, data)
        column = self._gather_across(call, [sizes[ranks[self._local.rank]] for ranks in self._hosts], data)
        ticket = 0

        def gather() -> int:
            nonlocal ticket
            ticket = self._local.allgather_ragged(column, asynchronous=False)
            return ticket

        self._on_host(call, gather)
        by_column, _ = self._local.take(ticket)
        order = [ranks[number] for number in range(self._local.size) for ranks in self._hosts]
        parts = torch.split(by_column, [sizes[rank] for rank in order])
        return [parts[order.index(rank)] for rank in range(self.size)]

    def _broadcast_bytes(self, call: Call, data: torch.Tensor, root: int) -> None:
        if data.is_cuda:
            super()._broadcast_bytes(call, data, root)
            return
        host = next(number for number, ranks in enumerate(self._hosts) if root in ranks)
        number = self._hosts[host].index(root)
        if self._local.rank == number:
            self._cross.broadcast(call, data, host)
        self._on_host(call, lambda: self._local.broadcast(data, number))

    # Steps

    def _reduce_on_host(self, output: torch.Tensor, tensor: torch.Tensor, how: Header) -> int:
        return self._local.allreduce(tensor, how.op or "sum", output=output, prescale=how.prescale)

    def _scatter_on_host(
        self, call: Call, output: torch.Tensor, tensor: torch.Tensor, counts: Sequence[int], how: Header
    ) -> None:
        def scatter() -> int:
            op = how.op or "sum"
            return self._local.reducescatter(output, tensor, op, counts=counts, prescale=how.prescale)

        self._on_host(call, scatter)

    def _gather_on_host(self, output: torch.Tensor, piece: torch.Tensor, counts: Sequence[int]) -> int:
        if len(set(counts)) == 1:
            return self._local.allgather(output, piece)
        ticket = self._local.allgather_ragged(piece, asynchronous=False)
        output.copy_(self._local.take(ticket)[0])
        return 0

    def _reduce_across(self, call: Call, output: torch.Tensor, piece: torch.Tensor, how: Header) -> Iterator[None]:
        """The reduction of the same piece of all hosts; `output` may be `piece`."""
        if at_once(len(self._hosts), piece.nbytes):
            rows, moves = self._cross.start_gather(call, as_bytes(piece), [piece.nbytes] * len(self._hosts))
            yield
            self._cross.finish(call, moves)
            self._combine([row.view(piece.dtype) for row in rows], how, output)
            return
        counts = divided(piece.numel(), len(self._hosts))
        sums, moves = self._start_pieces_across(call, piece, counts)
        yield
        self._cross.finish(call, moves)
        part = torch.empty(counts[self._host], dtype=piece.dtype)
        if part.numel():
            self._combine(sums, how, part)
        sizes = [elements * piece.itemsize for elements in counts]
        rows, moves = self._cross.start_gather(call, as_bytes(part), sizes)
        yield
        self._cross.finish(call, moves)
        torch.cat(rows, out=as_bytes(output))

    def _start_pieces_across(
        self, call: Call, sums: torch.Tensor, counts: Sequence[int]
    ) -> tuple[list[torch.Tensor], Moves]:
        """Of `sums`, `counts[h]` elements go to host h; those that come, a row each."""
        hosts, own = len(self._hosts), counts[self._host]
        rows = torch.empty((hosts, own), dtype=sums.dtype)
        sent = [elements * sums.itemsize for elements in counts]
        received = [own * sums.itemsize] * hosts
        moves = self._cross.start_alltoall(call, as_bytes(rows), as_bytes(sums), received, sent)
        return list(rows), moves

    def _combine(self, rows: Sequence[torch.Tensor], how: Header, output: torch.Tensor) -> None:
        if how.op == "average" and not (output.is_floating_point() or output.is_complex()):
            total = torch.empty_like(output)
            combine_present(rows, replace(how, op="sum", postscale=1.0), len(rows), total)
            combine_present([total], how, self.size, output)
        else:
            combine_present(rows, how, len(rows), output)

    def _gather_across(self, call: Call, sizes: Sequence[int], data: torch.Tensor) -> torch.Tensor:
        rows, moves = self._cross.start_gather(call, data, sizes)
        self._cross.finish(call, moves)
        return torch.cat(rows)

    def _on_host(self, call: Call, operation: Callable[[], int]) -> None:
        """An operation of this host's ranks; what breaks it is said in the words that all hosts hear."""
        try:
            operation()
        except (PeerLost, CollectiveTimeout) as error:
            late = isinstance(error, CollectiveTimeout)
            cause = self.peers.late(call.sequence) if late else self.peers.lost()
            raise cause.error(call.header.in_words(), self._where) from error

    def _shut(self, error: CollectiveError) -> None:
        if not self._closed:  # those who still read the last result of this host must not be told that it broke
            self._local.abort(error.message)
        super()._shut(error)
        self._cross.close()

    def close(self) -> None:
        super().close()
        self._local.close()


def _levels(how: Header, tensor: torch.Tensor) -> tuple[Header, Header]:
    """What is done on the hosts, and what with their results."""
    whole = how.op == "average" and not (tensor.is_floating_point() or tensor.is_complex())
    return replace(how, op="sum" if whole else how.op, postscale=1.0), replace(how, prescale=1.0)
