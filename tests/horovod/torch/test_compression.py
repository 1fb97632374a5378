"""What becomes of a tensor on its way: dtypes out and back, against torch's own casts."""

from __future__ import annotations

import pytest
import torch

from phalanx.horovod.torch import Compression
from phalanx.horovod.torch.compression import Compressor

FLOATING = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OTHERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool]


@pytest.mark.parametrize("dtype", FLOATING)
def test_floating_point_travels_as_float16_and_comes_back_in_its_dtype(dtype):
    tensor = torch.randn(5, 3, dtype=torch.float64).to(dtype)
    small, context = Compression.fp16.compress(tensor)
    assert small.dtype is torch.float16
    assert torch.equal(Compression.fp16.decompress(small, context), tensor.half().to(dtype))


@pytest.mark.parametrize("dtype", OTHERS)
def test_what_is_not_floating_point_is_left_alone(dtype):
    tensor = torch.ones(5, 3, dtype=dtype)
    small, context = Compression.fp16.compress(tensor)
    assert small is tensor
    assert Compression.fp16.decompress(small, context) is tensor


def test_without_compression_nothing_is_touched():
    tensor = torch.randn(3)
    small, context = Compression.none.compress(tensor)
    assert small is tensor
    assert Compression.none.decompress(small, context) is tensor


def test_a_compressor_of_a_script_must_say_how():
    with pytest.raises(NotImplementedError):
        Compressor.compress(torch.ones(1))
    with pytest.raises(NotImplementedError):
        Compressor.decompress(torch.ones(1), None)


def values_that_float16_rounds():
    import phalanx.horovod.torch as hvd

    mine = torch.tensor([1.0 + 2.0**-12, 3.0 + hvd.rank(), 1e-3], dtype=torch.float64)
    before = mine.clone()
    rounded = hvd.allreduce(mine, name="fp16", compression=Compression.fp16, op=hvd.Sum)
    assert torch.equal(mine, before)
    return rounded.tolist()


def test_a_sum_of_compressed_tensors_is_rounded_as_float16_is(crew):
    expected = torch.tensor([2.0, 7.0, 2e-3], dtype=torch.float64).half().double().tolist()
    assert crew(2).tell(values_that_float16_rounds) == [expected] * 2
