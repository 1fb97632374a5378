"""Packing and unpacking is exact, whatever the tensors; sparse sums and objects by themselves."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phalanx.collectives import CollectiveError, compression, fusion, objects, sparse
from tests.collectives.arithmetic import EVERY_DTYPE, alike, values

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
TENSORS = st.lists(st.tuples(st.sampled_from(EVERY_DTYPE), SHAPES, st.integers(0, 99)), min_size=1, max_size=8).map(
    lambda made: [values(*one) for one in made]
)


@given(tensors=TENSORS, limit=st.integers(1, 300))
def test_every_tensor_is_in_one_bucket_of_its_kind_and_within_the_limit(tensors, limit):
    found = list(fusion.buckets(tensors, limit))
    assert sorted(index for bucket in found for index in bucket) == list(range(len(tensors)))
    for bucket in found:
        assert len({tensors[index].dtype for index in bucket}) == 1
        assert bucket == sorted(bucket)
        assert len(bucket) == 1 or sum(tensors[index].nbytes for index in bucket) <= limit


@given(tensors=TENSORS)
def test_what_is_packed_comes_out_alike(tensors):
    for bucket in fusion.buckets(tensors):
        chosen = [tensors[index] for index in bucket]
        flat = fusion.pack([tensor.transpose(0, -1) if tensor.ndim else tensor for tensor in chosen])
        results = [torch.empty_like(tensor) for tensor in chosen]
        fusion.unpack_into(flat, [result.transpose(0, -1) if result.ndim else result for result in results])
        assert all(alike(result, tensor) for result, tensor in zip(results, chosen, strict=True))


@given(tensors=TENSORS, offset=st.integers(0, 40))
def test_ragged_tensors_of_any_dtypes_travel_in_one_piece_of_memory(tensors, offset):
    rows = [tensor if tensor.ndim else tensor.reshape(1) for tensor in tensors]
    packed = fusion.pack_ragged(rows)
    moved = torch.cat([torch.zeros(offset, dtype=torch.uint8), packed])[offset:]  # as it lies among other ranks'
    like = [tensor[:0] for tensor in rows]
    assert all(alike(a, b) for a, b in zip(fusion.unpack_ragged(moved, like), rows, strict=True))


@given(total=st.integers(0, 1000), parts=st.integers(1, 70))
def test_earlier_ranks_get_one_row_more(total, parts):
    rows = fusion.divided(total, parts)
    assert sum(rows) == total
    assert rows == sorted(rows, reverse=True)
    assert rows[0] - rows[-1] <= 1


def test_sparse_sums_add_a_place_in_rank_order():
    parts = [
        (torch.tensor([[0, 2]]), torch.tensor([1e8, 1.0])),
        (torch.tensor([[2]]), torch.tensor([2.0])),
        (torch.tensor([[0, 1]]), torch.tensor([-1e8, 5.0])),
    ]
    total = sparse.add_up(parts, torch.Size([4]), divisor=None, scale=1.0)
    assert total.is_coalesced()
    assert total.to_dense().tolist() == [0.0, 5.0, 3.0, 0.0]
    assert sparse.add_up(parts, torch.Size([4]), divisor=2, scale=3.0).to_dense().tolist() == [0.0, 7.5, 4.5, 0.0]


def test_sparse_sums_of_nothing_are_nothing():
    nothing = (torch.empty((2, 0), dtype=torch.int64), torch.empty(0))
    assert sparse.add_up([nothing, nothing], torch.Size([2, 2]), None, 1.0).to_dense().tolist() == [[0, 0], [0, 0]]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=PLAIN)
def test_plain_objects_come_back_equal_and_of_the_same_types(value):
    back = objects.decode(objects.encode(value, "it"))
    assert back == value
    assert json.dumps(back) == json.dumps(value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ((1, 2), "the object is of type builtins.tuple"),
        ({"a": [b"bytes"]}, r"the object\['a'\]\[0\] is of type builtins.bytes"),
        ({1: 2}, "a key of the object is 1, of type int"),
        ([torch.float32], r"the object\[0\] is of type torch.dtype"),
    ],
)
def test_what_json_would_change_is_refused_with_its_place(value, place):
    with pytest.raises(CollectiveError, match=f"settings: {place}"):
        objects.decode(objects.encode(value, "settings"))


@pytest.mark.parametrize("dtype", EVERY_DTYPE)
def test_compression_narrows_wide_floats_only_and_gives_the_dtype_back(dtype):
    tensor = values(dtype, (20,), 3)
    for method in (compression.none, compression.fp16, compression.bf16):
        small, context = method.compress(tensor)
        wide = dtype in (torch.float32, torch.float64) and method is not compression.none
        assert small.dtype is (method.dtype if wide else dtype)
        back = method.decompress(small, context)
        assert back.dtype is dtype
        assert wide or alike(back, tensor)
