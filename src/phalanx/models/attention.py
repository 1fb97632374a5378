"""Attention, by the faster of two ways on the CPU. Knows no model.

torch's fused kernel is quick in float32 and slow in bfloat16, where the plain product of matrices is quickest.
Forward and backward of [16, 3 heads, 128, 64] on one core with avx512_bf16, torch 2.13: fused float32 13 ms,
fused bfloat16 32 ms, plain float32 15 ms, plain bfloat16 8 ms; a mask costs nothing measurable in either.
With dropout torch takes the plain way too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

from phalanx.models.dropout import dropout

_LONGEST_PLAIN = 512  # tokens: the plain way keeps a [T, T] table a head for backward
_recorder: ContextVar[list[Tensor] | None] = ContextVar("_recorder", default=None)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, drop: float = 0.0) -> Tensor:
    """Values [B, heads, T, D] mixed by the softmax of query and key; `drop`: share of weights dropped.

    `bias` (what `bias_of` gives), broadcastable to [B, 1, T, K]: added to the scores; None: everything is seen. Keys
    and values [B, groups, K, D] may have fewer heads: each serves heads / groups queries (Ainslie et al. 2023).
    """
    heads, groups = query.shape[1], key.shape[1]
    if heads != groups:
        if query.shape[2] == 1 and _recorder.get() is None:  # the queries of a group as if they were tokens: no copies
            rows, _, _, width = query.shape
            grouped = query.reshape(rows, groups, heads // groups, width)
            return attend(grouped, key, value, bias, drop).reshape(rows, heads, 1, width)
        key, value = (part.repeat_interleave(heads // groups, 1) for part in (key, value))
    bias = None if bias is None else bias.to(query.dtype)
    recorded = _recorder.get()
    if recorded is not None:
        recorded.append(_scores(query, key, bias).float().softmax(-1))
    if (query.dtype != torch.bfloat16 and not drop) or key.shape[-2] > _LONGEST_PLAIN:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=drop)
    weights = dropout(_scores(query, key, bias).softmax(-1), drop, training=True)
    mixed: Tensor = weights @ value
    return mixed


@contextmanager
def recording() -> Iterator[list[Tensor]]:
    """Inside, every `attend` of this thread appends its weights, float32 [B, heads, T, K]: the fused kernel gives
    none, so they are reckoned a second time."""
    found: list[Tensor] = []
    token = _recorder.set(found)
    try:
        yield found
    finally:
        _recorder.reset(token)


def bias_of(allowed: Tensor) -> Tensor:
    """Float32: 0 where a query (row) may see a key (column), minus infinity elsewhere; every row sees something."""
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, float("-inf"))


def _scores(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    scores: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return scores if bias is None else scores.add(bias)
