"""A small GPT that learns fast: rotary positions, pre-norm without weights, normed queries and keys, squared ReLU.

No biases. Each branch begins as nothing (its last matrix is zero, and so is the head), so a fresh model guesses
uniformly and its first steps are stable. Knows no tokenizer; `generation` draws text from it.

Su et al. 2021 (rotary), Ba et al. 2016 (layer norm), So et al. 2021 (squared ReLU),
Henry et al. 2020 (normed queries and keys).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phalanx.models.attention import attend, bias_of
from phalanx.models.catalog import ModelConfig
from phalanx.models.cross_entropy import costs_and_ranks, cross_entropy
from phalanx.models.dropout import dropout

_BASE = 10_000.0


@dataclass
class Cache:
    """Keys and values [B, heads, length, D] of each layer for the tokens already read."""

    length: int = 0
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of the layer, with the new ones after the old."""
        if layer == len(self.layers):
            self.layers.append((key, value))
        else:
            old = self.layers[layer]
            self.layers[layer] = torch.cat([old[0], key], 2), torch.cat([old[1], value], 2)
        return self.layers[layer]


class Places(NamedTuple):
    """What attention must know of where tokens are: cosine and sine [T, D / 2] of their positions, and the bias
    [T, T] that hides what comes later (None for a single token)."""

    cos: Tensor
    sin: Tensor
    bias: Tensor | None


class Decoder(nn.Module):
    """Tokens int64 [B, T] to logits of the next ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary_size, config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = nn.Linear(config.hidden, config.vocabulary_size, bias=False)
        nn.init.normal_(self.embedding.weight)
        nn.init.zeros_(self.head.weight)
        angles = _angles(config.sequence_length, config.hidden // config.heads)
        self.register_buffer("_cos", angles.cos(), persistent=False)
        self.register_buffer("_sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits float32 [B, T, V]. With a cache, `tokens` follow what it holds: any number of them if it is
        empty, else one; at most `sequence_length` altogether."""
        return self._logits(tokens, cache).float()

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Cross-entropy of `tokens[:, 1:]` given those before each, summed (float32 scalar, nats), and their number."""
        logits, targets = self._asked(batch)
        return cross_entropy(logits, targets), targets.shape[0]

    def costs_and_ranks(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each token that `loss` predicts: nats, float32 [M], and how many tokens are liked better, int64 [M]."""
        return costs_and_ranks(*self._asked(batch))

    def _asked(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [M, V] and the right tokens int64 [M]."""
        tokens = batch["tokens"]
        return self._logits(tokens[:, :-1], None).flatten(0, 1), tokens[:, 1:].flatten()

    def _logits(self, tokens: Tensor, cache: Cache | None) -> Tensor:
        # Under autocast the whole stream is in half precision, else each matrix product would convert it anew.
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.embedding.weight.dtype
        hidden = _norm(self.embedding(tokens)).to(dtype)
        hidden = dropout(hidden, self.config.dropout, self.training)
        places = self._places(0 if cache is None else cache.length, tokens.shape[1], dtype)
        for layer, block in enumerate(self.blocks):
            hidden = block(hidden, places, cache, layer)
        if cache is not None:
            cache.length += tokens.shape[1]
        logits: Tensor = self.head(_norm(hidden))
        return logits

    def _places(self, start: int, length: int, dtype: torch.dtype) -> Places:
        cos, sin = (self.get_buffer(name)[start : start + length].to(dtype) for name in ("_cos", "_sin"))
        if length == 1:
            return Places(cos, sin, None)
        return Places(cos, sin, bias_of(torch.ones(length, length, dtype=torch.bool, device=cos.device).tril()))


class Block(nn.Module):
    """Causal attention and a feed-forward part, each added to the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self._heads, self._dropout = config.heads, config.dropout
        self.attention_in = nn.Linear(hidden, 3 * hidden, bias=False)
        self.attention_out = nn.Linear(hidden, hidden, bias=False)
        self.mlp_in = nn.Linear(hidden, 4 * hidden, bias=False)
        self.mlp_out = nn.Linear(4 * hidden, hidden, bias=False)
        bound = (3 / hidden) ** 0.5  # uniform, of variance 1 / hidden
        for matrix in (self.attention_in, self.mlp_in):
            nn.init.uniform_(matrix.weight, -bound, bound)
        for matrix in (self.attention_out, self.mlp_out):
            nn.init.zeros_(matrix.weight)

    def forward(self, hidden: Tensor, places: Places, cache: Cache | None, layer: int) -> Tensor:
        """[B, T, H] to the same."""
        hidden = hidden + self._drop(self._attend(_norm(hidden), places, cache, layer))
        return hidden + self._drop(self.mlp_out(squared_relu(self.mlp_in(_norm(hidden)))))

    def _attend(self, hidden: Tensor, places: Places, cache: Cache | None, layer: int) -> Tensor:
        rows, length, width = hidden.shape
        query, key, value = (
            part.view(rows, length, self._heads, -1).transpose(1, 2)
            for part in self.attention_in(hidden).split(width, dim=-1)
        )
        query, key = (rotate(_norm(part), places.cos, places.sin) for part in (query, key))
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        mixed = attend(query, key, value, places.bias)
        return self.attention_out(mixed.transpose(1, 2).reshape(rows, length, width))  # type: ignore[no-any-return]

    def _drop(self, tensor: Tensor) -> Tensor:
        return dropout(tensor, self._dropout, self.training)


def rotate(tensor: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (i, i + D / 2) of the last dimension of [..., T, D] by the angles of the positions, [T, D / 2]."""
    first, second = tensor.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


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


def _angles(length: int, width: int) -> Tensor:
    """Radians float32 [length, width / 2]: position times base^(-2i / width)."""
    frequencies = _BASE ** (-torch.arange(0, width, 2) / width)
    return torch.arange(length)[:, None] * frequencies
