"""Whether a model of ours and the one of transformers are the same function: same weights, same documents, same loss.

Ours gets the documents packed, several a row, as in training; theirs gets one a row with padding. Knows
nothing of speed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from benchmarks.documents import unpacked
from benchmarks.harness import NotEqual
from phalanx.data import Batch
from phalanx.models import ModelConfig, build
from phalanx.models.huggingface import write_model

TOLERANCE = 1e-5
"""Relative."""


def peer_of(ours: nn.Module) -> Any:
    """The model of transformers with the weights of ours, by way of a checkpoint on disk."""
    kind = AutoModelForMaskedLM if ours.config.objective == "masked-lm" else AutoModelForCausalLM  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as directory:
        write_model(ours, Path(directory))
        return kind.from_pretrained(directory)


def shaken(config: ModelConfig) -> nn.Module:
    """A model with random weights, biases too: a wrong translation must show."""
    torch.manual_seed(0)
    ours = build(config)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return ours.eval()


def losses(ours: nn.Module, batch: Batch, pad_id: int) -> tuple[float, float]:
    """(ours, theirs): mean loss in nats of a packed masked-lm `batch`, with the same weights, no dropout."""
    theirs = peer_of(ours)
    theirs.eval()
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
    ours, theirs = losses(shaken(config), batch, pad_id)
    difference = abs(ours - theirs) / abs(theirs)
    if not difference <= TOLERANCE:
        raise NotEqual(f"the same weights and batch give a loss of {ours:.7f} here and {theirs:.7f} at the peer")
    return difference
