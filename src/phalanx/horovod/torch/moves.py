"""Operations that move tensors: allgather, broadcast, alltoall, reducescatter. See `mpi_ops`, which has them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from phalanx.horovod.common.basics import basics as _basics
from phalanx.horovod.common.exceptions import HorovodInternalError
from phalanx.horovod.common.process_sets import ProcessSet, global_process_set
from phalanx.horovod.torch.compression import Compression
from phalanx.horovod.torch.handles import differentiable, members_of, only_tensors, submit, synchronize

Average = _basics.Average
Sum = _basics.Sum


# Allgather


def allgather_async(tensor: Tensor, name: str | None = None, process_set: ProcessSet = global_process_set) -> int:
    """Put all ranks' rows (first dimension, which may differ) below each other, in rank order."""
    return submit("allgather", [tensor], name, process_set)


def allgather(tensor: Tensor, name: str | None = None, process_set: ProcessSet = global_process_set) -> Tensor:
    """As `allgather_async`, waited for; a rank's gradient is the average of all ranks' for its rows."""
    return _gather([tensor], process_set, lambda many: [synchronize(allgather_async(many[0], name, process_set))])[0]


def grouped_allgather_async(
    tensors: Sequence[Tensor], name: str | None = None, process_set: ProcessSet = global_process_set
) -> int:
    """As `allgather_async` of each, all or none of them; the result is a list."""
    return submit("allgather", list(tensors), name, process_set, grouped=True, prefix="grouped_allgather")


def grouped_allgather(
    tensors: Sequence[Tensor], name: str | None = None, process_set: ProcessSet = global_process_set
) -> list[Tensor]:
    """As `allgather` of each, all or none of them."""
    return _gather(tensors, process_set, lambda many: synchronize(grouped_allgather_async(many, name, process_set)))


def _gather(
    tensors: Sequence[Tensor], process_set: ProcessSet, gather: Callable[[Sequence[Tensor]], list[Tensor]]
) -> list[Tensor]:
    def give_back(gradients: Sequence[Tensor]) -> list[Tensor]:
        averages = _averages(gradients, process_set)
        mine = torch.tensor([tensor.shape[0] for tensor in tensors])
        rows: Tensor = synchronize(allgather_async(mine, process_set=process_set)).view(-1, len(tensors))
        begin = rows[: process_set.rank()].sum(0).tolist()
        return [
            average.narrow(0, start, tensor.shape[0])
            for average, start, tensor in zip(averages, begin, tensors, strict=True)
        ]

    return differentiable(tensors, gather, give_back)


# Broadcast


