"""A small GPT that learns fast: rotary positions, pre-norm without weights, normed queries and keys, squared ReLU.

No biases. Each branch begins as nothing (its last matrix is zero, and so is the head), so a fresh model guesses
uniformly and its first steps are stable. Where its configuration says so, a token also is the few tokens that end with
it. Knows no tokenizer; `generation` draws text from it.

Su et al. 2021 (rotary), Ba et al. 2016 (layer norm), So et al. 2021 (squared ReLU), Henry et al. 2020 (normed queries
and keys), Pagnoni et al. 2024 (hashed n-grams).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phalanx.models.attention import attend
from phalanx.models.catalog import ModelConfig
from phalanx.models.causal import CausalModel, Sight, stream_dtype
from phalanx.models.dropout import dropout
from phalanx.models.rotary import angles, rotate

_PRIME, _FACTOR = (1 << 31) - 1, 1_000_003  # of the hash: their product with a token fits 64 bits


class Decoder(CausalModel):
    """Tokens int64 [B, T] to logits of the next ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden)
        self.grams = nn.ModuleList(nn.Embedding(config.gram_table, config.hidden) for _ in range(2, config.grams + 1))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = nn.Linear(config.hidden, config.vocabulary_size, bias=False)
        nn.init.normal_(self.embedding.weight)
        for table in (self.head, *self.grams):
            nn.init.zeros_(table.weight)
        turns = angles(config.sequence_length, config.head_width, config.rope_base)
        self.register_buffer("_cos", turns.cos(), persistent=False)
        self.register_buffer("_sin", turns.sin(), persistent=False)

    def read(self, tokens: Tensor, seen: Sight) -> Tensor:
        dtype = stream_dtype(self.embedding.weight)
        embedded = self.embedding(tokens)
        for table, places in zip(self.grams, self._places(tokens, seen), strict=True):
            embedded = embedded + table(places)
        hidden = _norm(embedded).to(dtype)
        hidden = dropout(hidden, self.config.dropout, self.training)
        turns = tuple(self.get_buffer(name)[seen.positions][:, None].to(dtype) for name in ("_cos", "_sin"))
        for layer, block in enumerate(self.blocks):
            hidden = block(hidden, seen, turns, layer)
        return hidden

    def _places(self, tokens: Tensor, seen: Sight) -> Iterator[Tensor]:
        """Of the 2, 3, ... tokens that end with each: their row in the table, int64 [B, T]. What lies before the
        beginning of a text (or document) is a token of its own."""
        if not self.grams:
            return
        history = tokens if seen.cache is None else seen.cache.note(tokens)
        hashed, length = tokens, tokens.shape[1]
        for back in range(1, len(self.grams) + 1):
            earlier = F.pad(history, (back, 0))[:, -length - back : -back] + 1
            earlier = earlier.masked_fill(seen.positions < back, 0)
            hashed = (hashed * _FACTOR + earlier) % _PRIME
            yield hashed % self.config.gram_table

    def judge(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(_norm(hidden))
        return logits


class Block(nn.Module):
    """Causal attention and a feed-forward part, each added to the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self._heads, self._dropout = config.heads, config.dropout
        self.attention_in = nn.Linear(hidden, 3 * hidden, bias=False)
        self.attention_out = nn.Linear(hidden, hidden, bias=False)
        self.mlp_in = nn.Linear(hidden, config.feed_forward, bias=False)
        self.mlp_out = nn.Linear(config.feed_forward, hidden, bias=False)
        bound = (3 / hidden) ** 0.5  # uniform, of variance 1 / hidden
        for matrix in (self.attention_in, self.mlp_in):
            nn.init.uniform_(matrix.weight, -bound, bound)
        for matrix in (self.attention_out, self.mlp_out):
            nn.init.zeros_(matrix.weight)

    def forward(self, hidden: Tensor, seen: Sight, turns: tuple[Tensor, Tensor], layer: int) -> Tensor:
        """[B, T, H] to the same. `turns`: cosine and sine [B or 1, 1, T, D / 2] of the positions."""
        hidden = hidden + self._drop(self._attend(_norm(hidden), seen, turns, layer))
        return hidden + self._drop(self.mlp_out(squared_relu(self.mlp_in(_norm(hidden)))))

    def _attend(self, hidden: Tensor, seen: Sight, turns: tuple[Tensor, Tensor], layer: int) -> Tensor:
        rows, length, width = hidden.shape
        query, key, value = (
            part.view(rows, length, self._heads, -1).transpose(1, 2)
            for part in self.attention_in(hidden).split(width, dim=-1)
        )
        query, key = (rotate(_norm(part), *turns) for part in (query, key))
        if seen.cache is not None:
            key, value = seen.cache.extend(layer, key, value)
        mixed = attend(query, key, value, seen.bias)
        return self.attention_out(mixed.transpose(1, 2).reshape(rows, length, width))  # type: ignore[no-any-return]

    def _drop(self, tensor: Tensor) -> Tensor:
        return dropout(tensor, self._dropout, self.training)


def squared_relu(tensor: Tensor) -> Tensor:
    """max(x, 0)^2, elementwise."""
    result: Tensor = _SquaredReLU.apply(tensor)  # type: ignore[no-untyped-call]
    return result


class _SquaredReLU(torch.autograd.Function):
    """Keeps one tensor for backward and walks over it twice, where relu and square walk five times."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        positive = tensor.clamp_min(0)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        gradient: Tensor = outer[0] * positive
        return gradient.mul_(2)


def _norm(tensor: Tensor) -> Tensor:
    """Layer norm without weights: on a CPU a fourth of the time of torch's RMS norm (0.5 and 2.0 ms, both ways, for
    [16, 128, 192] in bfloat16)."""
    return F.layer_norm(tensor, (tensor.shape[-1],))
