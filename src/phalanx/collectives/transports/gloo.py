"""Bytes between ranks over torch.distributed's gloo: unchecked moves, and a wait that neither hangs nor blames wrongly.

gloo moves the bytes and adds nothing: it lacks dtypes, and its order of sums is its own. Every move must be called by
all ranks in the same order with sizes that fit; `checked` sees to that. Knows nothing of dtypes and operations.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

import torch
from torch.distributed import (  # type: ignore[attr-defined]
    BroadcastOptions,
    PrefixStore,
    ProcessGroupGloo,
    Store,
    Work,
)

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.ordered import Call
from phalanx.collectives.transports.peers import Peers

log = logging.getLogger(__name__)

# What gloo's transport says when the other end is gone (gloo/transport/tcp/pair.cc, buffer.cc).
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "Connection refused")
CHUNK = 1 << 20  # bytes of one move between two ranks
PATIENCE_S = 1.0  # a wait longer than this is told to the others, who might be waiting for this rank
_STILL_WAITING = "Operation timed out"  # torch/csrc/distributed/c10d/Work.cpp: the wait ended, the operation did not
_FOR_EVER = timedelta(days=7)  # gloo's own timeout: ours comes first, and knows who is missing

Moves = list[Work]


class Gloo:
    """Connections among all ranks. Tensors are flat, contiguous, uint8 and on the CPU.

    gloo listens on `address` of this host; without one, on the interface of GLOO_SOCKET_IFNAME, else on the one that
    the host name resolves to.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        peers: Peers,
        *,
        address: str = "",
        timeout_s: float,
        operation_timeout_s: float,
    ) -> None:
        self.rank = rank
        self.size = size
        self._peers = peers
        self._under_way: list[Work] = []
        self._limit_s = operation_timeout_s
        self._patience = timedelta(seconds=min(PATIENCE_S, operation_timeout_s / 4))
        options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._timeout = timedelta(seconds=timeout_s)
        try:
            if address:
                options._devices = [ProcessGroupGloo.create_device(hostname=address)]
            else:
                options._devices = [ProcessGroupGloo.create_default_device()]
            self._group: ProcessGroupGloo | None = ProcessGroupGloo(PrefixStore("gloo", store), rank, size, options)
        except RuntimeError as error:
            raise CollectiveError(
                f"the ranks met but could not connect: {str(error).splitlines()[0]}",
                where=self._where,
                remedy="check GLOO_SOCKET_IFNAME; on one host it is lo",
            ) from error
        self._group._set_default_timeout(_FOR_EVER)

    def alltoall(
        self, call: Call, output: torch.Tensor, data: torch.Tensor, received: Sequence[int], sent: Sequence[int]
    ) -> None:
        """`sent[r]` bytes of `data` go to rank r; `output` gets `received[r]` bytes of it. One step, all at once."""
        self.finish(call, self.start_alltoall(call, output, data, received, sent))

    def start_alltoall(
        self, call: Call, output: torch.Tensor, data: torch.Tensor, received: Sequence[int], sent: Sequence[int]
    ) -> Moves:
        """`alltoall`, under way until `finish`. Several may be; both tensors are left alone so long."""
        if self.size == 2:
            return self._start_pair(call, output, data, received, sent)
        return [self._start(call, lambda group: group.alltoall_base(output, data, list(received), list(sent)))]  # type: ignore[attr-defined]

    def _start_pair(
        self, call: Call, output: torch.Tensor, data: torch.Tensor, received: Sequence[int], sent: Sequence[int]
    ) -> Moves:
        """In chunks: one move of 16 MiB each way fills half of a wire of 1 Gbit/s, sixteen of 1 MiB fill it."""
        places, pieces = torch.split(output, list(received)), torch.split(data, list(sent))
        places[self.rank].copy_(pieces[self.rank])
        place, piece = places[1 - self.rank], pieces[1 - self.rank]
        moves: Moves = []
        for start in range(0, max(place.numel(), piece.numel()), CHUNK):
            into, of = place[start : start + CHUNK], piece[start : start + CHUNK]
            moves.append(self._start(call, partial(self._swap, into, of)))
        return moves

    def _swap(self, output: torch.Tensor, data: torch.Tensor, group: ProcessGroupGloo) -> Work:
        """With the other of two ranks."""
        sizes = [[0, tensor.numel()] if self.rank == 0 else [tensor.numel(), 0] for tensor in (output, data)]
        work: Work = group.alltoall_base(output, data, *sizes)  # type: ignore[attr-defined]
        return work

    def start_gather(self, call: Call, data: torch.Tensor, sizes: Sequence[int]) -> tuple[list[torch.Tensor], Moves]:
        """What all ranks' `data` (`sizes[r]` bytes of rank r) will be after `finish`; this rank's is `data` itself.

        To everybody at once: gloo's ring takes 2.6 times as long for 64 MiB (loopback, 2 and 4 ranks).
        """
        received = [0 if rank == self.rank else size for rank, size in enumerate(sizes)]
        sent = [0 if rank == self.rank else data.numel() for rank in range(self.size)]
        output = torch.empty(sum(received), dtype=torch.uint8)
        copies = data if self.size == 2 else data.repeat(self.size - 1)
        moves = self.start_alltoall(call, output, copies, received, sent)
        rows = list(torch.split(output, received))
        rows[self.rank] = data
        return rows, moves

    def broadcast(self, call: Call, data: torch.Tensor, root: int) -> None:
        """`data` becomes that of `root`. A tree: log2(size) steps."""
        options = BroadcastOptions()
        options.rootRank = root
        self.finish(call, [self._start(call, lambda group: group.broadcast([data], options))])  # type: ignore[attr-defined]

    def finish(self, call: Call, moves: Moves) -> None:
        """Wait until what was started is done."""
        for work in moves:
            self._wait(call, work)
            self._under_way.remove(work)

    def close(self) -> None:
        """Others that still wait for this rank see the connection end. Idempotent."""
        group, self._group = self._group, None
        if group is not None and not all(work.is_completed() for work in self._under_way):
            _keep_for_ever(group)

    def _start(self, call: Call, start: Callable[[ProcessGroupGloo], Work]) -> Work:
        group = self._group
        if group is None:
            raise CollectiveError(f"{call.header.in_words()}: the group is closed", where=self._where)
        try:
            work = start(group)
        except RuntimeError as error:
            raise self._explain(call, error) from error
        self._under_way.append(work)
        return work

    def _wait(self, call: Call, work: Work) -> None:
        deadline = time.monotonic() + self._limit_s
        while True:
            try:
                work.wait(self._patience)
                return
            except RuntimeError as error:
                if _STILL_WAITING not in str(error):
                    raise self._explain(call, error) from error
            self._look_around(call, late=time.monotonic() > deadline)

    def _look_around(self, call: Call, late: bool) -> None:
        """While an operation waits: say so, and end it when somebody knows that it is in vain."""
        what = call.header.in_words()
        cause = self._peers.late(call.sequence) if late else self._peers.cause()
        if cause is not None:
            raise cause.error(what, self._where)
        if self._group is None:
            raise CollectiveError(f"{what}: the group is closed", where=self._where)
        self._peers.publish(call.sequence, what, inside=True)

    def _explain(self, call: Call, error: RuntimeError) -> CollectiveError:
        what = call.header.in_words()
        log.debug("%s failed: %s", what, error)
        if any(phrase in str(error) for phrase in _LOST):
            return self._peers.lost().error(what, self._where)
        return CollectiveError(f"{what}: {str(error).splitlines()[0]}", where=self._where)

    @property
    def _where(self) -> str:
        return f"rank {self._peers.names[self._peers.rank]}"


def _keep_for_ever(group: ProcessGroupGloo) -> None:
    """Its destructor would wait for the operation that is still under way."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
