"""Both sides of the benchmark of training take the same steps; one that does not is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import bench_training
from benchmarks.harness import NotEqual, Options


def test_the_losses_of_every_step_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_training, "LENGTH", 16)
    gpt2, llama = (replace(config, vocabulary_size=90, sequence_length=16) for config in bench_training.configs())
    monkeypatch.setattr(bench_training, "ENTRIES", 90)
    for config in (gpt2, llama):
        comparison = bench_training.contest(config, Options(rounds=1, quick=True), lambda text: None)
        assert comparison.notes["largest difference of losses"] <= bench_training.LOSS_TOLERANCE


def test_another_loss_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_training, "LENGTH", 16)
    monkeypatch.setattr(bench_training, "ENTRIES", 90)
    right = bench_training.ours_loss
    monkeypatch.setattr(bench_training, "ours_loss", lambda module, tokens: right(module, tokens) * torch.tensor(1.01))
    config = replace(bench_training.configs()[0], vocabulary_size=90, sequence_length=16)
    with pytest.raises(NotEqual, match="the losses of the same step differ"):
        bench_training.contest(config, Options(rounds=1, quick=True), lambda text: None)
