"""What `test_backend.py` runs on every rank, in one process for many checks: importing torch takes seconds.

`python backend_checks.py OUTPUT GROUP...`: every function of each GROUP is called on all ranks; their results go to OUTPUT.
A reference is computed by each rank alone, from what all ranks give: `given(r)` is the same everywhere.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, Mismatch

CHECKS: dict[str, list[Callable[[], None]]] = {}
SUM = dist.ReduceOp.SUM


def check(group: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(function: Callable[[], None]) -> Callable[[], None]:
        CHECKS.setdefault(group, []).append(function)
        return function

    return add


def rank() -> int:
    return dist.get_rank()


def size() -> int:
    return dist.get_world_size()


def given(of: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """What rank `of` puts in: small whole numbers, so that sums are exact in every dtype and any order."""
    generator = torch.Generator().manual_seed(1000 + of)
    return torch.randint(0, 4, shape, generator=generator).to(dtype)


def everything(*shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [given(of, *shape, dtype=dtype) for of in range(size())]


def equal(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


# Operations


@check("operations")
def sums_of_every_dtype() -> None:
    dtypes = [
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "complex64",
        "complex128",
    ]
    for dtype in [getattr(torch, name) for name in dtypes]:
        expected = torch.stack(everything(3, 5, dtype=dtype)).sum(0).to(dtype)
        for asynchronous in (False, True):
            tensor = given(rank(), 3, 5, dtype=dtype)
            work = dist.all_reduce(tensor, async_op=asynchronous)
            if asynchronous:
                assert work.wait()
            else:
                assert work is None
            equal(tensor, expected)


@check("operations")
def sums_of_float8_and_bool() -> None:
    for dtype in (torch.float8_e5m2, torch.float8_e4m3fn):
        tensor = given(rank(), 6, dtype=dtype)
        dist.all_reduce(tensor)
        equal(tensor.float(), torch.stack(everything(6)).sum(0))
    tensor = given(rank(), 6) > 1
    dist.all_reduce(tensor)
    equal(tensor, torch.stack([t > 1 for t in everything(6)]).any(0))


@check("operations")
def every_reduction() -> None:
    stack = torch.stack(everything(7)) + 1
    expected = {
        "AVG": stack.sum(0) / size(),
        "MIN": stack.amin(0),
        "MAX": stack.amax(0),
        "PRODUCT": stack.prod(0),
    }
    for name, result in expected.items():
        for asynchronous in (False, True):
            tensor = given(rank(), 7) + 1
            work = dist.all_reduce(tensor, getattr(dist.ReduceOp, name), async_op=asynchronous)
            if asynchronous:
                work.wait()
            torch.testing.assert_close(tensor, result)
    tensor = given(rank(), 7) + 1
    dist.all_reduce(tensor, dist._make_nccl_premul_sum(0.5))
    equal(tensor, stack.sum(0) / 2)


@check("operations")
def bitwise_reductions_are_left_to_gloo() -> None:
    for name, function in (("BAND", torch.bitwise_and), ("BOR", torch.bitwise_or), ("BXOR", torch.bitwise_xor)):
        tensor = given(rank(), 9, dtype=torch.int32)
        dist.all_reduce(tensor, getattr(dist.ReduceOp, name))
        expected = everything(9, dtype=torch.int32)
        result = expected[0]
        for other in expected[1:]:
            result = function(result, other)
        equal(tensor, result)


@check("operations")
def tensors_that_are_not_contiguous() -> None:
    for asynchronous in (False, True):
        base = given(rank(), 4, 6)
        work = dist.all_reduce(base.t()[1:4], async_op=asynchronous)
        if asynchronous:
            work.wait()
        expected = given(rank(), 4, 6)
        expected[:, 1:4] = torch.stack(everything(4, 6)).sum(0)[:, 1:4]
        equal(base, expected)
        output = torch.zeros(3, 2 * size())
        work = dist.all_gather_into_tensor(output.t(), given(rank(), 3, 2).t(), async_op=asynchronous)
        if asynchronous:
            work.wait()
        equal(output, torch.cat(everything(3, 2), 1))


@check("operations")
def a_copied_output_gets_its_values_even_if_nobody_waits() -> None:
    base = given(rank(), 4, 6)
    future = dist.all_reduce(base.t(), async_op=True).get_future()
    future.wait()
    equal(base, torch.stack(everything(4, 6)).sum(0))


@check("operations")
def sparse_tensors_are_left_to_gloo() -> None:
    tensor = given(rank(), 5, 2).to_sparse()
    dist.all_reduce(tensor)
    equal(tensor.to_dense(), torch.stack(everything(5, 2)).sum(0))


@check("operations")
def broadcast_and_reduce() -> None:
    for root in range(size()):
        tensor = given(rank(), 4)
        dist.broadcast(tensor, root)
        equal(tensor, given(root, 4))
        tensor = given(rank(), 4)
        dist.reduce(tensor, root, SUM)
        equal(tensor, torch.stack(everything(4)).sum(0) if rank() == root else given(rank(), 4))


@check("operations")
def gathers_and_scatters() -> None:
    mine, all_of_them = given(rank(), 2, 3), everything(2, 3)
    rows = [torch.empty(2, 3) for _ in range(size())]
    dist.all_gather(rows, mine)
    equal(torch.stack(rows), torch.stack(all_of_them))
    output = torch.empty(2 * size(), 3)
    dist.all_gather_into_tensor(output, mine)
    equal(output, torch.cat(all_of_them))
    inside = torch.zeros(2 * size(), 3)  # FSDP's way: the input is a piece of the output
    inside[2 * rank() : 2 * rank() + 2] = mine
    dist.all_gather_into_tensor(inside, inside[2 * rank() : 2 * rank() + 2])
    equal(inside, torch.cat(all_of_them))
    for root in range(size()):
        rows = [torch.empty(2, 3) for _ in range(size())] if rank() == root else None
        dist.gather(mine, rows, root)
        if rank() == root:
            equal(torch.stack(rows), torch.stack(all_of_them))
        part = torch.empty(2, 3)
        dist.scatter(part, [given(to + 10 * root, 2, 3) for to in range(size())] if rank() == root else None, root)
        equal(part, given(rank() + 10 * root, 2, 3))


@check("operations")
def reduce_scatters() -> None:
    total = torch.stack(everything(2 * size(), 3)).sum(0)
    output, whole = torch.empty(2, 3), given(rank(), 2 * size(), 3)
    dist.reduce_scatter_tensor(output, whole)
    equal(output, total.chunk(size())[rank()])
    dist.reduce_scatter_tensor(whole.chunk(size())[rank()], whole, dist.ReduceOp.AVG)  # FSDP1's way: in place
    torch.testing.assert_close(whole.chunk(size())[rank()], output / size())
    output = torch.empty(2, 3)
    dist.reduce_scatter(output, list(given(rank(), 2 * size(), 3).chunk(size())))
    equal(output, total.chunk(size())[rank()])
    sizes = [to + 1 for to in range(size())]
    total = torch.stack(everything(sum(sizes))).sum(0)
    output = torch.empty(sizes[rank()])
    dist.reduce_scatter(output, list(given(rank(), sum(sizes)).split(sizes)))
    equal(output, total.split(sizes)[rank()])


@check("operations")
def all_to_alls() -> None:
    inputs = everything(2 * size(), 3)
    output = torch.empty(2 * size(), 3)
    dist.all_to_all_single(output, inputs[rank()])
    equal(output, torch.cat([tensor.chunk(size())[rank()] for tensor in inputs]))
    splits = [[(source + to) % 3 for to in range(size())] for source in range(size())]  # some are 0
    inputs = [given(of, sum(splits[of]), 2) for of in range(size())]
    expected = [tensor.split(splits[of])[rank()] for of, tensor in enumerate(inputs)]
    output = torch.empty(sum(map(len, expected)), 2)
    for asynchronous in (False, True):
        output.zero_()
        work = dist.all_to_all_single(
            output, inputs[rank()], list(map(len, expected)), splits[rank()], async_op=asynchronous
        )
        if asynchronous:
            work.wait()
        equal(output, torch.cat(expected))
    outputs = [torch.empty(len(rows), 2) for rows in expected]
    dist.all_to_all(outputs, list(inputs[rank()].split(splits[rank()])))
    for got, rows in zip(outputs, expected, strict=True):
        equal(got, rows)


@check("operations")
def many_at_once() -> None:
    from torch.distributed.distributed_c10d import _coalescing_manager

    tensors = [given(rank(), length) for length in (1, 5, 3)]
    with _coalescing_manager():
        for tensor in tensors:
            dist.all_reduce(tensor)
    with _coalescing_manager(async_ops=True) as waiting:
        for tensor in tensors:
            dist.all_reduce(tensor)
    waiting.wait()
    with _coalescing_manager(device=torch.device("cpu"), async_ops=True) as waiting:
        dist.broadcast(tensors[0], 0, async_op=True)
    waiting.wait()
    for tensor, length in zip(tensors, (1, 5, 3), strict=True):
        equal(tensor, torch.stack(everything(length)).sum(0) * size())
    works = [dist.all_reduce(torch.ones(3), async_op=True) for _ in range(200)]
    assert all(work.wait() for work in works)


@check("operations")
def a_work_tells_all_that_torch_asks() -> None:
    tensor = given(rank(), 3)
    work = dist.all_reduce(tensor, async_op=True)
    work.wait()
    assert work.is_completed()
    assert work.is_success()
    assert work.exception() is None
    equal(work.result()[0], torch.stack(everything(3)).sum(0))
    equal(work.get_future().value()[0], work.result()[0])
    work.synchronize()
    twice = dist.all_reduce(tensor, async_op=True).get_future().then(lambda future: future.value()[0] * 2)
    equal(twice.wait(), torch.stack(everything(3)).sum(0) * 2 * size())
    dist.barrier()
    dist.barrier(async_op=True).wait()


@check("operations")
def objects_and_messages() -> None:
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, {"rank": rank()})
    assert found == [{"rank": of} for of in range(size())]
    words = ["hello", 1] if rank() == 0 else [None, None]
    dist.broadcast_object_list(words, 0)
    assert words == ["hello", 1]
    after, before = (rank() + 1) % size(), (rank() - 1) % size()
    got = torch.empty(4)
    operations = [dist.P2POp(dist.isend, given(rank(), 4), after), dist.P2POp(dist.irecv, got, before)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    equal(got, given(before, 4))
    if rank() == 0:
        dist.send(given(0, 4), 1)
    elif rank() == 1:
        assert dist.recv(got) == 0  # from anybody
        equal(got, given(0, 4))


@check("operations")
def groups_of_some_ranks_and_of_one() -> None:
    pair = dist.new_group([0, size() - 1])
    alone = [dist.new_group([of]) for of in range(size())][rank()]
    if rank() in (0, size() - 1):
        assert type(pair) is type(dist.group.WORLD)
        tensor = given(rank(), 3)
        dist.all_reduce(tensor, group=pair)
        equal(tensor, given(0, 3) + given(size() - 1, 3))
        dist.broadcast(tensor, size() - 1, group=pair)
        dist.destroy_process_group(pair)
    tensor = given(rank(), 3)
    for asynchronous in (False, True):
        work = dist.all_reduce(tensor, group=alone, async_op=asynchronous)
        if asynchronous:
            work.wait()
    rows = [torch.empty(3)]
    dist.all_gather(rows, tensor, group=alone)
    equal(rows[0], given(rank(), 3))
    assert dist.get_backend(alone) == "phalanx"


# What is built on them


class Small(nn.Module):
    """Deep enough for several buckets and shards."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, batch: Tensor) -> Tensor:
        return self.layers(batch)


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4 * size(), 6, generator=generator), torch.randn(4 * size(), 2, generator=generator)


