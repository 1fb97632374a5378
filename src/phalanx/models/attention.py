"""Attention, by the faster of two ways on the CPU. Knows no model.

torch's fused kernel is quick in float32 and slow in bfloat16, where the plain product of matrices is quickest.
Forward and backward of [16, 3 heads, 128, 64] on one core with avx512_bf16, torch 2.13: fused float32 13 ms,
fused bfloat16 32 ms, plain float32 15 ms, plain bfloat16 8 ms; a mask costs nothing measurable in either.
With dropout torch takes the plain way too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from phalanx.models.dropout import dropout

_LONGEST_PLAIN = 512  # tokens: the plain way keeps a [T, T] table a head for backward


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, drop: float = 0.0) -> Tensor:
    """Values [B, heads, T, D] mixed by the softmax of query and key; `drop`: share of weights dropped.

    `bias` (what `bias_of` gives), broadcastable to [B, 1, T, T]: added to the scores; None: everything is seen.
    """
    bias = None if bias is None else bias.to(query.dtype)
    if (query.dtype != torch.bfloat16 and not drop) or key.shape[-2] > _LONGEST_PLAIN:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=drop)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    weights = dropout(scores.softmax(-1), drop, training=True)
    return weights @ value


def bias_of(allowed: Tensor) -> Tensor:
    """Float32: 0 where a query (row) may see a key (column), minus infinity elsewhere; every row sees something."""
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, float("-inf"))
