"""Fewer bytes on the wire: what a tensor becomes before it is reduced, and how it comes back.

Only floating-point tensors wider than the target change; the rest passes as it is. The sum of 16-bit tensors is
taken in float32 and rounded once (see `transports.transport`), but every rank's own numbers are rounded before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


class Compression(Protocol):
    """Anything with these two methods; `context` is whatever `decompress` needs, kept by the caller between them."""

    def compress(self, tensor: torch.Tensor) -> tuple[torch.Tensor, object]:
        """The tensor to send, of the same shape."""

    def decompress(self, tensor: torch.Tensor, context: object) -> torch.Tensor:
        """The reduced tensor as the caller knows it."""


@dataclass(frozen=True)
class Cast:
    """To a narrower floating-point dtype and back; None: to nothing else."""

    dtype: torch.dtype | None

    def compress(self, tensor: torch.Tensor) -> tuple[torch.Tensor, object]:
        if self.dtype is None or not tensor.is_floating_point() or tensor.dtype.itemsize <= self.dtype.itemsize:
            return tensor, tensor.dtype
        return tensor.to(self.dtype), tensor.dtype

    def decompress(self, tensor: torch.Tensor, context: object) -> torch.Tensor:
        assert isinstance(context, torch.dtype)
        return tensor.to(context)


none = Cast(None)
fp16 = Cast(torch.float16)
bf16 = Cast(torch.bfloat16)
