"""What a rank does when its turn has come: one negotiated bucket of operations on a group.

Reductions of a bucket travel together; where that takes a copy, large ones travel by themselves, for it would cost
more. Knows neither names in flight nor who decided the order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from phalanx.collectives import Group, Handle
from phalanx.collectives.fusion import is_plain
from phalanx.collectives.transports.transport import Transport
from phalanx.horovod.adasum import adasum
from phalanx.horovod.negotiation import FUSE_BELOW, Request

_LONG = 4 << 20  # bytes whose sum takes longer than what it costs to wake another thread for it

Result = Any  # a tensor, a list of tensors, (tensor, rows from each rank); None of a barrier


@dataclass(slots=True, eq=False)
class Operation:
    """One request of this rank and its tensors, from when it is announced until its result is fetched.

    `in_place`: the result goes into `tensors`. `work` and `result`: once its turn has come; `error`: it has failed.
    """

    request: Request
    tensors: Sequence[torch.Tensor] = ()
    in_place: bool = False
    grouped: bool = False
    unnamed: bool = False  # its name will not come again
    splits: list[int] | None = None
    work: Work | None = None
    result: Result = None
    error: Exception | None = None

    def is_over(self) -> bool:
        """Whether its result or its error is there."""
        return self.error is not None or (self.work is not None and self.work.poll())


class Work:
    """What was begun for a bucket. Whoever comes first finishes it; `finish` puts the results into the operations."""

    def __init__(
        self, operations: Sequence[Operation], handles: Sequence[Handle[Any]], finish: Callable[[], None]
    ) -> None:
        self.operations = operations
        self._handles = handles
        self._finish: Callable[[], None] | None = finish
        self._lock = threading.Lock()

    def poll(self) -> bool:
        """Whether `finish` would not wait."""
        return self._finish is None or all(handle.poll() for handle in self._handles)

    def finish(self) -> None:
        """Wait, and hand the results out. Raises CollectiveError, for which the operations have it as well."""
        with self._lock:
            finish, self._finish = self._finish, None
            if finish is None:
                return
            try:
                finish()
            except BaseException as error:  # Ctrl-C too: nobody may take what is not reduced for the result
                failure = error if isinstance(error, Exception) else RuntimeError(f"interrupted ({error!r})")
                for operation in self.operations:
                    operation.error = failure
                raise


def begin(group: Group, operations: Sequence[Operation]) -> Work:
    """Start the bucket: several allreduces alike, or one operation of any kind. Every rank of `group` does the same.

    Raises CollectiveError for what cannot be (an average of truths), on all ranks alike.
    """
    first = operations[0]
    request = first.request
    if request.kind == "allreduce":
        if request.op == "adasum":
            return _adasum(group, first)
        return _allreduce(group, operations)
    begun, finish = _OTHERS[request.kind](group, first)

    def hand_out() -> None:
        first.result = finish()

    return Work(operations, begun, hand_out)


def zeros_for(request: Request) -> Operation:
    """What a rank that has joined contributes: a scratch tensor of zeros in the place of each."""
    made = [torch.zeros(shape, dtype=getattr(torch, dtype), device=request.device) for dtype, shape in request.tensors]
    return Operation(request, made, in_place=True, grouped=len(made) > 1)


def _allreduce(group: Group, operations: Sequence[Operation]) -> Work:
    request = operations[0].request
    nbytes = sum(operation.request.nbytes for operation in operations)
    how: dict[str, Any] = {
        "op": request.op,
        "name": request.name,
        "prescale": request.prescale,
        "postscale": request.postscale,
        "asynchronous": nbytes >= _LONG,
    }
    sources: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    for operation in operations:
        made = list(operation.tensors) if operation.in_place else [torch.empty_like(t) for t in operation.tensors]
        operation.result = made if operation.grouped else made[0]
        sources += operation.tensors
        targets += made
    with torch.no_grad():
        reduce = getattr(group.transport, "allreduce_together", None)
        if reduce is not None:
            tickets, moved = _where_they_lie(reduce, sources, targets, how)
        else:
            tickets, moved = _packed(group.transport, sources, targets, how)
    handle: Handle[None] = Handle(group.transport, tickets, lambda: None)

    def finish() -> None:
        handle.wait()
        with torch.no_grad():
            for target, found in moved:  # one by one: torch refuses a list with a conjugate in it
                target.copy_(found)

    return Work(operations, [handle], finish)


# How the tensors of an allreduce travel: flat ones only, for another rank's may have another layout. Both ways return
# tickets, and which tensors are to be copied from which others when those are reduced.
Moved = list[tuple[torch.Tensor, torch.Tensor]]


def _where_they_lie(
    reduce: Callable[..., int], sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], how: dict[str, Any]
) -> tuple[list[int], Moved]:
    """All of a dtype as one, by a transport that needs no copy of them for that."""
    kinds: dict[torch.dtype, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    moved: Moved = []
    for source, target in zip(sources, targets, strict=True):
        inputs, outputs = kinds.setdefault(source.dtype, ([], []))
        if is_plain(source) and is_plain(target):
            inputs.append(source)
            outputs.append(target)
        else:
            flat = source.reshape(-1).clone()
            inputs.append(flat)
            outputs.append(flat)
            moved.append((target, flat.view(target.shape)))
    return [reduce(inputs, outputs, **how) for inputs, outputs in kinds.values()], moved


def _packed(
    transport: Transport, sources: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], how: dict[str, Any]
) -> tuple[list[int], Moved]:
    """Small ones beside each other, large ones by themselves, where copying would cost more."""
    small: dict[torch.dtype, list[int]] = {}
    for index, tensor in enumerate(sources):
        if tensor.nbytes < FUSE_BELOW:
            small.setdefault(tensor.dtype, []).append(index)
    together = [indices for indices in small.values() if len(indices) > 1]
    tickets: list[int] = []
    moved: Moved = []

    def pack(indices: list[int]) -> None:
        flat = torch.cat([sources[index].reshape(-1) for index in indices])  # always a copy
        tickets.append(transport.allreduce(flat, **how))
        into = [targets[index] for index in indices]
        pieces = torch.split(flat, [target.numel() for target in into])
        moved.extend((target, piece.view(target.shape)) for target, piece in zip(into, pieces, strict=True))

    for indices in together:
        pack(indices)
    for index in sorted({*range(len(sources))}.difference(*together)):
        source, target = sources[index].detach(), targets[index].detach()
        if is_plain(source) and is_plain(target):
            tickets.append(transport.allreduce(source.view(-1), output=target.view(-1), **how))
        else:
            pack([index])
    return tickets, moved


def _adasum(group: Group, operation: Operation) -> Work:
    """Takes several operations one after the other, so it is done here and now."""
    made = [tensor.detach() if operation.in_place else tensor.detach().clone() for tensor in operation.tensors]
    adasum(group, made)
    results = list(operation.tensors) if operation.in_place else made
    operation.result = results if operation.grouped else results[0]
    return Work([operation], [], lambda: None)


def _allgather(group: Group, operation: Operation) -> tuple[list[Handle[Any]], Callable[[], Result]]:
    name = operation.request.name
    if operation.grouped:
        many = group.grouped_allgather_async([tensor.detach() for tensor in operation.tensors], name)
        return [many], many.synchronize
    one = group.allgather_async(operation.tensors[0], name)
    return [one], one.synchronize


def _broadcast(group: Group, operation: Operation) -> tuple[list[Handle[Any]], Callable[[], Result]]:
    root = group.members.index(operation.request.root)
    (tensor,) = operation.tensors
    target = tensor if operation.in_place else torch.empty_like(tensor, requires_grad=False)
    direct = operation.in_place and is_plain(tensor)
    # A flat one: another rank's tensor may have another layout.
    flat = tensor.detach().view(-1) if direct else tensor.detach().reshape(-1).clone()
    handle = group.broadcast(flat, root, operation.request.name)

    def finish() -> Result:
        handle.wait()
        if not direct:
            target.detach().copy_(flat.view(tensor.shape))
        return target

    return [handle], finish


def _alltoall(group: Group, operation: Operation) -> tuple[list[Handle[Any]], Callable[[], Result]]:
    handle = group.alltoall_async(operation.tensors[0], operation.splits, operation.request.name)

    def finish() -> Result:
        tensor, rows = handle.synchronize()
        return tensor, torch.tensor(rows, dtype=torch.int32)

    return [handle], finish


def _reducescatter(group: Group, operation: Operation) -> tuple[list[Handle[Any]], Callable[[], Result]]:
    request = operation.request
    op: Any = request.op
    how: dict[str, Any] = {"prescale": request.prescale, "postscale": request.postscale}
    tensors = [tensor.detach() for tensor in operation.tensors]
    handle: Handle[Any]
    if operation.grouped:
        handle = group.grouped_reducescatter_async(tensors, op, request.name, **how)
    else:
        handle = group.reducescatter_async(tensors[0], op, request.name, **how)
    return [handle], handle.synchronize


def _barrier(group: Group, operation: Operation) -> tuple[list[Handle[Any]], Callable[[], Result]]:
    ticket = group.transport.barrier(name=operation.request.name, asynchronous=True)
    handle: Handle[Any] = Handle(group.transport, [ticket], lambda: None)
    return [handle], handle.synchronize


_OTHERS = {
    "allgather": _allgather,
    "broadcast": _broadcast,
    "alltoall": _alltoall,
    "reducescatter": _reducescatter,
    "barrier": _barrier,
}
