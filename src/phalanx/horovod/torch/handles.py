"""Handles of operations: announced, polled, synchronized; and gradients through those that wait."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from phalanx.horovod.common.basics import basics
from phalanx.horovod.common.process_sets import ProcessSet
from phalanx.horovod.execution import Operation
from phalanx.horovod.negotiation import Kind, Request

Change = Callable[[Sequence[Tensor]], Sequence[Tensor]]

_operations: dict[int, Operation] = {}
_numbers = itertools.count()


def submit(
    kind: Kind,
    tensors: list[Tensor],
    name: str | None,
    process_set: ProcessSet,
    *,
    prefix: str = "",
    in_place: bool = False,
    grouped: bool = False,
    splits: list[int] | None = None,
    **how: Any,
) -> int:
    """Announce an operation; its handle. `prefix`: before the name, if not `kind`; `how`: more fields of Request.

    Raises TypeError for what is no tensor or no process set, ValueError for those that will not do.
    """
    engine = basics.engine
    members_of(process_set)
    number = process_set.process_set_id or 0
    device = "cpu"
    only_tensors(kind, tensors)
    for tensor in tensors:
        if tensor.is_sparse:
            raise ValueError(f"{kind} {name or ''}: a sparse tensor; use sparse_allreduce_async, or tensor.to_dense()")
        device = tensor.device.type
    prefix = prefix or kind
    full_name = f"{prefix}.{name or engine.automatic_name(prefix, number)}"
    described = tuple((_DTYPES[tensor.dtype], tuple(tensor.shape)) for tensor in tensors)
    request = Request(kind, full_name, number, device=device, tensors=described, **how)
    operation = Operation(request, tensors, in_place, grouped, unnamed=not name, splits=splits)
    engine.submit(operation)
    handle = next(_numbers)
    _operations[handle] = operation
    return handle


def poll(handle: int) -> bool:
    """Whether `synchronize` would not wait. Raises ValueError for no handle, or one that was synchronized."""
    if handle not in _operations:
        raise ValueError(f"Handle {handle} was not created or has been cleared.")
    return basics.engine.poll(_operations[handle])


def synchronize(handle: int) -> Any:
    """Wait; the result: a tensor, or as many as the operation has. None for what was synchronized already.

    Raises HorovodInternalError.
    """
    operation = _operations.pop(handle, None)
    return None if operation is None else basics.engine.wait(operation)


def forget(handle: int) -> None:
    """Nobody will ask for its result. What it stands for goes on."""
    _operations.pop(handle, None)


def forget_handles() -> None:
    """What they stand for goes on."""
    _operations.clear()


def only_tensors(what: str, given: Iterable[object]) -> None:
    """Raises TypeError for anything else. `what`: where it was given."""
    for each in given:
        if not isinstance(each, Tensor):
            raise TypeError(f"{what}: a torch.Tensor is wanted, not {each!r:.60} ({type(each).__name__})")


def members_of(process_set: ProcessSet) -> tuple[int, ...]:
    """The ranks of a set. Raises ValueError for one that is not known, and for one that this process is not in."""
    if not isinstance(process_set, ProcessSet):
        raise TypeError(f"a hvd.ProcessSet is wanted, not {process_set!r}")
    if process_set.process_set_id is None:
        raise ValueError(f"{process_set} is not known: give it to hvd.init() or hvd.add_process_set()")
    engine = basics.engine
    members = engine.sets.get(process_set.process_set_id)
    if members is None:
        raise ValueError(f"{process_set} does not exist any more")
    if engine.group.rank not in members:
        raise ValueError(f"rank {engine.group.rank} is not a member of {process_set}")
    return members


def differentiable(tensors: Sequence[Tensor], change: Change, give_back: Change) -> list[Tensor]:
    """`change(tensors)`, through which gradients flow as `give_back` says. Integers of the result have none.

    What is no tensor is left to `change`, which refuses it.
    """
    if not (torch.is_grad_enabled() and any(getattr(each, "requires_grad", False) for each in tensors)):
        return list(change(tensors))
    return list(_Collective.apply(change, give_back, *tensors))  # type: ignore[no-untyped-call]


class _Collective(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, change: Change, give_back: Change, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.give_back = give_back
        results = tuple(change([tensor.detach() for tensor in tensors]))
        ctx.mark_non_differentiable(*(result for result in results if not result.is_floating_point()))
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.give_back([gradient for gradient in gradients if gradient.is_floating_point()])


class _Names(dict[torch.dtype, str]):
    def __missing__(self, dtype: torch.dtype) -> str:
        name = self[dtype] = str(dtype).removeprefix("torch.")
        return name


_DTYPES = _Names()
