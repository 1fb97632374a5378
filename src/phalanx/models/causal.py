"""What the causal models have in common: which position each token has, what it may see, the cache and the loss.

Knows no architecture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phalanx.models.attention import bias_of, recording
from phalanx.models.cache import Cache
from phalanx.models.catalog import ModelConfig
from phalanx.models.cross_entropy import costs_and_ranks, cross_entropy

IGNORED = -1  # a target that is not asked for


class Sight(NamedTuple):
    """`positions`: int64 [B or 1, T]; `bias`: what `attend` adds to the scores, broadcastable to [B, 1, T, K] of K keys
    so far, None where all of them are seen; `cache`: where keys and values are kept."""

    positions: Tensor
    bias: Tensor | None
    cache: Cache | None


def sight(tokens: Tensor, cache: Cache | None, padding: Tensor | None, document: Tensor | None) -> Sight:
    """For `tokens` [B, T] that follow what the cache holds.

    `padding`, int64 [B]: tokens at the left of each row, counted from the cache's first, that nobody sees; positions
    begin after them. `document`, int32 [B, T]: attention stays inside a document and its positions begin at 0 (only
    without a cache).
    """
    begin, length = 0 if cache is None else cache.used, tokens.shape[1]
    places = torch.arange(begin, begin + length, device=tokens.device)[None]
    if document is not None:
        earlier = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        same = document[:, None, :, None] == document[:, None, None, :]
        return Sight(places_in(document), bias_of(same & earlier), cache)
    if padding is None:
        if length == 1:
            return Sight(places, None, cache)
        seen = torch.ones(length, begin + length, dtype=torch.bool, device=tokens.device).tril(begin)
        return Sight(places, bias_of(seen), cache)
    keys = torch.arange(begin + length, device=tokens.device)
    # A padding token sees itself, so that no row of scores is empty.
    seen = (keys <= places[..., None]) & (keys >= padding[:, None, None]) | (keys == places[..., None])
    return Sight((places - padding[:, None]).clamp_min(0), bias_of(seen[:, None]), cache)


def places_in(document: Tensor) -> Tensor:
    """Position of each token in its own document, from 0: int64 [B, T] of `document` [B, T]."""
    index = torch.arange(document.shape[1], device=document.device).expand_as(document)
    begins = F.pad(document[:, 1:] != document[:, :-1], (1, 0))
    return index - torch.where(begins, index, 0).cummax(dim=1).values


class CausalModel(nn.Module, ABC):
    """Tokens int64 [B, T] to logits of the next ones. A model brings its `embedding`, and says what it makes of tokens
    (`read`) and what follows from that (`judge`)."""

    embedding: nn.Embedding

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def read(self, tokens: Tensor, seen: Sight) -> Tensor:
        """Hidden states [B, T, H] in the stream's precision."""

    @abstractmethod
    def judge(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., H]."""

    def forward(
        self, tokens: Tensor, cache: Cache | None = None, padding: Tensor | None = None, *, last: bool = False
    ) -> Tensor:
        """Logits float32 [B, T, V], or [B, 1, V] of the last tokens only.

        With a cache, `tokens` follow what it holds; at most `sequence_length` altogether. `padding`, int64 [B]: tokens
        at the left of each row that are none.
        """
        hidden = self.read(tokens, sight(tokens, cache, padding, None))
        if cache is not None:
            cache.advance(tokens.shape[1])
        return self.judge(hidden[:, -1:] if last else hidden).float()

    def new_cache(self, rows: int, length: int) -> Cache:
        """An empty one for `rows` texts of at most `length` tokens."""
        config = self.config
        return Cache(config.layers, rows, config.kv_heads, length, config.head_width, self.embedding.weight.dtype)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, int | Tensor]:
        """Cross-entropy of `tokens[:, 1:]` given those before each, summed (float32 scalar, nats), and their number.

        With `document` [B, T + 1]: only of tokens whose predecessor is of the same document, and not padding (0).
        """
        logits, targets = self._asked(batch)
        if "document" not in batch:
            return cross_entropy(logits, targets), targets.shape[0]
        return cross_entropy(logits, targets, ignored=IGNORED), (targets != IGNORED).sum()

    def costs_and_ranks(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each token that `loss` predicts: nats, float32 [M], and how many tokens are liked better, int64 [M]."""
        logits, targets = self._asked(batch)
        asked = targets != IGNORED
        return costs_and_ranks(logits, targets) if bool(asked.all()) else costs_and_ranks(logits[asked], targets[asked])

    def attention_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Of every layer and head how much each of `tokens` (row) looks at each: float32 [layers, B, heads, T, T]."""
        with recording() as found:
            self.read(batch["tokens"], sight(batch["tokens"], None, None, batch.get("document")))
        return torch.stack(found)

    def _asked(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [M, V] and the right tokens int64 [M]."""
        tokens, document = batch["tokens"], batch.get("document")
        targets = tokens[:, 1:]
        if document is not None:
            asked = (document[:, 1:] == document[:, :-1]) & (document[:, 1:] > 0)
            targets = targets.masked_fill(~asked, IGNORED)
            document = document[:, :-1]
        tokens = tokens[:, :-1]
        hidden = self.read(tokens, sight(tokens, None, None, document))
        return self.judge(hidden).flatten(0, 1), targets.flatten()


def stream_dtype(weight: Tensor) -> torch.dtype:
    """What the residual stream is kept in: under autocast its half precision, else each matrix product would convert
    it anew."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else weight.dtype