def mine(tensor: Tensor) -> Tensor:
    return tensor.chunk(size())[rank()]


def train(model: nn.Module, optimizer: Any, data: tuple[Tensor, Tensor], steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(model(data[0]), data[1]).backward()
        optimizer.step()


def alone(make: Callable[..., Any] = torch.optim.SGD, **options: Any) -> dict[str, Tensor]:
    """The parameters after training in one process, on the whole batch."""
    model = small()
    train(model, make(model.parameters(), **({"lr": 0.1} | options)), batch())
    return model.state_dict()


def same_as_alone(state: dict[str, Tensor], reference: dict[str, Tensor] | None = None) -> None:
    for name, expected in (reference or alone()).items():
        torch.testing.assert_close(state[name], expected)


def my_batch() -> tuple[Tensor, Tensor]:
    inputs, targets = batch()
    return mine(inputs), mine(targets)


@check("frameworks")
def ddp() -> None:
    model = nn.parallel.DistributedDataParallel(small(), bucket_cap_mb=0.0005)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), my_batch())
    same_as_alone(model.module.state_dict())


@check("frameworks")
def ddp_with_a_hook_and_accumulation() -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    model = nn.parallel.DistributedDataParallel(small(), find_unused_parameters=True)
    model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    inputs, targets = my_batch()
    with model.no_sync():
        F.mse_loss(model(inputs), targets).backward()
    F.mse_loss(model(inputs), targets).backward()
    reference = small()
    F.mse_loss(reference(batch()[0]), batch()[1]).backward()
    for got, expected in zip(model.module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad * 2, rtol=2e-2, atol=2e-3)


