"""A group of one: the identity with the semantics of the others, and nothing opened for it."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from phalanx.collectives import CollectiveError, Membership, compression, join


def test_every_operation_is_the_identity():
    group = join(Membership())
    tensor = torch.arange(6).view(2, 3)
    for op in ("sum", "average", "min", "max", "product"):
        assert group.allreduce(tensor.clone(), op).synchronize().equal(tensor)
    assert group.allreduce(tensor.t(), in_place=False).synchronize().equal(tensor.t())
    assert group.broadcast(tensor).synchronize() is tensor
    assert group.allgather(tensor).equal(tensor)
    assert group.allgather(torch.tensor(7)).tolist() == [7]
    assert group.reducescatter(tensor).equal(tensor)
    output, rows = group.alltoall(tensor)
    assert output.equal(tensor)
    assert rows == [2]
    assert [part.tolist() for part in group.grouped_allgather([tensor, tensor[0]])] == [tensor.tolist(), [0, 1, 2]]
    assert [part.tolist() for part in group.grouped_reducescatter([tensor, tensor[0]])] == [tensor.tolist(), [0, 1, 2]]
    assert group.allgather_object({"a": 1}) == [{"a": 1}]
    assert group.broadcast_object([None]) == [None]
    assert group.join() == 0
    group.barrier()


def test_scales_and_roundings_are_those_of_larger_groups():
    group = join(Membership())
    assert group.allreduce(torch.tensor([7, -7]), prescale=0.5).synchronize().tolist() == [3, -3]
    assert group.allreduce(torch.tensor([1.0]), prescale=3.0, postscale=0.5).synchronize().item() == 1.5
    rounded = group.allreduce(torch.tensor([1.0 + 2**-12]), compression=compression.fp16).synchronize()
    assert rounded.item() == 1.0
    sparse = torch.sparse_coo_tensor([[1, 1]], [1.0, 2.0], (3,))
    assert group.allreduce(sparse, "average").synchronize().to_dense().tolist() == [0.0, 3.0, 0.0]


def test_a_scale_that_is_no_number_is_refused_and_harms_nothing():
    group = join(Membership())
    with pytest.raises(CollectiveError, match="sum loss: 'half' is no number to scale by"):
        group.allreduce(torch.ones(2), "sum", "loss", prescale="half")
    assert group.allreduce(torch.ones(2)).synchronize().tolist() == [1.0, 1.0]


def test_it_is_its_own_only_subgroup():
    group = join(Membership())
    part = group.subgroup([0])
    assert part is not None
    assert (part.rank, part.size, part.members) == (0, 1, (0,))


def test_nothing_is_opened_and_no_thread_runs():
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    group = join(Membership())
    handles = [group.allreduce(torch.ones(3)) for _ in range(10)]
    assert all(handle.poll() for handle in handles)
    assert len(os.listdir("/proc/self/fd")) == files
    assert threading.active_count() == threads
    group.close()


def test_tensors_without_data_pass():
    group = join(Membership())
    meta = torch.empty(3, device="meta")
    assert group.allreduce(meta).synchronize() is meta
    group.broadcast(meta).wait()


@pytest.mark.parametrize("dtype", [torch.float8_e8m0fnu, torch.uint16, torch.bool, torch.complex64])
def test_odd_dtypes_pass(dtype):
    tensor = torch.ones(4).to(dtype)
    assert join(Membership()).allgather(tensor).dtype is dtype
