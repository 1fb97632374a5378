"""The operations under Horovod's names, on real ranks, judged by what torch computes from all inputs on one."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import phalanx.horovod.torch as hvd
from tests.horovod.crew import Crews
from tests.processes import wait_until

SIZES = [1, 2, 4]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.uint8]


def inputs(dtype: torch.dtype, shape: tuple[int, ...], size: int, seed: int = 1) -> list[torch.Tensor]:
    """Of every rank; small whole numbers, so that sums are exact in every dtype."""
    made = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 5, shape, generator=made).to(dtype) for _ in range(size)]


def reductions() -> None:
    rank, size = hvd.rank(), hvd.size()
    for dtype in DTYPES:
        for shape in ((), (7,), (3, 5), (70_000,)):
            given = inputs(dtype, shape, size)
            stacked = torch.stack([tensor.double() for tensor in given])
            expected = {hvd.Sum: stacked.sum(0), hvd.Min: stacked.amin(0), hvd.Max: stacked.amax(0)}
            for op, wanted in expected.items():
                mine = given[rank].clone()
                assert torch.equal(hvd.allreduce(mine, op=op).double(), wanted)
                assert torch.equal(mine, given[rank])  # left alone
                assert hvd.allreduce_(mine, op=op) is mine
                assert torch.equal(mine.double(), wanted)
            mean = hvd.allreduce(given[rank])
            exact = stacked.sum(0) / size
            assert torch.equal(mean, exact.to(dtype) if dtype.is_floating_point else exact.trunc().to(dtype))


@pytest.mark.parametrize("size", SIZES)
def test_reductions_of_every_dtype_are_what_one_process_computes(crew: Crews, size: int) -> None:
    crew(size).tell(reductions)


def scaled() -> None:
    rank, size = hvd.rank(), hvd.size()
    given = inputs(torch.int32, (9,), size)
    pre = sum((tensor.double() * 1.5).trunc() for tensor in given)
    assert torch.equal(hvd.allreduce(given[rank], op=hvd.Sum, prescale_factor=1.5).double(), pre)
    post = (sum(given).double() * 1.5).trunc()  # type: ignore[union-attr]
    assert torch.equal(hvd.allreduce(given[rank], op=hvd.Sum, postscale_factor=1.5).double(), post)


def in_any_order(seed: int) -> None:
    rank, size = hvd.rank(), hvd.size()
    order = list(range(60))
    random.Random(seed + rank).shuffle(order)
    given = {n: inputs(torch.float32, (1 + n * n * 40,), size, n) for n in order}
    handles = {n: hvd.allreduce_async_(given[n][rank].clone(), name=f"t{n}", op=hvd.Sum) for n in order}
    random.Random(rank - seed).shuffle(order)
    for n in order:
        assert torch.equal(hvd.synchronize(handles[n]), torch.stack(given[n]).sum(0)), n


@pytest.mark.parametrize("size", [2, 4])
def test_scales_and_operations_issued_in_another_order_on_each_rank(crew: Crews, size: int) -> None:
    ranks = crew(size)
    ranks.tell(scaled)
    for seed in range(5):
        ranks.tell(in_any_order, seed)


def kinds_at_once() -> None:
    """Different kinds under one name are different operations; each rank begins another one first."""
    rank, size = hvd.rank(), hvd.size()
    calls: list[tuple[Any, Any]] = [
        (lambda: hvd.allreduce_async(torch.ones(3), name="x", op=hvd.Sum), torch.full((3,), float(size))),
        (lambda: hvd.allgather_async(torch.full((rank, 2), rank), name="x"), None),
        (lambda: hvd.broadcast_async(torch.tensor([rank]), size - 1, name="x"), torch.tensor([size - 1])),
        (lambda: hvd.reducescatter_async(torch.ones(size, 2), name="x", op=hvd.Sum), torch.full((1, 2), float(size))),
        (lambda: hvd.grouped_allreduce_async([torch.ones(2), torch.ones(1)], name="x"), None),
    ]
    begun = [(calls[(place + rank) % len(calls)]) for place in range(len(calls))]
    for handle, wanted in [(start(), wanted) for start, wanted in begun]:
        found = hvd.synchronize(handle)
        assert hvd.synchronize(handle) is None  # as Horovod answers the second time
        if wanted is not None:
            assert torch.equal(found, wanted)
        elif isinstance(found, list):
            assert [tensor.tolist() for tensor in found] == [[1.0, 1.0], [1.0]]
        else:
            assert found[:, 0].tolist() == [peer for peer in range(size) for _ in range(peer)]
    with pytest.raises(ValueError, match="was not created"):
        hvd.poll(10_000_000)


def rows_sent() -> None:
    rank, size = hvd.rank(), hvd.size()
    splits = torch.tensor([rank + 1] * size, dtype=torch.int32)
    rows = torch.full((size * (rank + 1),), rank)
    received, counts = hvd.alltoall(rows, splits=splits)
    assert counts.tolist() == [peer + 1 for peer in range(size)]
    assert counts.dtype == torch.int32
    assert received.tolist() == [peer for peer in range(size) for _ in range(peer + 1)]
    assert torch.equal(hvd.alltoall(torch.arange(size)), torch.full((size,), rank))
    for tensor, wrong in [
        (torch.zeros(size + 1), None),
        (torch.zeros(size - 1), torch.ones(size, dtype=torch.int32)),
        (torch.zeros(size), torch.ones(size)),
        (torch.zeros(size), torch.ones(size + 1, dtype=torch.int32)),
    ]:
        if size > 1 or wrong is not None:
            with pytest.raises(ValueError, match="alltoall"):
                hvd.alltoall(tensor, wrong)


@pytest.mark.parametrize("size", SIZES)
def test_every_kind_of_operation(crew: Crews, size: int) -> None:
    ranks = crew(size)
    ranks.tell(kinds_at_once)
    ranks.tell(rows_sent)


def gradients() -> None:
    """Of a sum over ranks of weighted results, against the same function of all inputs in one process."""
    rank, size = hvd.rank(), hvd.size()

    def given(seed: int) -> list[torch.Tensor]:
        made = torch.Generator().manual_seed(seed)
        return [torch.randn(size * 2, 3, generator=made, dtype=torch.float64) for _ in range(size)]

    xs = [tensor.requires_grad_() for tensor in given(1)]
    weights = given(2)
    mine = xs[rank].detach().clone().requires_grad_()

    def check(result: torch.Tensor, weight: torch.Tensor, everywhere: list[torch.Tensor], factor: float) -> None:
        (ours,) = torch.autograd.grad((result * weight).sum(), mine)
        total = sum((whole * other).sum() for whole, other in zip(everywhere, everywhere_weights, strict=True))
        theirs = torch.autograd.grad(total, xs, retain_graph=True, materialize_grads=True)[rank]  # type: ignore[arg-type]
        torch.testing.assert_close(ours, theirs * factor)

    everywhere_weights = weights
    check(hvd.allreduce(mine, op=hvd.Sum), weights[rank], [sum(xs)] * size, 1.0)  # type: ignore[list-item]
    check(hvd.allreduce(mine), weights[rank], [sum(xs) / size] * size, 1.0)  # type: ignore[list-item]
    check(hvd.alltoall(mine), weights[rank], [torch.cat([x[2 * r : 2 * r + 2] for x in xs]) for r in range(size)], 1.0)
    # Horovod's gradients of these two are averages over ranks, where mathematics has sums.
    everywhere_weights = [torch.cat(weights)] * size
    check(hvd.allgather(mine), torch.cat(weights), [torch.cat(xs)] * size, 1 / size)
    everywhere_weights = weights
    check(hvd.broadcast(mine, size - 1), weights[rank], [xs[-1]] * size, 1 / size)
    # And that of a summed reducescatter is multiplied by the number of ranks.
    everywhere_weights = [weight[:2] for weight in weights]
    parts = [sum(x[2 * r : 2 * r + 2] for x in xs) for r in range(size)]
    check(hvd.reducescatter(mine, op=hvd.Sum), weights[rank][:2], parts, size)  # type: ignore[arg-type]
    grouped = hvd.grouped_allreduce([mine, mine * 2], op=hvd.Sum)
    everywhere_weights = weights
    check(grouped[0] + grouped[1], weights[rank], [sum(xs) * 3] * size, 1.0)  # type: ignore[list-item]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_gradients_are_those_of_one_process_but_where_horovods_are_not(crew: Crews, size: int) -> None:
    crew(size).tell(gradients)


def disagreements() -> None:
    rank = hvd.rank()
    wrong: list[Any] = [
        lambda: hvd.allreduce(torch.ones(2 + rank)),
        lambda: hvd.allreduce(torch.ones(2, dtype=torch.float64 if rank else torch.float32)),
        lambda: hvd.allreduce(torch.ones(2), op=hvd.Sum if rank else hvd.Max),
        lambda: hvd.allreduce(torch.ones(2), prescale_factor=1.0 + rank),
        lambda: hvd.broadcast(torch.ones(2), rank),
        lambda: hvd.allgather(torch.ones(2, 2 + rank)),
        lambda: hvd.grouped_allreduce([torch.ones(2)] * (1 + rank)),
        lambda: hvd.reducescatter(torch.tensor(1.0)),
    ]
    for call in wrong:
        with pytest.raises(hvd.HorovodInternalError, match=r"rank 0|without dimensions"):
            call()
    assert hvd.allreduce(torch.ones(1), op=hvd.Sum).item() == hvd.size()  # and all goes on


def refused_at_once() -> None:
    rank, size = hvd.rank(), hvd.size()
    if rank == 0:
        hvd.allreduce_async(torch.ones(4), name="twice")
        with pytest.raises(ValueError, match=r"allreduce\.twice is in flight already on rank 0"):
            hvd.allreduce_async(torch.ones(4), name="twice")
    hvd.barrier()
    if rank > 0:
        hvd.allreduce_async(torch.ones(4), name="twice")
    hvd.barrier()
    for call, words in [
        (lambda: hvd.broadcast(torch.ones(1), size), f"rank {size} is not one of"),
        (lambda: hvd.allreduce(torch.ones(1), op=99), "there is no reduction 99"),
        (lambda: hvd.allreduce(torch.ones(1), average=True, op=hvd.Sum), "op"),
        (lambda: hvd.allreduce(torch.ones(3).to_sparse()), "sparse"),
        (lambda: hvd.allreduce(torch.ones(1), process_set=hvd.ProcessSet([0])), "is not known"),
        (lambda: hvd.ProcessSet("ab"), "list of ranks"),  # type: ignore[arg-type]
        (lambda: hvd.add_process_set([0, size]), "are no ranks"),
        (lambda: hvd.add_process_set(range(size)), "already"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(hvd.HorovodInternalError, match="only Average and Sum"):
        hvd.reducescatter(torch.ones(4), op=hvd.Adasum)


@pytest.mark.parametrize("size", [2, 4])
def test_what_ranks_disagree_on_fails_on_all_and_what_is_wrong_on_one_fails_there(crew: Crews, size: int) -> None:
    ranks = crew(size)
    ranks.tell(disagreements)
    ranks.tell(refused_at_once)
    ranks.tell(disagreements)


def with_sets() -> None:
    rank, size = hvd.rank(), hvd.size()
    even = hvd.add_process_set(range(0, size, 2))
    odd = hvd.add_process_set(hvd.ProcessSet(list(range(1, size, 2))))
    mine, other = (odd, even) if rank % 2 else (even, odd)
    assert mine.included()
    assert not other.included()
    assert (mine.size(), mine.rank()) == (len(mine.ranks or []), rank // 2)
    with pytest.raises(ValueError, match="not a member"):
        hvd.allreduce(torch.ones(1), process_set=other)
    with pytest.raises(ValueError, match="not a member"):
        other.rank()
    for _ in range(3 if rank % 2 else 5):  # unnamed operations are counted by set
        assert hvd.allreduce(torch.tensor(float(rank)), op=hvd.Sum, process_set=mine).item() == sum(mine.ranks or [])
    assert hvd.broadcast(torch.tensor(rank), (mine.ranks or [])[-1], process_set=mine).item() == (mine.ranks or [])[-1]
    assert hvd.allgather(torch.tensor([rank]), process_set=mine).tolist() == mine.ranks
    hvd.barrier(process_set=mine)
    assert hvd.allreduce(torch.ones(1), op=hvd.Sum).item() == size
    assert hvd.remove_process_set(even)
    assert hvd.remove_process_set(odd)
    assert not hvd.remove_process_set(odd)
    assert not hvd.remove_process_set(hvd.global_process_set)
    assert mine.size() is None


def with_joins() -> None:
    rank, size = hvd.rank(), hvd.size()
    for first in range(size):
        if rank != first:
            for step in range(3):
                handles = [
                    hvd.allreduce_async(torch.full((n,), float(rank)), name=f"t{n}") for n in (3, 100, 80_000 + step)
                ]
                grouped = hvd.grouped_allreduce([torch.ones(2), torch.ones(3)], op=hvd.Sum)
                assert [tensor[0].item() for tensor in grouped] == [size - 1, size - 1]
                for handle in handles:
                    assert hvd.synchronize(handle)[0].item() == (sum(range(size)) - first) / size
            with pytest.raises(hvd.HorovodInternalError, match=f"while rank {first} has joined"):
                hvd.allgather(torch.ones(1))
        last = hvd.join()
        assert last != first or size == 1
        assert hvd.allgather(torch.tensor([last])).tolist() == [last] * size


@pytest.mark.parametrize("size", [2, 4])
def test_process_sets_and_ranks_that_join_early(crew: Crews, size: int) -> None:
    ranks = crew(size)
    ranks.tell(with_sets)
    ranks.tell(with_joins)
    ranks.tell(with_sets)


def from_threads() -> None:
    rank, size = hvd.rank(), hvd.size()
    wrong: list[str] = []

    def work(thread: int) -> None:
        for step in range(20):
            total = hvd.allreduce(torch.full((5,), float(rank + step)), name=f"{thread}", op=hvd.Sum)
            if total[0].item() != sum(peer + step for peer in range(size)):
                wrong.append(f"thread {thread}, step {step}: {total}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def left_unsynchronized() -> None:
    """What nobody waits for is done all the same, and kept by nobody."""
    tensors = [torch.ones(100 * n + 1) for n in range(30)]
    for tensor in tensors:
        hvd.allreduce_async_(tensor, op=hvd.Sum)
    hvd.barrier()
    done = threading.Event()
    while not all((tensor == hvd.size()).all() for tensor in tensors):
        assert not done.wait(0.01)
    from phalanx.horovod.common.basics import basics

    while basics.engine._in_flight:
        assert not done.wait(0.01)


def again_and_again() -> tuple[int, int]:
    import os

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    counts = []
    for _ in range(12):
        hvd.shutdown()
        counts.append(descriptors())  # here, and not while another rank may be ending what this one has begun
        assert not hvd.is_initialized()
        for call in (hvd.rank, hvd.size, hvd.local_rank, hvd.cross_size):
            with pytest.raises(ValueError, match=r"use hvd\.init"):
                call()
        with pytest.raises(hvd.HorovodInternalError, match=r"use hvd\.init"):
            hvd.allreduce(torch.ones(1))
        hvd.init()
        hvd.init()  # nothing, the second time
        assert hvd.allreduce(torch.ones(1), op=hvd.Sum).item() == hvd.size()
    return counts[1], counts[-1]


@pytest.mark.parametrize("size", [1, 2])
def test_threads_forgotten_handles_and_new_beginnings(crew: Crews, size: int) -> None:
    ranks = crew(size)
    ranks.tell(from_threads)
    ranks.tell(left_unsynchronized)
    for before, after in ranks.tell(again_and_again):
        assert after <= before, "descriptors are left open"
    ranks.tell(from_threads)


def layouts_that_horovod_refuses() -> None:
    rank, size = hvd.rank(), hvd.size()
    strided = torch.arange(12.0).view(3, 4).t()[::2]
    assert torch.equal(hvd.allreduce(strided, op=hvd.Sum), strided * size)
    last = torch.full((2, 3, 4, 4), float(rank)).contiguous(memory_format=torch.channels_last)
    hvd.allreduce_(last, op=hvd.Sum)
    assert (last == sum(range(size))).all()
    assert last.is_contiguous(memory_format=torch.channels_last)
    for shape in ((2, 3, 4, 4), (8, 32, 32, 32)):
        other = torch.arange(float(torch.Size(shape).numel())).view(shape)
        if rank:  # the ranks need not have the same
            other = other.contiguous(memory_format=torch.channels_last)
        assert torch.equal(hvd.allreduce(other, op=hvd.Sum), other * size)
        assert torch.equal(hvd.broadcast(other * (rank + 1), 1), other * 2)
        mine = other.clone()
        assert torch.equal(hvd.broadcast_(mine.mul_(rank + 1), 1), other * 2)
        assert torch.equal(hvd.allreduce_(mine, op=hvd.Sum), other * 2 * size)
    parameter = torch.nn.Parameter(torch.full((3,), float(rank)))
    hvd.broadcast_(parameter, 1)
    assert parameter.tolist() == [1.0] * 3
    hvd.allreduce_(parameter.data, op=hvd.Sum)
    assert parameter.tolist() == [float(size)] * 3


def several_dtypes_at_once() -> None:
    rank, size = hvd.rank(), hvd.size()
    large = 2**53 - 1 - size  # which no float32 and no sum in float64 would keep
    given = [torch.tensor([large + rank]), torch.tensor([0.5]), torch.tensor([1], dtype=torch.uint8),
             torch.tensor([large]), torch.tensor([0.25]), torch.ones(90_000, dtype=torch.float64)]  # fmt: skip
    found = hvd.grouped_allreduce(given, op=hvd.Max)
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in given]
    assert [tensor[0].item() for tensor in found] == [large + size - 1, 0.5, 1, large, 0.25, 1.0]


@pytest.mark.parametrize("size", [1, 2])
def test_a_group_of_tensors_of_several_dtypes(crew: Crews, size: int) -> None:
    crew(size).tell(several_dtypes_at_once)


def test_tensors_of_any_layout(crew: Crews) -> None:
    crew(2).tell(layouts_that_horovod_refuses)


def polled() -> None:
    for _ in range(50):
        tensors = [torch.ones(3), torch.ones(4)]
        handle = hvd.grouped_allreduce_async_(tensors, op=hvd.Sum, name="polled")
        while not hvd.poll(handle):
            pass
        assert all(torch.equal(tensor, torch.full_like(tensor, hvd.size())) for tensor in tensors)
        hvd.synchronize(handle)


def test_a_poll_that_says_yes_is_of_tensors_that_are_reduced(crew: Crews) -> None:
    crew(2).tell(polled)


def not_what_is_wanted() -> None:
    some = torch.ones(2)
    calls: list[tuple[str, Any]] = [
        ("allreduce", lambda: hvd.allreduce([1.0, 2.0])),  # type: ignore[arg-type]
        ("allreduce", lambda: hvd.allreduce_(3.0)),  # type: ignore[arg-type]
        ("allreduce", lambda: hvd.grouped_allreduce([some, "two"])),  # type: ignore[list-item]
        ("Tensor", lambda: hvd.allreduce([1.0], compression=hvd.Compression.fp16)),  # type: ignore[arg-type]
        ("sparse_allreduce", lambda: hvd.sparse_allreduce_async(None, "x", hvd.Sum)),  # type: ignore[arg-type]
        ("allgather", lambda: hvd.allgather([1])),  # type: ignore[arg-type]
        ("allgather", lambda: hvd.grouped_allgather([some, 1])),  # type: ignore[list-item]
        ("broadcast", lambda: hvd.broadcast(None, 0)),  # type: ignore[arg-type]
        ("broadcast_parameters", lambda: hvd.broadcast_parameters([some, ("bias", 2)], root_rank=0)),
        ("alltoall", lambda: hvd.alltoall([1])),  # type: ignore[arg-type]
        ("reducescatter", lambda: hvd.reducescatter([1])),  # type: ignore[arg-type]
        ("ProcessSet", lambda: hvd.allreduce(some, process_set=[0])),  # type: ignore[arg-type]
        ("ProcessSet", lambda: hvd.barrier(0)),  # type: ignore[arg-type]
        ("optimizer", lambda: hvd.DistributedOptimizer(some)),  # type: ignore[arg-type]
    ]
    for word, call in calls:
        with pytest.raises(TypeError, match=word):
            call()
    with pytest.raises(ValueError, match=r"sparse_allreduce x: the tensor is not sparse"):
        hvd.sparse_allreduce_async(some, "x", hvd.Sum)


def test_what_is_no_tensor_or_no_process_set_is_one_error_that_says_so(crew: Crews) -> None:
    crew(2).tell(not_what_is_wanted)


def joined_by_two_threads(refused: Path) -> set[str]:
    """On rank 0; rank 1 keeps it waiting until one of them was refused."""
    if hvd.rank():
        wait_until(refused.exists, "rank 0 is not refused")
        return {str(hvd.join())}
    answers: set[str] = set()

    def join() -> None:
        try:
            answers.add(str(hvd.join()))
        except ValueError as error:
            answers.add(str(error))
            refused.touch()

    threads = [threading.Thread(target=join) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_a_second_join_of_a_rank_is_refused_while_the_first_waits(crew: Crews, tmp_path: Path) -> None:
    first, second = crew(2).tell(joined_by_two_threads, tmp_path / "refused")
    assert first == {"1", "rank 0 has joined already, and waits for the others"}
    assert second == {"1"}