@check("frameworks")
def ddp_with_sparse_gradients() -> None:
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Embedding(10, 3, sparse=True))
    model(torch.tensor([rank(), 5])).sum().backward()
    grad = model.module.weight.grad.to_dense()
    torch.testing.assert_close(grad[5], torch.ones(3))
    torch.testing.assert_close(grad[rank()], torch.full((3,), 1 / size()))


@check("frameworks")
def ddp_with_uneven_data() -> None:
    model = nn.parallel.DistributedDataParallel(small())
    inputs, targets = my_batch()
    with model.join():
        for _ in range(1 + rank()):
            F.mse_loss(model(inputs), targets).backward()


@check("frameworks")
def zero_1() -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = nn.parallel.DistributedDataParallel(small())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.01)
    train(model, optimizer, my_batch())
    optimizer.consolidate_state_dict(0)
    same_as_alone(model.module.state_dict(), alone(torch.optim.Adam, lr=0.01))


@check("frameworks")
def fsdp_1() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    model = FullyShardedDataParallel(
        small(), device_id=torch.device("cpu"), auto_wrap_policy=ModuleWrapPolicy({nn.Linear})
    )
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), my_batch())
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT):
        same_as_alone(model.state_dict())


@check("frameworks")
def fsdp_2() -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (size(),))
    model = small()
    for layer in model.layers:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, my_batch())
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert norm.full_tensor() > 0
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if rank() == 0:
        same_as_alone(state)


