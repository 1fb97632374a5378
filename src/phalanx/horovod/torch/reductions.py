"""Allreduce in all its forms: see `mpi_ops`, which has every operation under Horovod's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from phalanx.horovod.common.basics import basics as _basics
from phalanx.horovod.common.process_sets import ProcessSet, global_process_set
from phalanx.horovod.common.util import get_average_backwards_compatibility_fun, num_rank_is_power_2
from phalanx.horovod.torch.compression import Compression
from phalanx.horovod.torch.handles import differentiable, only_tensors, submit, synchronize
from phalanx.horovod.torch.moves import allgather_async

Average = _basics.Average
Sum = _basics.Sum
Adasum = _basics.Adasum
Min = _basics.Min
Max = _basics.Max
Product = _basics.Product
OPS = {Average: "average", Sum: "sum", Adasum: "adasum", Min: "min", Max: "max", Product: "product"}

handle_average_backwards_compatibility = get_average_backwards_compatibility_fun(_basics)


def allreduce_async(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Reduce `tensor` (same shape and dtype on all ranks) into a new one. `op`: Average unless given.

    Every rank's tensor is multiplied by `prescale_factor`, the result by `postscale_factor`; integers are computed
    in float64 then, and cut towards zero. `average` is Horovod's old way of saying `op`.
    """
    op = handle_average_backwards_compatibility(op, average)
    return _allreduce([tensor], op, name, prescale_factor, postscale_factor, process_set)


def allreduce_async_(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> int:
    """As `allreduce_async`, into `tensor` itself."""
    op = handle_average_backwards_compatibility(op, average)
    return _allreduce([tensor], op, name, prescale_factor, postscale_factor, process_set, in_place=True)


def allreduce_(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """As `allreduce_async_`, waited for."""
    handle = allreduce_async_(tensor, average, name, op, prescale_factor, postscale_factor, process_set)
    reduced: Tensor = synchronize(handle)
    return reduced


def allreduce(
    tensor: Tensor,
    average: bool | None = None,
    name: str | None = None,
    compression: Any = Compression.none,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> Tensor:
    """The reduction of `tensor` over all ranks, sent as `compression` makes it; gradients are reduced alike."""
    op = handle_average_backwards_compatibility(op, average)
    return _reduced([tensor], op, name, compression, prescale_factor, postscale_factor, process_set)[0]


def grouped_allreduce_async(
    tensors: Sequence[Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> int:
    """As `allreduce_async` of each, all or none of them; the result is a list."""
    op = handle_average_backwards_compatibility(op, average)
    return _allreduce(list(tensors), op, name, prescale_factor, postscale_factor, process_set, grouped=True)


def grouped_allreduce_async_(
    tensors: Sequence[Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> int:
    """As `grouped_allreduce_async`, into the tensors themselves."""
    op = handle_average_backwards_compatibility(op, average)
    scales = prescale_factor, postscale_factor
    return _allreduce(list(tensors), op, name, *scales, process_set, in_place=True, grouped=True)


def grouped_allreduce_(
    tensors: Sequence[Tensor],
    average: bool | None = None,
    name: str | None = None,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Tensor]:
    """As `grouped_allreduce_async_`, waited for."""
    handle = grouped_allreduce_async_(tensors, average, name, op, prescale_factor, postscale_factor, process_set)
    reduced: list[Tensor] = synchronize(handle)
    return reduced


def grouped_allreduce(
    tensors: Sequence[Tensor],
    average: bool | None = None,
    name: str | None = None,
    compression: Any = Compression.none,
    op: int | None = None,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
    process_set: ProcessSet = global_process_set,
) -> list[Tensor]:
    """As `allreduce` of each, all or none of them."""
    op = handle_average_backwards_compatibility(op, average)
    return _reduced(tensors, op, name, compression, prescale_factor, postscale_factor, process_set, grouped=True)


def sparse_allreduce_async(
    tensor: Tensor, name: str, op: int, process_set: ProcessSet = global_process_set
) -> Callable[[], Tensor]:
    """Gather the rows of all ranks' sparse `tensor`; what it returns waits for their sum, or average, as one."""
    only_tensors("sparse_allreduce", [tensor])
    if not tensor.is_sparse:
        raise ValueError(f"sparse_allreduce {name}: the tensor is not sparse; use allreduce_async")
    indices = allgather_async(tensor._indices().t().contiguous(), f"{name}.indices", process_set)
    values = allgather_async(tensor._values(), f"{name}.values", process_set)

    def finish() -> Tensor:
        rows, found = synchronize(indices), synchronize(values)
        if op == Average:
            found = found / (process_set.size() or 1)
        return torch.sparse_coo_tensor(rows.t(), found, tensor.size())

    return finish


def _reduced(
    tensors: Sequence[Tensor],
    op: int,
    name: str | None,
    compression: Any,
    prescale: float,
    postscale: float,
    process_set: ProcessSet,
    *,
    grouped: bool = False,
) -> list[Tensor]:
    small = [compression.compress(tensor) for tensor in tensors]

    def reduce(many: Sequence[Tensor], name: str | None = None) -> list[Tensor]:
        found = synchronize(_allreduce(list(many), op, name, prescale, postscale, process_set, grouped=grouped))
        return found if grouped else [found]

    reduced = differentiable([tensor for tensor, _ in small], lambda many: reduce(many, name), reduce)
    return [compression.decompress(tensor, context) for tensor, (_, context) in zip(reduced, small, strict=True)]


def _allreduce(
    tensors: list[Tensor],
    op: int,
    name: str | None,
    prescale: float,
    postscale: float,
    process_set: ProcessSet,
    *,
    in_place: bool = False,
    grouped: bool = False,
) -> int:
    if op not in OPS:
        raise ValueError(
            f"there is no reduction {op!r}: take hvd.{', hvd.'.join(word.title() for word in OPS.values())}"
        )
    if op == Adasum:
        if process_set is not global_process_set:
            raise NotImplementedError("Adasum is done by all ranks, not by a process set.")
        if not num_rank_is_power_2(_basics.size()):
            raise NotImplementedError(
                f"Adasum needs a number of ranks that is a power of 2, and there are {_basics.size()}."
            )
    how: dict[str, Any] = {"op": OPS[op], "prescale": float(prescale), "postscale": float(postscale)}
    kind = "grouped_allreduce" if grouped else "allreduce"
    return submit("allreduce", tensors, name, process_set, in_place=in_place, grouped=grouped, prefix=kind, **how)
