"""The functions between two matrices of a feed-forward part, by the names that configurations use."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from phalanx.models.catalog import Activation


def activate(name: Activation, tensor: Tensor) -> Tensor:
    """Elementwise. `gelu_tanh` is the approximation that GPT-2 was trained with (Hendrycks & Gimpel 2016)."""
    if name == "gelu":
        return F.gelu(tensor)
    if name == "gelu_tanh":
        return F.gelu(tensor, approximate="tanh")
    return F.relu(tensor) if name == "relu" else F.silu(tensor)