@check("frameworks")
def tensor_parallel() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (size(),), mesh_dim_names=("tensor",))
    whole = torch.arange(12.0 * size()).view(3, 4 * size())
    tensor = distribute_tensor(whole, mesh, [Shard(1)])
    equal((tensor @ tensor.t()).redistribute(mesh, [Replicate()]).to_local(), whole @ whole.t())
    equal(tensor.redistribute(mesh, [Shard(0)]).full_tensor(), whole)
    model = parallelize_module(small(), mesh, {"layers.0": ColwiseParallel(), "layers.2": RowwiseParallel()})
    inputs = batch()[0]
    torch.testing.assert_close(model(inputs), small()(inputs))


@check("frameworks")
def a_checkpoint_in_pieces_is_read_in_others() -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (size(),))
    whole = torch.arange(24.0 * size()).view(4 * size(), 6)
    where: list[Any] = [tempfile.mkdtemp() if rank() == 0 else None]
    dist.broadcast_object_list(where, 0)
    dcp.save({"weight": distribute_tensor(whole, mesh, [Shard(0)])}, checkpoint_id=where[0])
    state = {"weight": distribute_tensor(torch.zeros_like(whole), mesh, [Shard(1)])}
    dcp.load(state, checkpoint_id=where[0])
    equal(state["weight"].full_tensor(), whole)
    dcp.async_save({"weight": distribute_tensor(whole * 2, mesh, [Shard(1)])}, checkpoint_id=where[0] + "/2").result()


@check("frameworks")
def compiled_functional_collectives() -> None:
    import torch.distributed._functional_collectives as functional

    def step(tensor: Tensor) -> Tensor:
        total = functional.all_reduce(tensor * 2, "sum", dist.group.WORLD)
        rows = functional.all_gather_tensor(total + 1, 0, dist.group.WORLD)
        piece = functional.reduce_scatter_tensor(rows, "sum", 0, dist.group.WORLD)
        return functional.all_to_all_single(piece.repeat(size()), None, None, dist.group.WORLD)

    compiled = torch.compile(step, fullgraph=True, backend=os.environ.get("COMPILE_WITH", "aot_eager"))
    tensor = given(rank(), 4)
    expected = ((torch.stack(everything(4)).sum(0) * 2 + 1) * size()).repeat(size())
    equal(step(tensor), expected)
    equal(compiled(tensor), expected)


# How a Work behaves


def store() -> dist.Store:
    return dist.distributed_c10d._get_default_store()


@check("behaviour")
def it_returns_before_the_others_come() -> None:
    tensor = torch.ones(1 << 20)
    if rank():
        store().wait(["begun"])  # set by rank 0 once its call has returned
    work = dist.all_reduce(tensor, async_op=True)
    if rank() == 0:
        assert not work.is_completed()
        store().set("begun", "")
    work.wait()
    equal(tensor, torch.full_like(tensor, size()))


@check("behaviour")
def it_finishes_while_its_caller_never_looks() -> None:
    tensor = torch.ones(1 << 20)
    if rank():
        dist.all_reduce(tensor)  # returns only if rank 0 takes part
        store().set("finished", "")
    else:
        dist.all_reduce(tensor, async_op=True)
        spins = 0
        while not store().check(["finished"]):
            spins += 1  # Python all the time, nothing of ours
    dist.barrier()
    equal(tensor, torch.full_like(tensor, size()))


