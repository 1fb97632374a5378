"""Every set of kernels that this CPU can run, and torch without any, against arithmetic elsewhere: bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phalanx.collectives import CollectiveError
from phalanx.collectives.transports.library import library
from phalanx.collectives.transports.reduction import combine
from phalanx.collectives.transports.reference import combine_in_torch
from phalanx.collectives.transports.transport import ReduceOp
from tests.collectives.arithmetic import EVERY_DTYPE, alike, reduced, values

BEST = 2
LEVELS = ["portable", "AVX2", "AVX-512"]
SCALES = st.sampled_from([1.0, 0.5, 3.0, -1.25])
# Of a vector's width and a little more or less, and past the blocks in which kernels work.
LENGTHS = st.one_of(st.integers(0, 70), st.sampled_from([1023, 1024, 1025, 4099]))


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    number = LEVELS.index(request.param)
    if library().ph_use_level(number) != number:
        library().ph_use_level(BEST)
        pytest.skip(f"this CPU has no {request.param}")
    yield request.param
    library().ph_use_level(BEST)


@st.composite
def reductions(draw: st.DrawFn) -> tuple[list[torch.Tensor], ReduceOp, float, float]:
    dtype = draw(st.sampled_from([*EVERY_DTYPE, torch.complex32]))
    ops = ["sum", "product"] if dtype.is_complex else ["sum", "product", "min", "max"]
    op = draw(st.sampled_from(ops if dtype is torch.bool else [*ops, "average"]))
    scales = (1.0, 1.0) if dtype is torch.bool else (draw(SCALES), draw(SCALES))
    length, seed = draw(LENGTHS), draw(st.integers(0, 10**6))
    return [values(dtype, (length,), seed + number) for number in range(draw(st.integers(1, 5)))], op, *scales


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(case=reductions())
def test_kernels_of_every_level_compute_what_the_reference_defines(
    level: str, case: tuple[list[torch.Tensor], ReduceOp, float, float]
) -> None:
    tensors, op, prescale, postscale = case
    found, defined = torch.empty_like(tensors[0]), torch.empty_like(tensors[0])
    combine(tensors, op, output=found, prescale=prescale, postscale=postscale)
    combine_in_torch(tensors, op, output=defined, prescale=prescale, postscale=postscale)
    assert alike(found, defined), (found, defined)
    if tensors[0].dtype is not torch.complex32:  # numpy has no such type
        assert alike(found, reduced(tensors, op, prescale, postscale))
    combine(tensors, op, output=tensors[-1], prescale=prescale, postscale=postscale)
    assert alike(tensors[-1], found), "the output may be one of the inputs"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_number_is_read_and_rounded_as_torch_does(level: str, dtype: torch.dtype) -> None:
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    for factor in (1.0, 0.37):
        found = torch.empty_like(every)
        combine([every], "sum", output=found, prescale=factor)
        assert alike(found, (every.to(torch.float32) * torch.tensor(factor)).to(dtype))


FLOAT8 = [torch.float8_e5m2, torch.float8_e4m3fn, torch.float8_e5m2fnuz, torch.float8_e4m3fnuz]


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_every_pair_of_8_bit_numbers_is_added_up_and_rounded_as_torch_does(level: str, dtype: torch.dtype) -> None:
    every = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    a, b = every.repeat(256).view(dtype), every.repeat_interleave(256).view(dtype)
    found = torch.empty_like(a)
    combine([a, b], "sum", output=found)
    assert alike(found, (a.to(torch.float32) + b.to(torch.float32)).to(dtype))


def test_what_no_number_could_be_right_for_is_refused() -> None:
    with pytest.raises(CollectiveError, match="complex numbers have no order"):
        combine([torch.ones(2, dtype=torch.complex64)], "max", output=torch.empty(2, dtype=torch.complex64))
    with pytest.raises(CollectiveError, match="cannot be divided or scaled"):
        combine([torch.ones(2, dtype=torch.bool)], "average", output=torch.empty(2, dtype=torch.bool))
