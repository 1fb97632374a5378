"""Reductions of local tensors: by the C kernels, or where they cannot be built in torch, with the same result."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Sequence

import torch

from phalanx.collectives.transports import library as c
from phalanx.collectives.transports.reference import combine_in_torch, refuse_meaningless
from phalanx.collectives.transports.transport import ReduceOp
from phalanx.foundation import BuildError

log = logging.getLogger(__name__)

NUMBERS = {getattr(torch, name): number for number, name in enumerate(c.DTYPES)}  # of dtypes, as the C has them


@functools.cache
def _kernels() -> ctypes.CDLL | None:
    try:
        return c.library()
    except BuildError as error:
        log.info("reductions run in torch, which is slower: %s", error)  # `connect` has warned, once
        return None


def combine(
    tensors: Sequence[torch.Tensor],
    op: ReduceOp,
    *,
    output: torch.Tensor,
    prescale: float = 1.0,
    postscale: float = 1.0,
) -> None:
    """`output` becomes the reduction of `tensors`, as `reference` defines it.

    Contiguous, on the CPU, same dtype and number of elements; `output` may be one of them.
    Raises CollectiveError for what no number could be right: an order of complex numbers, a fraction of a truth.
    """
    kernels = _kernels()
    if kernels is None or output.dtype not in NUMBERS or len(tensors) > c.MAX_RANKS:
        combine_in_torch(tensors, op, output=output, prescale=prescale, postscale=postscale)
        return
    refuse_meaningless(output.dtype, op, prescale, postscale)
    inputs = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
    kernels.ph_combine(
        output.data_ptr(),
        inputs,
        len(tensors),
        output.numel(),
        NUMBERS[output.dtype],
        c.OPS.index(op),
        prescale,
        postscale,
    )
