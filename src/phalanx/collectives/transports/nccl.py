"""Moves and sums of tensors on GPUs: NCCL's own, which has its own order of sums and its own dtypes.

Called once the headers have agreed, so a mismatch never reaches NCCL. A rank that has joined adds zeros. An operation
is done when the GPU has done it: it runs on the stream of its caller, and the ticket ends after that stream.
A peer that dies inside an operation is noticed by NCCL's watchdog, after the operation's timeout, and not named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.header import Header
from phalanx.collectives.transports.ordered import Call, Gathered

_OPS: dict[str, Any] = {
    "sum": dist.ReduceOp.SUM,
    "average": dist.ReduceOp.SUM,
    "min": dist.ReduceOp.MIN,
    "max": dist.ReduceOp.MAX,
    "product": dist.ReduceOp.PRODUCT,
}


class Nccl:
    """Connections of all ranks of `store`, one GPU each. Raises CollectiveError where torch has no NCCL."""

    def __init__(self, store: Store, rank: int, size: int, operation_timeout_s: float) -> None:
        if not dist.is_nccl_available():
            raise CollectiveError("torch was built without NCCL", remedy="copy the tensor to the CPU first")
        self._size = size
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timedelta(seconds=operation_timeout_s)
        self._group: Any = dist.ProcessGroupNCCL(PrefixStore("nccl", store), rank, size, options)

    def reduce_all(self, output: torch.Tensor, tensor: torch.Tensor | None, how: Header) -> None:
        if tensor is None:
            output.zero_()
        elif output.data_ptr() != tensor.data_ptr():
            output.copy_(tensor)
        _scale(output, how.prescale)
        options = dist.AllreduceOptions()
        options.reduceOp = _OPS[how.op]
        self._group.allreduce([output], options).wait()
        self._finish(output, how)

    def reduce_pieces(
        self, output: torch.Tensor, tensor: torch.Tensor | None, counts: Sequence[int], how: Header
    ) -> None:
        data = output.new_zeros(sum(counts)) if tensor is None else tensor.reshape(-1).clone()
        _scale(data, how.prescale)
        options = dist.ReduceScatterOptions()
        options.reduceOp = _OPS[how.op]
        self._group.reduce_scatter([output.view(-1)], [list(torch.split(data, list(counts)))], options).wait()
        self._finish(output, how)

    def gather(self, sizes: Sequence[int], data: torch.Tensor) -> torch.Tensor:
        parts = [data.new_empty(size) for size in sizes]
        self._group.allgather([parts], [data]).wait()
        return torch.cat(parts)

    def alltoall(self, output: torch.Tensor, data: torch.Tensor, received: Sequence[int], sent: Sequence[int]) -> None:
        self._group.alltoall_base(output, data, list(received), list(sent), dist.AllToAllOptions()).wait()

    def broadcast(self, data: torch.Tensor, root: int) -> None:
        options = dist.BroadcastOptions()
        options.rootRank = root
        self._group.broadcast([data], options).wait()

    def close(self) -> None:
        self._group.abort()

    def _finish(self, output: torch.Tensor, how: Header) -> None:
        if how.op == "average":
            exact = output.is_floating_point() or output.is_complex()
            output.div_(self._size) if exact else output.div_(self._size, rounding_mode="trunc")
        _scale(output, how.postscale)


def on_stream_of_caller(
    device: torch.device, run: Callable[[Call], Gathered | None]
) -> Callable[[Call], Gathered | None]:
    """`run`, after what the caller has given the GPU to do so far; done when the GPU is."""
    stream = torch.cuda.current_stream(device)

    def run_there(call: Call) -> Gathered | None:
        with torch.cuda.stream(stream):
            result = run(call)
        stream.synchronize()
        return result

    return run_there


def _scale(tensor: torch.Tensor, factor: float) -> None:
    if factor != 1.0:
        tensor.copy_(tensor * factor)
