"""GPT-2 (Radford et al. 2019): pre-norm, learned positions, GELU, the embedding as head. Knows no tokenizer;
`generation` draws text from it."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from phalanx.models.activations import activate
from phalanx.models.attention import attend
from phalanx.models.catalog import ModelConfig
from phalanx.models.causal import CausalModel, Sight, stream_dtype
from phalanx.models.dropout import dropout

_STD = 0.02


class Gpt2(CausalModel):
    """Tokens int64 [B, T] to logits of the next ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden)
        self.positions = nn.Embedding(config.sequence_length, config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden, config.norm_eps)
        if not config.tied:
            self.head = nn.Linear(config.hidden, config.vocabulary_size, bias=False)
        self._initialize()

    def read(self, tokens: Tensor, seen: Sight) -> Tensor:
        dtype = stream_dtype(self.embedding.weight)
        hidden: Tensor = (self.embedding(tokens) + self.positions(seen.positions)).to(dtype)
        hidden = dropout(hidden, self.config.dropout, self.training)
        for layer, block in enumerate(self.blocks):
            hidden = block(hidden, seen, layer)
        return hidden

    def judge(self, hidden: Tensor) -> Tensor:
        hidden = self.norm(hidden)
        logits: Tensor = self.head(hidden) if hasattr(self, "head") else F.linear(hidden, self.embedding.weight)
        return logits

    def _initialize(self) -> None:
        """As published: normal of standard deviation 0.02, where a branch ends smaller by the root of their number."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                ends = name.endswith(("attention_out", "mlp_out"))
                nn.init.normal_(module.weight, std=_STD / math.sqrt(2 * self.config.layers) if ends else _STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class Block(nn.Module):
    """Causal attention and a feed-forward part, each of the normed stream and added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self._heads, self._dropout, self._activation = config.heads, config.dropout, config.activation
        self.attention_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.attention_in = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.mlp_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.mlp_in = nn.Linear(hidden, config.feed_forward)
        self.mlp_out = nn.Linear(config.feed_forward, hidden)

    def forward(self, hidden: Tensor, seen: Sight, layer: int) -> Tensor:
        """[B, T, H] to the same."""
        hidden = hidden + self._drop(self._attend(self.attention_norm(hidden), seen, layer))
        inner = activate(self._activation, self.mlp_in(self.mlp_norm(hidden)))
        return hidden + self._drop(self.mlp_out(inner))

    def _attend(self, hidden: Tensor, seen: Sight, layer: int) -> Tensor:
        rows, length, width = hidden.shape
        query, key, value = (
            part.view(rows, length, self._heads, -1).transpose(1, 2)
            for part in self.attention_in(hidden).split(width, dim=-1)
        )
        if seen.cache is not None:
            key, value = seen.cache.extend(layer, key, value)
        mixed = attend(query, key, value, seen.bias, self._dropout if self.training else 0.0)
        return self.attention_out(mixed.transpose(1, 2).reshape(rows, length, width))  # type: ignore[no-any-return]

    def _drop(self, tensor: Tensor) -> Tensor:
        return dropout(tensor, self._dropout, self.training)