def broadcast_async(
    tensor: Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> int:
    """`root_rank`'s tensor (a rank of the world; same shape and dtype on all) in a new one."""
    return _broadcast(tensor, root_rank, name, process_set, in_place=False)


def broadcast_async_(
    tensor: Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> int:
    """As `broadcast_async`, into `tensor` itself."""
    return _broadcast(tensor, root_rank, name, process_set, in_place=True)


def broadcast(
    tensor: Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Tensor:
    """As `broadcast_async`, waited for; the root's gradient is the average of all ranks', the others' is zero."""

    def give_back(gradients: Sequence[Tensor]) -> list[Tensor]:
        (average,) = _averages(gradients, process_set)
        return [average if _basics.rank() == root_rank else torch.zeros_like(average)]

    (sent,) = differentiable(
        [tensor], lambda many: [synchronize(broadcast_async(many[0], root_rank, name, process_set))], give_back
    )
    return sent


def broadcast_(
    tensor: Tensor, root_rank: int, name: str | None = None, process_set: ProcessSet = global_process_set
) -> Tensor:
    """As `broadcast_async_`, waited for."""
    sent: Tensor = synchronize(broadcast_async_(tensor, root_rank, name, process_set))
    return sent


def _broadcast(tensor: Tensor, root_rank: int, name: str | None, process_set: ProcessSet, *, in_place: bool) -> int:
    members = members_of(process_set)
    if root_rank not in members:
        raise ValueError(f"broadcast {name or ''}: rank {root_rank} is not one of {list(members)}")
    return submit("broadcast", [tensor], name, process_set, in_place=in_place, root=int(root_rank))


# Alltoall


def alltoall_async(
    tensor: Tensor,
    splits: Tensor | Sequence[int] | None = None,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> int:
    """Send `splits[r]` rows of `tensor` to rank r (None: equally many); the result is (tensor, rows from each).

    `splits` is int32, one a rank, and adds up to the first dimension at most. ValueError for others.
    """
    only_tensors("alltoall", [tensor])
    members = members_of(process_set)
    rows = tensor.shape[0] if tensor.ndim else 0
    if splits is None:
        if rows % len(members):
            raise ValueError(f"alltoall {name or ''}: {rows} rows cannot be split among {len(members)} ranks equally")
        wanted = [rows // len(members)] * len(members)
    else:
        given = splits if isinstance(splits, Tensor) else torch.tensor(splits, dtype=torch.int32)
        if given.dtype != torch.int32:
            raise ValueError(f"alltoall {name or ''}: splits are of dtype int32, not {given.dtype}")
        wanted = [int(split) for split in given.tolist()]
        if len(wanted) != len(members) or sum(wanted) > rows or min(wanted) < 0:
            raise ValueError(f"alltoall {name or ''}: splits {wanted} do not fit {rows} rows and {len(members)} ranks")
        if sum(wanted) < rows:
            tensor = tensor[: sum(wanted)]
    return submit("alltoall", [tensor], name, process_set, splits=wanted)


def alltoall(
    tensor: Tensor,
    splits: Tensor | Sequence[int] | None = None,
    name: str | None = None,
    process_set: ProcessSet = global_process_set,
) -> Tensor | tuple[Tensor, Tensor]:
    """As `alltoall_async`, waited for; the tensor alone when no `splits` were given. Gradients go back the same way."""

    def exchange(many: Sequence[Tensor]) -> Sequence[Tensor]:
        found: tuple[Tensor, Tensor] = synchronize(alltoall_async(many[0], splits, name, process_set))
        return found

    def give_back(gradients: Sequence[Tensor]) -> list[Tensor]:
        back: Tensor = synchronize(alltoall_async(gradients[0], received, process_set=process_set))[0]
        return [back]

    result, received = differentiable([tensor], exchange, give_back)
    return result if splits is None else (result, received)


# Reducescatter


def reducescatter_async(
    tensor: Tensor,
    name: str | None = None,
    op: int = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> int:
    """This rank's rows of the reduction; earlier ranks get one more where the first dimension does not divide."""
    return _reducescatter([tensor], name, op, process_set, prescale_factor, postscale_factor)


def reducescatter(
    tensor: Tensor,
    name: str | None = None,
    compression: Any = Compression.none,
    op: int = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> Tensor:
    """As `reducescatter_async`, waited for; gradients are gathered."""
    return _scattered([tensor], name, compression, op, process_set, prescale_factor, postscale_factor)[0]


def grouped_reducescatter_async(
    tensors: Sequence[Tensor],
    name: str | None = None,
    op: int = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> int:
    """As `reducescatter_async` of each, all or none of them; the result is a list."""
    return _reducescatter(list(tensors), name, op, process_set, prescale_factor, postscale_factor, grouped=True)


def grouped_reducescatter(
    tensors: Sequence[Tensor],
    name: str | None = None,
    compression: Any = Compression.none,
    op: int = Average,
    process_set: ProcessSet = global_process_set,
    prescale_factor: float = 1.0,
    postscale_factor: float = 1.0,
) -> list[Tensor]:
    """As `reducescatter` of each, all or none of them."""
    return _scattered(tensors, name, compression, op, process_set, prescale_factor, postscale_factor, grouped=True)


def _scattered(
    tensors: Sequence[Tensor],
    name: str | None,
    compression: Any,
    op: int,
    process_set: ProcessSet,
    prescale: float,
    postscale: float,
    *,
    grouped: bool = False,
) -> list[Tensor]:
    small = [compression.compress(tensor) for tensor in tensors]

    def scatter(many: Sequence[Tensor]) -> list[Tensor]:
        found = synchronize(_reducescatter(list(many), name, op, process_set, prescale, postscale, grouped=grouped))
        return found if grouped else [found]

    def give_back(gradients: Sequence[Tensor]) -> list[Tensor]:
        factor = (process_set.size() or 1) if op == Sum else 1
        scaled = [gradient * (factor * prescale * postscale) for gradient in gradients]
        return grouped_allgather(scaled, process_set=process_set)

    mine = differentiable([tensor for tensor, _ in small], scatter, give_back)
    return [compression.decompress(tensor, context) for tensor, (_, context) in zip(mine, small, strict=True)]


def _reducescatter(
    tensors: list[Tensor],
    name: str | None,
    op: int,
    process_set: ProcessSet,
    prescale: float,
    postscale: float,
    *,
    grouped: bool = False,
) -> int:
    if op not in (Average, Sum):
        raise HorovodInternalError(f"reducescatter {name or ''}: only Average and Sum are supported, not {op}")
    how: dict[str, Any] = {
        "op": "average" if op == Average else "sum",
        "prescale": float(prescale),
        "postscale": float(postscale),
    }
    kind = "grouped_reducescatter" if grouped else "reducescatter"
    return submit("reducescatter", tensors, name, process_set, grouped=grouped, prefix=kind, **how)


def _averages(gradients: Sequence[Tensor], process_set: ProcessSet) -> list[Tensor]:
    handle = submit(
        "allreduce", list(gradients), None, process_set, grouped=True, prefix="grouped_allreduce", op="average"
    )
    averages: list[Tensor] = synchronize(handle)
    return averages
