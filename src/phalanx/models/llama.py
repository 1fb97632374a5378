"""A decoder of Llama's shape (Touvron et al. 2023): RMSNorm, rotary positions, grouped-query attention, SwiGLU, no
biases. Knows no tokenizer; `generation` draws text from it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from phalanx.models.activations import activate
from phalanx.models.attention import attend
from phalanx.models.catalog import ModelConfig
from phalanx.models.causal import CausalModel, Sight, stream_dtype
from phalanx.models.dropout import dropout
from phalanx.models.rotary import angles, rotate

_STD = 0.02


class Llama(CausalModel):
    """Tokens int64 [B, T] to logits of the next ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden, config.norm_eps)
        if not config.tied:
            self.head = nn.Linear(config.hidden, config.vocabulary_size, bias=False)
        turns = angles(config.sequence_length, config.head_width, config.rope_base, config.rope_stretch)
        self.register_buffer("_cos", turns.cos(), persistent=False)
        self.register_buffer("_sin", turns.sin(), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_STD)

    def read(self, tokens: Tensor, seen: Sight) -> Tensor:
        dtype = stream_dtype(self.embedding.weight)
        hidden = dropout(self.embedding(tokens).to(dtype), self.config.dropout, self.training)
        turns = tuple(self.get_buffer(name)[seen.positions][:, None].to(dtype) for name in ("_cos", "_sin"))
        for layer, block in enumerate(self.blocks):
            hidden = block(hidden, seen, turns, layer)
        return hidden

    def judge(self, hidden: Tensor) -> Tensor:
        hidden = self.norm(hidden)
        logits: Tensor = self.head(hidden) if hasattr(self, "head") else F.linear(hidden, self.embedding.weight)
        return logits


class Block(nn.Module):
    """Causal attention and a gated feed-forward part, each of the normed stream and added to it.

    `attention_in` gives queries, then keys, then values; `mlp_in` gates, then what they gate.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, width = config.hidden, config.head_width
        self._queries, self._keys = config.heads, config.kv_heads
        self._width, self._dropout, self._activation = width, config.dropout, config.activation
        self.attention_norm = nn.RMSNorm(hidden, config.norm_eps)
        self.attention_in = nn.Linear(hidden, (config.heads + 2 * config.kv_heads) * width, bias=False)
        self.attention_out = nn.Linear(config.heads * width, hidden, bias=False)
        self.mlp_norm = nn.RMSNorm(hidden, config.norm_eps)
        self.mlp_in = nn.Linear(hidden, 2 * config.feed_forward, bias=False)
        self.mlp_out = nn.Linear(config.feed_forward, hidden, bias=False)

    def forward(self, hidden: Tensor, seen: Sight, turns: tuple[Tensor, Tensor], layer: int) -> Tensor:
        """[B, T, H] to the same. `turns`: cosine and sine [B or 1, 1, T, D / 2] of the positions."""
        hidden = hidden + self._drop(self._attend(self.attention_norm(hidden), seen, turns, layer))
        gate, inner = self.mlp_in(self.mlp_norm(hidden)).chunk(2, dim=-1)
        return hidden + self._drop(self.mlp_out(activate(self._activation, gate) * inner))

    def _attend(self, hidden: Tensor, seen: Sight, turns: tuple[Tensor, Tensor], layer: int) -> Tensor:
        rows, length, _ = hidden.shape
        mixed = self.attention_in(hidden).view(rows, length, -1, self._width).transpose(1, 2)
        turned = rotate(mixed[:, : self._queries + self._keys], *turns)
        query, key, value = turned[:, : self._queries], turned[:, self._queries :], mixed[:, -self._keys :]
        if seen.cache is not None:
            key, value = seen.cache.extend(layer, key, value)
        mixed = attend(query, key, value, seen.bias)
        return self.attention_out(mixed.transpose(1, 2).reshape(rows, length, -1))  # type: ignore[no-any-return]

    def _drop(self, tensor: Tensor) -> Tensor:
        return dropout(tensor, self._dropout, self.training)
