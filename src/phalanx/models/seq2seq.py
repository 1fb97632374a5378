"""A sentence in, a sentence out, by recurrent networks: with Bahdanau's additive attention, and the same without it.

A GRU reads the source forwards and another backwards; a third writes the target, a token at a time. With attention
each step looks at all annotations, the states of both readers, by weights of its own (Bahdanau, Cho and Bengio 2015).
Without, all that a step knows of the source is where both readers ended, one vector however long the sentence: it
begins there and is fed it at every step (Cho et al. 2014; Sutskever et al. 2014 only begin there). The rest is alike.

After the paper: the decoder begins with tanh of the backward state at the first token, and a maxout layer over state,
last token and context is the deep output (A.2.2). Other than the paper: source and target share a vocabulary, and one
table serves as both embeddings and as the output (Press and Wolf 2017), so that the maxout is as wide as an embedding,
half the state. Padding changes nothing. Knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phalanx.foundation import UsageError
from phalanx.models.attention import bias_of
from phalanx.models.catalog import ModelConfig
from phalanx.models.cross_entropy import costs_and_ranks, cross_entropy
from phalanx.models.dropout import dropout
from phalanx.models.recurrence import Memory, attending_gru, gru

_ROUND = 32  # as in `bert`: how many tokens a batch predicts differs, and oneDNN keeps kernels for every number


class NoAttention(UsageError):
    """An alignment is asked of a model that has none."""


class Reading(NamedTuple):
    """What the decoder knows of B source sentences: `start` float32 [B, H], the state it begins in; with attention the
    `memory`; without, the `summary` [B, 2H] that every step is fed."""

    start: Tensor
    memory: Memory | None = None
    summary: Tensor | None = None

    def select(self, rows: Tensor) -> Reading:
        """Row i becomes what row `rows[i]` is, int64 [n]."""
        memory, summary = self.memory, self.summary
        if memory is not None:
            annotations, keys, bias = (part[rows] for part in (memory.annotations, memory.keys, memory.bias))
            memory = memory._replace(annotations=annotations, keys=keys, bias=bias)
        return Reading(self.start[rows], memory, None if summary is None else summary[rows])


class Seq2Seq(nn.Module):
    """`source` int64 [B, S] of `lengths` int64 [B] (1 or more), and what is written of the target, `target` int64
    [B, T], to logits of the next tokens. A target begins with a mark of its own; what pads the ends does not matter."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden, width = config.hidden, config.hidden // 2
        self.embedding = nn.Embedding(config.vocabulary_size, width)
        self.forwards = Recurrence(width, hidden)
        self.backwards = Recurrence(width, hidden)
        self.begin = nn.Linear(hidden if config.attention else 2 * hidden, hidden)
        self.decoder = Recurrence(width, hidden)
        self.context = nn.Linear(2 * hidden, 3 * hidden, bias=False)
        if config.attention:
            self.question = nn.Linear(hidden, hidden)
            self.keys = nn.Linear(2 * hidden, hidden, bias=False)
            self.score = nn.Linear(hidden, 1, bias=False)
        self.output = nn.Linear(hidden + width + 2 * hidden, 2 * width)
        self.head_bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Logits float32 [B, T, V]."""
        states, embedded, contexts, _ = self._write(self.read(source, lengths), target)
        return self._logits(states, embedded, contexts).float().transpose(0, 1)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Cross-entropy of `targets` int64 [M], which follow the `positions` int64 [M] of the flattened `target`, given
        `source`, its `lengths` and the target so far: summed (float32 scalar, nats), and their number."""
        targets = batch["targets"]
        return cross_entropy(self._asked(batch), targets), targets.shape[0]

    def costs_and_ranks(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each token that `loss` predicts: nats, float32 [M], and how many tokens are liked better, int64 [M]."""
        return costs_and_ranks(self._asked(batch), batch["targets"])

    def read(self, source: Tensor, lengths: Tensor) -> Reading:
        """What the decoder begins with."""
        place = torch.arange(source.shape[1], device=source.device)[:, None]
        seen = place < lengths
        mirrored = torch.where(seen, lengths - 1 - place, place)[:, :, None]  # its own inverse; padding stays behind
        embedded = self._embedded(source)
        zero = torch.zeros(source.shape[0], self.config.hidden, device=source.device)
        ahead = self.forwards(embedded, zero)
        back = self.backwards(embedded.gather(0, mirrored.expand_as(embedded)), zero)
        back = back.gather(0, mirrored.expand_as(back))
        if not self.config.attention:
            last = (lengths - 1)[None, :, None].expand(1, -1, ahead.shape[2])
            summary = torch.cat([ahead.gather(0, last)[0], back[0]], 1)
            return Reading(self.begin(summary).float().tanh(), summary=summary)
        annotations = torch.cat([ahead, back], 2).transpose(0, 1).contiguous()
        keys, inward = self.keys(annotations).float(), self.context.weight.to(self._dtype())
        memory = Memory(annotations, keys, bias_of(seen.t()), self.score.weight[0], inward)
        return Reading(self.begin(back[0]).float().tanh(), memory)

    def step(self, reading: Reading, state: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Logits float32 [B, V] of what follows `token` int64 [B], which is written in `state` float32 [B, H], and the
        state after it."""
        states, embedded, contexts, _ = self._write(reading._replace(start=state), token[:, None])
        return self._logits(states, embedded, contexts)[0].float(), states[0]

    def alignment(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """How much of each source token is taken where the token after each of the target's is written: float32
        [B, T, S], rows sum to 1. Raises NoAttention."""
        weights = self._write(self.read(source, lengths), target)[3]
        if weights is None:
            raise NoAttention(
                f"{self.config.name} has no attention: it knows a sentence by one vector",
                remedy="use rnn-attention, the same model with it",
            )
        return weights.transpose(0, 1)

    def _asked(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits at the positions, and of some rows more that mean nothing."""
        target = batch["target"]
        positions = F.pad(batch["positions"], (0, -batch["positions"].shape[0] % _ROUND))
        rows, length = target.shape
        at = positions % length * rows + positions // length  # time comes first here
        written = self._write(self.read(batch["source"], batch["lengths"]), target)[:3]
        return self._logits(*(part.flatten(0, 1).index_select(0, at) for part in written))

    def _write(self, reading: Reading, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Of each token of the target: the state after it, its embedding, the context and the weights, [T, B, ..]."""
        embedded = self._embedded(target)
        if reading.summary is not None:
            states = self.decoder(embedded, reading.start, self.context(reading.summary))
            return states, embedded, reading.summary.expand(target.shape[1], -1, -1), None
        assert reading.memory is not None, "one of the two is there"
        question, recurrent, dtype = self.question, self.decoder.state, self._dtype()
        attended = attending_gru(
            self.decoder.inward(embedded),
            reading.start,
            torch.cat([recurrent.weight, question.weight]).to(dtype),
            torch.cat([recurrent.bias, question.bias]).to(dtype),
            reading.memory,
        )
        return attended.states, embedded, attended.contexts, attended.weights

    def _logits(self, states: Tensor, embedded: Tensor, contexts: Tensor) -> Tensor:
        pairs = self.output(torch.cat([part.to(self._dtype()) for part in (states, embedded, contexts)], -1))
        largest = dropout(pairs.unflatten(-1, (-1, 2)).amax(-1), self.config.dropout, self.training)
        return F.linear(largest, self.embedding.weight, self.head_bias)

    def _embedded(self, tokens: Tensor) -> Tensor:
        """[length, B, H / 2] of tokens [B, length]."""
        return dropout(self.embedding(tokens.t()), self.config.dropout, self.training).to(self._dtype())

    def _dtype(self) -> torch.dtype:
        return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.embedding.weight.dtype


class Recurrence(nn.Module):
    """A GRU over [T, B, width] from a state [B, hidden]. The weights are those of torch's GRU, in its order."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inward = nn.Linear(width, 3 * hidden)
        self.state = nn.Linear(hidden, 3 * hidden)
        for start in range(0, 3 * hidden, hidden):
            nn.init.orthogonal_(self.state.weight[start : start + hidden])

    def forward(self, inputs: Tensor, start: Tensor, always: Tensor | None = None) -> Tensor:
        """States float32 [T, B, hidden]; `always` [B, 3 * hidden] is added to what the inputs give."""
        inward = self.inward(inputs)
        if always is not None:
            inward = inward + always
        return gru(inward, start, self.state.weight.to(inward.dtype), self.state.bias.to(inward.dtype))
