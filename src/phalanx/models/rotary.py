"""Rotary positions (Su et al. 2021): pairs of a query's and a key's numbers are turned by angles that grow with the
position, so that their product depends on the distance only. Knows no model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Stretch = tuple[float, float, float, float]


def angles(length: int, width: int, base: float, stretch: Stretch | None = None) -> Tensor:
    """Radians float32 [length, width / 2]: position times base^(-2i / width), slowed down by `stretch`."""
    frequencies = base ** (-torch.arange(0, width, 2) / width)
    if stretch is not None:
        frequencies = stretched(frequencies, stretch)
    return torch.arange(length)[:, None] * frequencies


def stretched(frequencies: Tensor, stretch: Stretch) -> Tensor:
    """As Llama 3.1 lengthens its context (Dubey et al. 2024, and the published code of its positions).

    `stretch`: (factor, low, high, length). Waves longer than length / low are slowed down by the factor, those
    shorter than length / high stay, and between the two lies a ramp.
    """
    factor, low, high, length = stretch
    turns = length * frequencies / (2 * math.pi)  # of each wave within the former context
    share = ((turns - low) / (high - low)).clamp(0, 1)  # 1: stays
    return frequencies * (share + (1 - share) / factor)


def rotate(tensor: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + D / 2) of the last dimension of [..., T, D] by angles [..., T, D / 2] of the positions."""
    first, second = tensor.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
