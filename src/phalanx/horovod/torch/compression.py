"""Horovod's gradient compression: what a tensor becomes before it is reduced, and how it comes back."""

from __future__ import annotations

from typing import Any

import torch


class Compressor:
    """What `compression=` takes: a class, or an object, with these two methods.

    Scripts derive their own from it; what they leave out raises NotImplementedError, as in Horovod.
    """

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """The tensor to send, and what `decompress` will need."""
        raise NotImplementedError

    @staticmethod
    def decompress(tensor: torch.Tensor, ctx: Any) -> torch.Tensor:
        """The reduced tensor in the dtype and shape of the one that was compressed."""
        raise NotImplementedError


class NoneCompressor(Compressor):
    """Nothing changes."""

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return tensor, None

    @staticmethod
    def decompress(tensor: torch.Tensor, ctx: Any) -> torch.Tensor:
        return tensor


class FP16Compressor(Compressor):
    """Floating-point tensors travel as float16, whatever their dtype; others as they are.

    The sum is taken in float32 and rounded once.
    """

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return tensor.half() if torch.is_floating_point(tensor) else tensor, tensor.dtype

    @staticmethod
    def decompress(tensor: torch.Tensor, ctx: Any) -> torch.Tensor:
        return tensor.to(ctx)


class Compression:
    """`hvd.Compression.none` and `hvd.Compression.fp16`."""

    none = NoneCompressor
    fp16 = FP16Compressor
