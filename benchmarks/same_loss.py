"""Whether our BERT and the one of transformers are the same function: same weights, same documents, same loss.

Ours gets the documents packed, several a row, as in training; theirs gets one a row with padding. Knows
nothing of speed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from benchmarks.documents import unpacked
from benchmarks.harness import NotEqual
from phalanx.data import Batch
from phalanx.models import ModelConfig, build

TOLERANCE = 1e-5
"""Relative."""

_BLOCK = {
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
_REST = {
    "embedding.weight": "bert.embeddings.word_embeddings.weight",
    "positions.weight": "bert.embeddings.position_embeddings.weight",
    "norm.weight": "bert.embeddings.LayerNorm.weight",
    "norm.bias": "bert.embeddings.LayerNorm.bias",
    "transform.weight": "cls.predictions.transform.dense.weight",
    "transform.bias": "cls.predictions.transform.dense.bias",
    "transform_norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "transform_norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "head_bias": "cls.predictions.bias",
}
_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_SEGMENTS = "bert.embeddings.token_type_embeddings.weight"


def bert_values(config: ModelConfig) -> dict[str, Any]:
    """What BertConfig needs to be the model of `config`, JSON-safe."""
    return {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * config.hidden,
        "max_position_embeddings": config.sequence_length,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "type_vocab_size": 1,
    }


def translated(ours: nn.Module) -> dict[str, Tensor]:
    """The state of BertForMaskedLM that has our weights. Its segments, which we have none of, are zero."""
    state: dict[str, Tensor] = {}
    for name, tensor in ours.state_dict().items():
        if name in _REST:
            state[_REST[name]] = tensor
            continue
        _, layer, part, kind = name.split(".")
        place = f"bert.encoder.layer.{layer}"
        if part == "attention_in":
            for which, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                state[f"{place}.attention.self.{which}.{kind}"] = third
        else:
            state[f"{place}.{_BLOCK[part]}.{kind}"] = tensor
    width = state[_REST["embedding.weight"]].shape[1]
    return state | {theirs: state[same] for theirs, same in _TIED.items()} | {_SEGMENTS: torch.zeros(1, width)}


def losses(config: ModelConfig, batch: Batch, pad_id: int) -> tuple[float, float]:
    """(ours, theirs): mean loss in nats of a packed masked-lm `batch`, with the same random weights, no dropout."""
    torch.manual_seed(0)
    ours = build(config)
    with torch.no_grad():
        for parameter in ours.parameters():  # biases too: a wrong translation must show
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    ours.eval()
    theirs = BertForMaskedLM(BertConfig(**bert_values(config)))
    theirs.load_state_dict(translated(ours))
    theirs.train(False)
    padded = unpacked(batch, pad_id)
    with torch.no_grad():
        loss_sum, count = ours.loss({name: torch.from_numpy(array) for name, array in batch.arrays.items()})  # type: ignore[operator]
        answer = theirs(
            input_ids=torch.from_numpy(padded.input_ids),
            attention_mask=torch.from_numpy(padded.attention_mask),
            labels=torch.from_numpy(padded.labels),
        )
    return float(loss_sum) / count, float(answer.loss)


def check(config: ModelConfig, batch: Batch, pad_id: int) -> float:
    """The relative difference of the losses. Raises NotEqual above TOLERANCE."""
    ours, theirs = losses(config, batch, pad_id)
    difference = abs(ours - theirs) / abs(theirs)
    if not difference <= TOLERANCE:
        raise NotEqual(f"the same weights and batch give a loss of {ours:.7f} here and {theirs:.7f} at the peer")
    return difference
