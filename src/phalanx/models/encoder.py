"""BERT (Devlin et al. 2019) for masked words: post-norm, learned positions, GELU, the embedding as vocabulary head.

Rows hold several documents side by side; attention stays inside a document and each counts its own
positions, so a packed row computes what its documents would alone. What nobody asks for is not computed:
the last layer's feed-forward part and the vocabulary head see masked positions only. Segment embeddings
are left out: with a single segment they are part of the positions'. Knows no tokenizer and no masking.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phalanx.models.attention import attend, bias_of
from phalanx.models.catalog import ModelConfig
from phalanx.models.cross_entropy import costs_and_ranks, cross_entropy
from phalanx.models.dropout import dropout

EPS = 1e-12
_STD = 0.02
# How many tokens are masked differs from batch to batch, and oneDNN makes and keeps kernels for every shape it meets:
# 110 MiB and more of them in a run. Rounded up, there are two or three shapes, and at most 31 rows too many.
_ROUND = 32


class Encoder(nn.Module):
    """Tokens int64 [B, T] and their `document` int32 [B, T] (from 1 in each row; 0 is padding)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.embedding = nn.Embedding(config.vocabulary_size, hidden)
        self.positions = nn.Embedding(config.sequence_length, hidden)
        self.norm = nn.LayerNorm(hidden, EPS)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.transform = nn.Linear(hidden, hidden)
        self.transform_norm = nn.LayerNorm(hidden, EPS)
        self.head_bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        self.apply(_initialize)

    def predict(self, tokens: Tensor, document: Tensor, positions: Tensor) -> Tensor:
        """Logits float32 [M, V] at `positions`, int64 [M] into the flattened tokens."""
        return self._logits(tokens, document, positions)[: positions.shape[0]].float()

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Cross-entropy summed over the masked positions (float32 scalar, nats), and their number."""
        targets = batch["targets"]
        return cross_entropy(self._asked(batch), targets), targets.shape[0]

    def costs_and_ranks(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each token that `loss` predicts: nats, float32 [M], and how many tokens are liked better, int64 [M]."""
        return costs_and_ranks(self._asked(batch), batch["targets"])

    def _asked(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self._logits(batch["tokens"], batch["document"], batch["positions"])

    def _logits(self, tokens: Tensor, document: Tensor, positions: Tensor) -> Tensor:
        """At the positions, and some rows more that mean nothing."""
        hidden = self.embedding(tokens) + self.positions(places(document))
        hidden = dropout(self.norm(hidden), self.config.dropout, self.training)
        bias = bias_of(document[:, None, :, None] == document[:, None, None, :])
        for block in self.blocks[:-1]:
            hidden = block(hidden, bias)
        hidden = self.blocks[-1](hidden, bias, F.pad(positions, (0, -positions.shape[0] % _ROUND)))
        hidden = self.transform_norm(F.gelu(self.transform(hidden)))
        return F.linear(hidden, self.embedding.weight, self.head_bias)


class Block(nn.Module):
    """Attention and a feed-forward part, each added to its input and normed after."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self._heads, self._dropout = config.heads, config.dropout
        self.attention_in = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, EPS)
        self.mlp_in = nn.Linear(hidden, 4 * hidden)
        self.mlp_out = nn.Linear(4 * hidden, hidden)
        self.mlp_norm = nn.LayerNorm(hidden, EPS)

    def forward(self, hidden: Tensor, bias: Tensor, only: Tensor | None = None) -> Tensor:
        """[B, T, H] to the same, or to [M, H] where `only`, int64 [M] into the flattened tokens, are wanted.

        `bias` [B, 1, T, T] keeps attention inside a document.
        """
        rows, length, width = hidden.shape
        query, key, value = (
            part.view(rows, length, self._heads, -1).transpose(1, 2)
            for part in self.attention_in(hidden).split(width, dim=-1)
        )
        mixed = attend(query, key, value, bias, self._dropout if self.training else 0.0)
        mixed = mixed.transpose(1, 2).reshape(rows, length, width)
        if only is not None:
            hidden, mixed = (tensor.flatten(0, 1).index_select(0, only) for tensor in (hidden, mixed))
        hidden = self.attention_norm(hidden + self._drop(self.attention_out(mixed)))
        return self.mlp_norm(hidden + self._drop(self.mlp_out(F.gelu(self.mlp_in(hidden)))))  # type: ignore[no-any-return]

    def _drop(self, tensor: Tensor) -> Tensor:
        return dropout(tensor, self._dropout, self.training)


def places(document: Tensor) -> Tensor:
    """Position of each token in its own document, from 0: int64 [B, T] of `document` [B, T]."""
    index = torch.arange(document.shape[1], device=document.device).expand_as(document)
    begins = F.pad(document[:, 1:] != document[:, :-1], (1, 0))
    return index - torch.where(begins, index, 0).cummax(dim=1).values


def _initialize(module: nn.Module) -> None:
    """Weights as published: normal of standard deviation 0.02, biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
