"""A group of processes and the operations they do together, over torch.distributed's gloo.

Every operation must be called by all members in the same order. A member that dies makes the
others' operations fail with PeerLost; nothing is retried, a new generation is formed instead.
Knows nothing of models or meshes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, PeerLost
from phalanx.collectives.membership import Membership, Register

log = logging.getLogger(__name__)

ReduceOp = Literal["sum", "max", "min"]
_OPS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}
# What gloo's transport says when the other end is gone (gloo/transport/tcp/pair.cc, buffer.cc).
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "Connection refused")
_LATE = ("Timed out", "timed out", "timeout")


class Handle:
    """An operation under way. `wait()` returns when its tensor is ready, or raises CollectiveError."""

    def __init__(self, work: dist.Work | None, explain: Callable[[RuntimeError], CollectiveError]) -> None:
        self._work = work
        self._explain = explain

    def wait(self) -> None:
        if self._work is None:
            return
        try:
            self._work.wait()
        except RuntimeError as error:
            raise self._explain(error) from error
        finally:
            self._work = None


class Group:
    """Members of one generation. Made by `join`; alone, every operation is the identity and no socket is opened."""

    def __init__(self, membership: Membership, register: Register | None) -> None:
        self.membership = membership
        self._register = register
        self._open = True
        self.rank = membership.rank
        self.size = membership.size
        self.local_rank = membership.local_rank
        self.local_size = membership.local_size
        self.generation = membership.generation

    @property
    def cross_rank(self) -> int:
        """Number of this host among the hosts (ranks of a host are consecutive)."""
        return self.rank // self.local_size

    @property
    def cross_size(self) -> int:
        """Number of hosts."""
        return self.size // self.local_size

    def allreduce(self, tensor: torch.Tensor, op: ReduceOp = "sum", name: str = "") -> Handle:
        """Replace `tensor` (contiguous, any numeric dtype, same shape on all ranks) by its reduction over the group.

        `name` is what errors call the operation. Sums in the tensor's own dtype. Cost: 2(n-1)/n of
        its bytes sent and received by each rank (ring; Patarasuk & Yuan 2009).
        """
        return self._submit(f"allreduce {name}", lambda: dist.all_reduce(tensor, _OPS[op], async_op=True))

    def broadcast(self, tensor: torch.Tensor, root: int = 0, name: str = "") -> Handle:
        """Replace `tensor` (same shape and dtype on all ranks) by that of `root`."""
        return self._submit(f"broadcast {name}", lambda: dist.broadcast(tensor, root, async_op=True))

    def allgather(self, tensor: torch.Tensor, name: str = "") -> torch.Tensor:
        """Every rank's `tensor` (same shape and dtype), stacked: shape [size, *tensor.shape]. Waits."""
        rows = [tensor.clone() for _ in range(self.size)]
        self._submit(f"allgather {name}", lambda: dist.all_gather(rows, tensor, async_op=True)).wait()
        return torch.stack(rows)

    def barrier(self, name: str = "") -> None:
        """Return when every member has called it."""
        self._submit(f"barrier {name}", lambda: dist.barrier(async_op=True)).wait()

    def abort(self, reason: str) -> None:
        """Leave because of `reason`: the others' operations fail with PeerLost that repeats it."""
        if self._register is not None and self._open:
            self._register.say_goodbye(reason)
        self.close()

    def close(self) -> None:
        """Close the connections. Other members notice only if they still wait for this one.

        gloo now and then aborts a process that ends after correct work: leave by `os._exit` after this.
        """
        if self._open and self._register is not None:
            dist.destroy_process_group()
        self._open = False

    def _submit(self, what: str, call: Callable[[], dist.Work | None]) -> Handle:
        what = what.strip()

        def explain(error: RuntimeError) -> CollectiveError:
            return self._explain(what, error)

        if not self._open:
            raise CollectiveError(f"{what}: the group is closed", where=self._where)
        if self._register is None:
            return Handle(None, explain)
        try:
            return Handle(call(), explain)
        except RuntimeError as error:
            raise explain(error) from error

    @property
    def _where(self) -> str:
        return f"rank {self.rank} of {self.size}, generation {self.generation}"

    def _explain(self, what: str, error: RuntimeError) -> CollectiveError:
        """Which of our errors gloo's message means, with the names of those who are gone."""
        text = str(error)
        assert self._register is not None
        log.debug("%s failed: %s", what, text)
        if any(phrase in text for phrase in _LOST):
            cause = self._register.lost()
            return PeerLost(f"{what}: {cause.text}", ranks=cause.ranks, where=self._where)
        if any(phrase in text for phrase in _LATE):
            self._register.say_goodbye(f"{what} was not finished by all ranks in time")
            return CollectiveTimeout(
                f"{what}: not finished by all ranks in time",
                missing=tuple(self._register.gone(patience_s=0)),
                where=self._where,
                remedy="see which rank is stopped or far behind; its log tells what it does",
            )
        return CollectiveError(f"{what}: {text.splitlines()[0]}", where=self._where)


def join(membership: Membership, *, timeout_s: float = 60.0, operation_timeout_s: float = 600.0) -> Group:
    """Form the group with the other holders of tokens of the same generation.

    `timeout_s`: for all to come; `operation_timeout_s`: for one operation, so longer than a member
    may be stopped or slow. gloo listens on the interface of GLOO_SOCKET_IFNAME, else on the one
    that the host name resolves to. One group of several members a process (torch's default group).
    Raises CollectiveTimeout naming who did not come.
    """
    if membership.size == 1:
        return Group(membership, None)
    register = Register(membership)
    register.meet(timeout_s)
    try:
        dist.init_process_group(
            "gloo",
            store=register.store,
            rank=membership.rank,
            world_size=membership.size,
            timeout=timedelta(seconds=operation_timeout_s),
        )
    except RuntimeError as error:
        raise CollectiveError(
            f"the ranks met but could not connect: {str(error).splitlines()[0]}",
            where=f"generation {membership.generation}",
            remedy="check GLOO_SOCKET_IFNAME; on one host it is lo",
        ) from error
    return Group(membership, register)
