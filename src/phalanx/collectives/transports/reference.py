"""What a reduction of several tensors is, in torch and numpy: the definition that faster kernels equal bit for bit.

    value = ((t0 * prescale) op (t1 * prescale)) op ... in the order given; "average": / their number; * postscale

Computed in float32 for float16, bfloat16, float8 and complex32, with one rounding at the end; in the tensor's own
type for all others. Integers wrap; a scaled one is multiplied in float64, cut to a whole number and kept within
int64. Of two equal numbers (0.0 and -0.0) `max` and `min` keep the later; NaN wins over every number. For bool, sum
and max mean "any", product and min "all". Knows nothing of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.transport import ReduceOp

_EXACT = (torch.float32, torch.float64)


def refuse_meaningless(dtype: torch.dtype, op: ReduceOp, prescale: float = 1.0, postscale: float = 1.0) -> None:
    """Raise CollectiveError where no number could be right: the order of complex numbers, a fraction of a truth."""
    kind = str(dtype).removeprefix("torch.")
    if dtype is torch.float8_e8m0fnu:
        raise CollectiveError(f"{op} of {kind}, which has no zero and no sign", remedy="convert it to float32 first")
    if dtype.is_complex and op in ("min", "max"):
        raise CollectiveError(f"{op} of {kind}: complex numbers have no order", remedy="reduce torch.abs of them")
    if dtype is torch.bool and (op == "average" or prescale != 1.0 or postscale != 1.0):
        raise CollectiveError(f"{op} of bool cannot be divided or scaled", remedy="convert the tensor to float32 first")


def combine_in_torch(
    tensors: Sequence[torch.Tensor],
    op: ReduceOp,
    *,
    output: torch.Tensor,
    prescale: float = 1.0,
    postscale: float = 1.0,
) -> None:
    """`output` becomes the reduction of `tensors` (at least one; same dtype and number of elements; on the CPU).

    Every tensor contiguous; `output` may be one of them. Raises CollectiveError where `refuse_meaningless` does.
    """
    dtype = output.dtype
    refuse_meaningless(dtype, op, prescale, postscale)
    flat = [tensor.reshape(-1) for tensor in tensors]
    if dtype.is_complex:
        value = _combine_complex(flat, op, prescale, postscale)
    elif dtype.is_floating_point:
        value = _combine_floats([_widened(tensor) for tensor in flat], op, prescale, postscale)
    elif dtype is torch.bool:
        value = reduce(torch.logical_or if op in ("sum", "max") else torch.logical_and, flat)
    else:
        combined = _combine_integers([tensor.numpy() for tensor in flat], op, prescale, postscale)
        value = torch.from_numpy(combined)
    output.view(-1).copy_(value)


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype in _EXACT else tensor.to(torch.float32)


def _scaled(value: torch.Tensor, factor: float) -> torch.Tensor:
    """A number of the tensor's own precision times another: torch would round `factor` in its own way."""
    return value if factor == 1.0 else value * torch.tensor(factor, dtype=value.dtype)


def _combine_floats(values: list[torch.Tensor], op: ReduceOp, prescale: float, postscale: float) -> torch.Tensor:
    def larger(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.where((a > b) | a.isnan(), a, b)

    def smaller(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.where((a < b) | a.isnan(), a, b)

    steps: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "sum": torch.add,
        "average": torch.add,
        "product": torch.mul,
        "max": larger,
        "min": smaller,
    }
    total = reduce(steps[op], (_scaled(value, prescale) for value in values))
    if op == "average":
        total = total / torch.tensor(len(values), dtype=total.dtype)
    return _scaled(total, postscale)


def _combine_complex(tensors: list[torch.Tensor], op: ReduceOp, prescale: float, postscale: float) -> torch.Tensor:
    """As pairs of reals: torch's own product may fuse a multiplication with an addition, and so round once less."""
    pairs = [_widened(torch.view_as_real(tensor)) for tensor in tensors]
    if op != "product":
        return torch.view_as_complex(_combine_floats(pairs, op, prescale, postscale))

    def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
        return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], -1)

    total = reduce(multiply, (_scaled(pair, prescale) for pair in pairs))
    return torch.view_as_complex(_scaled(total, postscale).contiguous())


def _combine_integers(
    values: list[npt.NDArray[Any]], op: ReduceOp, prescale: float, postscale: float
) -> npt.NDArray[Any]:
    """In numpy, which adds and divides every width, signed or not; torch lacks most of it for uint16, 32 and 64."""
    steps: dict[str, np.ufunc] = {
        "sum": np.add,
        "average": np.add,
        "product": np.multiply,
        "max": np.maximum,
        "min": np.minimum,
    }
    total = reduce(steps[op], (_scaled_integers(value, prescale) for value in values))
    if op == "average":
        count = total.dtype.type(len(values))
        quotient = total // count  # rounds down; a negative one with a rest goes back up
        total = quotient + ((total < 0) & (quotient * count != total)).astype(total.dtype)
    return np.array(_scaled_integers(total, postscale))


def _scaled_integers(value: npt.NDArray[Any], factor: float) -> npt.NDArray[Any]:
    if factor == 1.0:
        return value
    product = value.astype(np.float64) * factor
    whole = np.clip(product, -(2.0**63), 2.0**63 - 1024).astype(np.int64)  # 2^63 - 1024: the last double below 2^63
    whole[product >= 2.0**63] = np.iinfo(np.int64).max
    return whole.astype(value.dtype)