@check("behaviour")
def its_wait_is_given_up_after_a_timeout() -> None:
    tensor = torch.ones(2)
    if rank():
        store().wait(["late"])
        dist.all_reduce(tensor)
    else:
        work = dist.all_reduce(tensor, async_op=True)
        with pytest.raises(CollectiveTimeout):
            work.wait(timedelta(milliseconds=20))
        store().set("late", "")
        work.wait()  # it was not lost
    equal(tensor, torch.full_like(tensor, size()))


@check("behaviour")
def a_trace_of_ddp_shows_buckets_reduced_inside_backward() -> None:
    from torch.profiler import ProfilerActivity, profile

    torch.manual_seed(0)
    layers = nn.Sequential(*[nn.Linear(384, 384) for _ in range(8)])
    model = nn.parallel.DistributedDataParallel(layers, bucket_cap_mb=0.5)
    inputs = torch.randn(192, 384)
    model(inputs).sum().backward()  # torch makes its buckets anew after the first
    spans, computing = [], []
    for _ in range(5):
        output = model(inputs).sum()
        dist.barrier()
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            output.backward()
        spans.append([event.time_range for event in trace.events() if event.name == "phalanx:all_reduce"])
        computing.append([event.time_range for event in trace.events() if event.name == "aten::mm"])
    assert all(len(found) >= 8 for found in spans), spans
    # Of five times, once at least a bucket was begun and done before the last matrix was multiplied.
    assert any(
        span.end < max(mm.start for mm in mms) for found, mms in zip(spans, computing, strict=True) for span in found
    )


@check("behaviour")
def operations_that_differ_raise_on_every_rank() -> None:
    """The last: the group is broken by it."""
    with pytest.raises(Mismatch) as raised:
        dist.all_reduce(torch.ones(2 + rank()))
    assert isinstance(raised.value, dist.DistBackendError)


# Groups that come and go


@check("life")
def a_destroyed_group_leaves_nothing_and_says_so() -> None:
    group = dist.group.WORLD
    tensor = torch.ones(3)
    futures = [dist.all_reduce(tensor, async_op=True).get_future() for _ in range(3)]
    dist.barrier()
    dist.destroy_process_group()
    assert [future.wait()[0] is not None for future in futures] == [True] * 3
    with pytest.raises(CollectiveError, match="destroyed"):
        group.allreduce([tensor])
    start("cpu:phalanx")


@check("life")
def devices_may_be_named() -> None:
    assert dist.get_backend_config() == "cpu:phalanx"
    tensor = given(rank(), 3)
    dist.all_reduce(tensor)
    equal(tensor, torch.stack(everything(3)).sum(0))


@check("life")
def threads_files_and_memory_are_given_back() -> None:
    def held() -> tuple[int, int]:
        buffers = sum("/dev/shm/phalanx" in line for line in Path("/proc/self/maps").read_text().splitlines())
        return len(os.listdir("/proc/self/task")), buffers

    before = held()
    for _ in range(3):
        group = dist.new_group()
        dist.all_reduce(torch.ones(3), group=group, async_op=True).get_future().wait()
        dist.destroy_process_group(group)
    assert held() == before


@check("life")
def one_that_broke_is_made_anew_in_the_same_store() -> None:
    """torchrun's store outlives the groups in it, and torch calls each of them the same."""
    me, everybody, shared = rank(), size(), store()
    dist.destroy_process_group()
    for _ in range(3):
        dist.init_process_group("phalanx", store=shared, rank=me, world_size=everybody, timeout=timedelta(seconds=20))
        with pytest.raises(Mismatch):
            dist.all_reduce(torch.ones(2 + me))
        dist.destroy_process_group()
    start()


_starts = 0


def start(backend: str = "phalanx") -> None:
    global _starts
    _starts += 1
    dist.init_process_group(
        backend,
        init_method=f"file://{os.environ['PHALANX_RENDEZVOUS']}-{_starts}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


def main(output: str, *groups: str) -> None:
    start()
    results = {}
    for function in [function for group in groups for function in CHECKS[group]]:
        sys.stderr.write(f"{function.__name__}\n")
        try:
            function()
            results[function.__name__] = ""
        except Exception:  # noqa: BLE001 - the test shows it
            results[function.__name__] = traceback.format_exc()
            break  # the ranks may be out of step
    Path(f"{output}-{rank()}").write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
