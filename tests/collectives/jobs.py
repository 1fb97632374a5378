"""What the ranks of a crew are told to do; see `crew`. Inputs are made from a seed, so that only results travel."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import torch

from phalanx.collectives import CollectiveError, Group
from tests.collectives.arithmetic import tensor_of, values


@dataclass(frozen=True)
class Case:
    """One operation. `rows`: the first dimension of each rank where it may differ."""

    kind: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    op: str = "sum"
    prescale: float = 1.0
    postscale: float = 1.0
    root: int = 0
    rows: tuple[int, ...] = ()
    seed: int = 0
    asynchronous: bool = False

    def inputs(self, size: int) -> list[torch.Tensor]:
        """What each rank brings."""
        if self.rows:
            return [values(self.dtype, (rows, *self.shape), self.seed + r) for r, rows in enumerate(self.rows)]
        return [values(self.dtype, self.shape, self.seed + r) for r in range(size)]


def sent(tensor: torch.Tensor | None) -> Any:
    """A tensor for a pipe, which knows no uint16 and float8."""
    if tensor is None:
        return None
    return (
        tensor.dtype,
        tuple(tensor.shape),
        tensor.contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy().tobytes(),
    )


def received(packed: Any) -> torch.Tensor:
    dtype, shape, data = packed
    return tensor_of(data, dtype, shape)


def on_transport(group: Group, case: Case) -> Any:
    """The operation as the transport does it; what this rank has afterwards."""
    transport, me = group.transport, group.rank
    tensor = case.inputs(group.size)[me]
    how = {"prescale": case.prescale, "postscale": case.postscale, "asynchronous": case.asynchronous, "name": "it"}
    move = {"asynchronous": case.asynchronous, "name": "it"}
    result: torch.Tensor | None = torch.zeros_like(tensor)
    if case.kind == "allreduce":
        ticket = transport.allreduce(tensor, case.op, output=result, **how)
    elif case.kind == "allreduce in place":
        ticket, result = transport.allreduce(tensor, case.op, **how), tensor
    elif case.kind == "reduce":
        ticket, result = transport.reduce(tensor, case.root, case.op, **how), tensor
    elif case.kind == "reducescatter":
        counts = pieces(tensor.numel(), group.size)
        result = tensor.new_zeros(counts[me])
        ticket = transport.reducescatter(result, tensor, case.op, counts=counts, **how)
    elif case.kind == "broadcast":
        ticket, result = transport.broadcast(tensor, case.root, **move), tensor
    elif case.kind == "allgather":
        result = tensor.new_zeros((group.size, *tensor.shape))
        ticket = transport.allgather(result, tensor, **move)
    elif case.kind == "gather":
        result = tensor.new_zeros((group.size, *tensor.shape)) if me == case.root else None
        ticket = transport.gather(result, tensor, case.root, **move)
    elif case.kind == "allgather_ragged":
        ticket = transport.allgather_ragged(tensor, **move)
        return sent(transport.take(ticket)[0])
    else:
        splits = pieces(tensor.shape[0], group.size)
        ticket = transport.alltoall_ragged(tensor, splits, **move)
        output, rows = transport.take(ticket)
        return sent(output), rows
    transport.wait(ticket)
    return sent(result)


def pieces(total: int, parts: int) -> list[int]:
    """Uneven on purpose: the last gets what is left."""
    each = total // (parts + 1)
    return [each] * (parts - 1) + [total - each * (parts - 1)]


def grouped_and_single(group: Group, dtypes: list[torch.dtype], shapes: list[tuple[int, ...]], seed: int) -> Any:
    """The same tensors, also transposed ones, by one grouped operation and by one operation each."""
    made = [
        values(dtype, shape, seed + 100 * i + group.rank)
        for i, (dtype, shape) in enumerate(zip(dtypes, shapes, strict=True))
    ]
    tensors = [tensor.t() if tensor.ndim == 2 else tensor for tensor in made]
    together = group.grouped_allreduce([tensor.clone() for tensor in tensors], prescale=0.5).synchronize()
    single = [group.allreduce(tensor, prescale=0.5, in_place=False).synchronize() for tensor in tensors]
    rows = [tensor if tensor.ndim else tensor.reshape(1) for tensor in tensors]
    scattered = group.grouped_reducescatter(rows), [group.reducescatter(tensor) for tensor in rows]
    gathered = group.grouped_allgather(tensors), [group.allgather(tensor) for tensor in tensors]
    copies = [tensor.clone() for tensor in tensors], [tensor.clone() for tensor in tensors]
    group.grouped_broadcast(copies[0], root=1).wait()
    for tensor in copies[1]:
        group.broadcast(tensor, root=1).wait()
    pairs = [(together, single), scattered, gathered, copies]
    return [[[sent(tensor) for tensor in side] for side in pair] for pair in pairs]


def until_i_join(group: Group, batches: tuple[int, ...]) -> Any:
    """This rank has `batches[rank]` batches; the sums that it saw, and who joined last."""
    seen = []
    for batch in range(batches[group.rank]):
        tensor = torch.full((5,), float(group.rank + 1), dtype=torch.float64)
        group.allreduce(tensor, "sum" if batch % 2 else "average", asynchronous=bool(batch % 3)).wait()
        rows = group.allgather(torch.tensor([group.rank]))
        least = group.allreduce(torch.tensor([group.rank + 1]), "min").synchronize()
        piece = group.reducescatter(torch.ones(2 * group.size + 1))
        group.barrier()
        seen.append((tensor.tolist(), rows.tolist(), least.item(), piece.tolist()))
    return seen, group.join()


def one_that_joins_and_one_that_broadcasts(group: Group) -> Any:
    if group.rank == 0:
        return group.join()
    return group.broadcast(torch.ones(3), root=1, name="weights").wait()


def one_that_joins_and_others_who_want_its_object(group: Group) -> Any:
    if group.rank == 0:
        return group.join()
    return group.broadcast_object(None, root=0, name="settings")


def a_reduction_that_does_not_exist(group: Group) -> Any:
    return group.allreduce(torch.ones(3), "mean").synchronize()


def different(group: Group, what: str) -> Any:
    """Rank 1 makes a mistake."""
    odd = group.rank == 1
    if what == "shape":
        group.allreduce(torch.ones(3 + odd), name="a").wait()
    elif what == "dtype":
        group.allreduce(torch.ones(3, dtype=torch.int32 if odd else torch.float32), name="a").wait()
    elif what == "reduction":
        group.allreduce(torch.ones(3), "max" if odd else "sum", name="a").wait()
    elif what == "operation":
        group.broadcast(torch.ones(3), name="a").wait() if odd else group.allreduce(torch.ones(3), name="a").wait()
    elif what == "order":
        names = ["b", "a"] if odd else ["a", "b"]
        for handle in [group.allreduce(torch.ones(3), name=name) for name in names]:
            handle.wait()
    elif what == "root":
        group.broadcast(torch.ones(3), root=int(odd), name="a").wait()
    elif what == "columns":
        group.allgather(torch.ones(2, 3 + odd), name="a")
    elif what == "sparse shape":
        group.allreduce(torch.sparse_coo_tensor([[0]], [1.0], (3 + odd,)), name="'a'").wait()
    elif what == "sparse reduction":
        group.allreduce(torch.sparse_coo_tensor([[0]], [1.0], (3,)), "average" if odd else "sum", name="'a'").wait()
    else:
        many = [torch.ones(2, 3)] * 9
        group.grouped_allgather([*many, torch.ones(3, 4) if odd else torch.ones(2, 6)], name="'a'")


def sums_for_ever(group: Group, elements: int) -> Any:
    while True:
        group.allreduce(torch.ones(elements), name="gradients").wait()


def sparse_sum(group: Group, op: str, seed: int, dtype: torch.dtype) -> Any:
    random = torch.Generator().manual_seed(seed + group.rank)
    count = int(torch.randint(0, 6, (), generator=random))
    places = torch.randint(0, 4, (1, count), generator=random)
    tensor = torch.sparse_coo_tensor(places, values(dtype, (count, 2), seed + group.rank), (4, 2))
    dense = tensor.to_dense().contiguous()
    total = group.allreduce(tensor, op, in_place=False).synchronize()
    group.allreduce(tensor, op).wait()
    return sent(dense), sent(total.to_dense()), sent(tensor.to_dense())


def in_subgroups(group: Group) -> Any:
    """Two that overlap, and one of one rank."""
    said = []
    for ranks in ([0, group.size - 1], [1, 0], [1]):
        part = group.subgroup(ranks)
        if part is not None:
            total = part.allreduce(torch.tensor([10.0**group.rank])).synchronize().item()
            said.append((ranks, part.rank, part.size, part.members, total))
    return said


def subgroups_still_held(group: Group) -> int:
    """Of three that were made, closed and let go."""
    made = []
    for _ in range(3):
        part = group.subgroup(range(group.size))
        assert part is not None
        part.barrier()
        part.close()
        made.append(weakref.ref(part))
        del part
    group.subgroup([0])  # whose making forgets those that are closed
    gc.collect()
    return sum(part() is not None for part in made)


def mismatch_in_a_subgroup(group: Group) -> Any:
    part = group.subgroup([1, 2])
    if part is None:
        return "not in it"
    return part.allreduce(torch.ones(2 + group.rank), name="a").synchronize()


def objects_of_all(group: Group) -> Any:
    mine = {"rank": group.rank, "list": [None, True, 1.5, "é"], "deep": {"x": [group.rank]}}
    return group.allgather_object(mine), group.broadcast_object(mine if group.rank == 1 else None, root=1)


def an_object_that_only_the_root_sees(group: Group) -> Any:
    try:
        group.broadcast_object({1: 2} if group.rank == 0 else None, name="settings")
        return None
    except CollectiveError as error:
        return error.message, group.broadcast_object([group.size], name="again")


def an_object_that_cannot_be_sent(group: Group) -> Any:
    return group.allgather_object({"model": [1, {"weights": torch.ones(1)}]}, "settings")


def compressed(group: Group, seed: int) -> Any:
    from phalanx.collectives import compression

    tensor = values(torch.float32, (50,), seed + group.rank)
    half = group.allreduce(tensor, "average", in_place=False, compression=compression.bf16).synchronize()
    whole = group.allreduce(torch.tensor([3], dtype=torch.int64), compression=compression.fp16).synchronize()
    return sent(half), whole.tolist()
