"""Inputs from a seed, and what a reduction of them is: in numpy and Python's integers, with none of our code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch

INTEGERS = (torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64)
NARROW = (
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)
FLOATS = (torch.float32, torch.float64, *NARROW)
COMPLEX = (torch.complex64, torch.complex128)
EVERY_DTYPE = (*FLOATS, *INTEGERS, *COMPLEX, torch.bool)
_SPECIAL = torch.tensor(
    [0.0, -0.0, 1.0, float("inf"), -float("inf"), float("nan"), 65504.0, 1e-40], dtype=torch.float64
)


def values(dtype: torch.dtype, shape: Sequence[int], seed: int) -> torch.Tensor:
    """The same on every machine: integers are random bits, floats random numbers, some of them special."""
    random = torch.Generator().manual_seed(seed)
    count = torch.Size(shape).numel()
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=random).bool()
    if dtype.is_complex:
        parts = torch.randn((*shape, 2), generator=random, dtype=torch.float64)
        return torch.view_as_complex(parts).to(dtype)
    if dtype in INTEGERS:
        data = torch.randint(0, 256, (count * dtype.itemsize,), generator=random, dtype=torch.uint8)
        return data.view(dtype).view(tuple(shape))
    numbers = torch.randn(count, generator=random, dtype=torch.float64) * 10
    special = torch.randint(0, 200, (count,), generator=random)
    numbers = torch.where(special < len(_SPECIAL), _SPECIAL[special % len(_SPECIAL)], numbers)
    return numbers.to(dtype).view(tuple(shape))


def reduced(
    tensors: Sequence[torch.Tensor], op: str, prescale: float = 1.0, postscale: float = 1.0, divisor: int | None = None
) -> torch.Tensor:
    """((t0 op t1) op t2) ..., element by element; `divisor` of an average, if that is not their number."""
    dtype, shape = tensors[0].dtype, tensors[0].shape
    count = divisor or len(tensors)
    if dtype is torch.bool:
        return reduce(torch.logical_or if op in ("sum", "max") else torch.logical_and, tensors)
    if dtype in INTEGERS:
        columns = zip(*(tensor.reshape(-1).tolist() for tensor in tensors), strict=True)
        found = [_integer(column, op, prescale, postscale, count, dtype) for column in columns]
        raw = b"".join((value % 256**dtype.itemsize).to_bytes(dtype.itemsize, "little") for value in found)
        return tensor_of(raw, dtype, shape)
    if dtype.is_complex:
        return _complex([tensor.numpy() for tensor in tensors], op, prescale, postscale, count)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    arrays = [tensor.to(wide).numpy() for tensor in tensors]
    exact = arrays[0].dtype.type

    def step(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if op in ("sum", "average"):
            return a + b
        if op == "product":
            return a * b
        first = a > b if op == "max" else a < b
        return np.where(first | np.isnan(a), a, b)

    with np.errstate(all="ignore"):
        total = reduce(step, [array * exact(prescale) if prescale != 1.0 else array for array in arrays])
        if op == "average":
            total = total / exact(count)
        if postscale != 1.0:
            total = total * exact(postscale)
    return torch.from_numpy(np.array(total)).to(dtype)


def _integer(column: Sequence[int], op: str, pre: float, post: float, count: int, dtype: torch.dtype) -> int:
    def wrapped(value: int) -> int:
        bits = 8 * dtype.itemsize
        value %= 1 << bits
        return value - (1 << bits) if dtype.is_signed and value >> (bits - 1) else value

    def scaled(value: int, factor: float) -> int:
        if factor == 1.0:
            return value
        product = float(value) * factor
        return wrapped(min(max(int(product), -(1 << 63)), (1 << 63) - 1))

    def step(a: int, b: int) -> int:
        if op in ("sum", "average"):
            return wrapped(a + b)
        if op == "product":
            return wrapped(a * b)
        return max(a, b) if op == "max" else min(a, b)

    total = reduce(step, [scaled(value, pre) for value in column])
    if op == "average":
        total = abs(total) // count * (-1 if total < 0 else 1)
    return scaled(total, post)


def _complex(arrays: Sequence[np.ndarray], op: str, pre: float, post: float, count: int) -> torch.Tensor:
    exact = arrays[0].real.dtype.type

    def step(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        if op == "product":
            return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]
        return a[0] + b[0], a[1] + b[1]

    re, im = reduce(step, [(array.real * exact(pre), array.imag * exact(pre)) for array in arrays])
    if op == "average":
        re, im = re / exact(count), im / exact(count)
    return torch.complex(torch.from_numpy(np.array(re * exact(post))), torch.from_numpy(np.array(im * exact(post))))


def tensor_of(data: bytes, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    """From its memory."""
    flat = torch.empty(len(data), dtype=torch.uint8)
    if data:
        flat.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return flat.view(dtype).view(tuple(shape))


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Same dtype, shape and bits, where one NaN is as good as another."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.is_complex:
        return alike(torch.view_as_real(a), torch.view_as_real(b))
    bits_a, bits_b = (
        t.contiguous().as_strided((t.numel(),), (1,)).view(torch.uint8).view(-1, t.dtype.itemsize) for t in (a, b)
    )
    same = (bits_a == bits_b).all(1) if a.numel() else torch.ones(0, dtype=torch.bool)
    if a.dtype.is_floating_point:
        same |= (a.to(torch.float64).isnan() & b.to(torch.float64).isnan()).view(-1)
    return bool(same.all())
