"""BERT (Devlin et al. 2019): post-norm, learned positions, GELU; its heads for hidden words, next sentences,
whole texts and single tokens.

Rows hold several documents side by side; attention stays inside a document and each counts its own
positions, so a packed row computes what its documents would alone. What nobody asks for is not computed:
the last layer's feed-forward part and every head see the asked positions only. Knows no tokenizer and no masking.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phalanx.models.activations import activate
from phalanx.models.attention import attend, bias_of, recording
from phalanx.models.catalog import ModelConfig
from phalanx.models.causal import places_in
from phalanx.models.cross_entropy import costs_and_ranks, cross_entropy
from phalanx.models.dropout import dropout

_STD = 0.02
# How many tokens are masked differs from batch to batch, and oneDNN makes and keeps kernels for every shape it meets:
# 110 MiB and more of them in a run. Rounded up, there are two or three shapes, and at most 31 rows too many.
_ROUND = 32


class Bert(nn.Module):
    """Batches of `tokens` int64 [B, T], their `document` int32 [B, T] (from 1 in each row; 0 is padding), `segments`
    int64 [B, T] (0 where left out: of a pair of texts the second has 1), and `positions` int64 [M] into the flattened
    tokens: what is asked.

    masked-lm: `targets` int64 [M]. classify, next-sentence: positions of [CLS], `labels` int64 [M]; tag: positions of
    tokens, `labels` int64 [M]; regress: positions of [CLS], `labels` float32 [M].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden, objective = config.hidden, config.objective
        self.embedding = nn.Embedding(config.vocabulary_size, hidden)
        self.positions = nn.Embedding(config.sequence_length, hidden)
        self.segments = nn.Embedding(config.segments, hidden)
        self.norm = nn.LayerNorm(hidden, config.norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        if objective in ("masked-lm", "pretraining"):
            self.transform = nn.Linear(hidden, hidden)
            self.transform_norm = nn.LayerNorm(hidden, config.norm_eps)
            self.head_bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        if objective in ("pretraining", "next-sentence", "classify", "regress"):
            self.pooler = nn.Linear(hidden, hidden)
        outputs = {"pretraining": 2, "next-sentence": 2, "regress": 1}.get(objective, len(config.labels))
        if objective != "masked-lm":
            self.head = nn.Linear(hidden, outputs)
        self.apply(_initialize)

    def predict(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the head says at the positions: logits float32 [M, vocabulary or labels] (regress: values [M, 1])."""
        return self._asked(batch)[: batch["positions"].shape[0]].float()

    def next_sentence(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Of a model with both pretraining heads: logits float32 [M, 2] at positions of [CLS]; 0: the second text
        follows the first."""
        return self._judge(self.hidden(batch))[: batch["positions"].shape[0]].float()

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Cross-entropy (nats; regress: squared errors) summed over the positions, float32 scalar, and their number."""
        asked, count = self._asked(batch), batch["positions"].shape[0]
        if self.config.objective == "regress":
            return (asked[:count, 0].float() - batch["labels"]).square().sum(), count
        return cross_entropy(asked, self._targets(batch)), count

    def costs_and_ranks(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each position: nats, float32 [M], and how many answers are liked better than the right one, int64 [M].

        regress: squared errors, and no ranks: int64 [0].
        """
        if self.config.objective == "regress":
            errors = self.predict(batch)[:, 0] - batch["labels"]
            return errors.square(), torch.empty(0, dtype=torch.int64)
        return costs_and_ranks(self._asked(batch), self._targets(batch))

    def attention_weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Of every layer and head how much each token (row) looks at each: float32 [layers, B, heads, T, T]."""
        with recording() as found:
            self.hidden({**batch, "positions": torch.zeros(1, dtype=torch.int64)})
        return torch.stack(found)

    def hidden(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the last layer says at the positions, [M, H], and some rows more that mean nothing."""
        tokens, document, positions = batch["tokens"], batch["document"], batch["positions"]
        segments = batch.get("segments")
        hidden = self.embedding(tokens) + self.positions(places_in(document))
        hidden = hidden + (self.segments.weight[0] if segments is None else self.segments(segments))
        hidden = dropout(self.norm(hidden), self.config.dropout, self.training)
        bias = bias_of(document[:, None, :, None] == document[:, None, None, :])
        for block in self.blocks[:-1]:
            hidden = block(hidden, bias)
        asked: Tensor = self.blocks[-1](hidden, bias, F.pad(positions, (0, -positions.shape[0] % _ROUND)))
        return asked

    def _targets(self, batch: Mapping[str, Tensor]) -> Tensor:
        return batch["targets" if self.config.objective in ("masked-lm", "pretraining") else "labels"]

    def _asked(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the head says at the positions, and in some rows more."""
        hidden = self.hidden(batch)
        if self.config.objective in ("masked-lm", "pretraining"):
            hidden = self.transform_norm(activate(self.config.activation, self.transform(hidden)))
            return F.linear(hidden, self.embedding.weight, self.head_bias)
        return self._judge(hidden)

    def _judge(self, hidden: Tensor) -> Tensor:
        if self.config.objective != "tag":
            hidden = self.pooler(hidden).tanh()
        if self.config.objective in ("pretraining", "next-sentence"):
            return self.head(hidden)  # type: ignore[no-any-return]
        return self.head(dropout(hidden, self.config.dropout, self.training))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a feed-forward part, each added to its input and normed after."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self._heads, self._dropout, self._activation = config.heads, config.dropout, config.activation
        self.attention_in = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.mlp_in = nn.Linear(hidden, config.feed_forward)
        self.mlp_out = nn.Linear(config.feed_forward, hidden)
        self.mlp_norm = nn.LayerNorm(hidden, config.norm_eps)

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
        inner = activate(self._activation, self.mlp_in(hidden))
        return self.mlp_norm(hidden + self._drop(self.mlp_out(inner)))  # type: ignore[no-any-return]

    def _drop(self, tensor: Tensor) -> Tensor:
        return dropout(tensor, self._dropout, self.training)


def _initialize(module: nn.Module) -> None:
    """Weights as published: normal of standard deviation 0.02, biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
