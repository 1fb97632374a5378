"""The table of parity: it is right about a pair that is equal, and sees one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import parity
from phalanx.models import MODELS


def case(name: str, head: str) -> tuple[parity.ModelConfig, object]:
    return next((config, kind) for config, kind in parity.cases() if (config.name, config.objective) == (name, head))


@pytest.mark.parametrize(("name", "head"), [("bert-tiny", "pretraining"), ("bert-tiny", "regress")])
def test_two_that_compute_the_same_are_equal_both_ways(tmp_path: Path, name: str, head: str) -> None:
    line = parity.compared(*case(name, head), tmp_path)
    assert line.equal
    assert f"| {name} | {head} | {line.parameters:,} |" in parity.document([line], [], "command")


def test_a_weight_that_went_astray_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = parity.read_model

    def wrong(directory: Path) -> nn.Module:
        module = right(directory)
        with torch.no_grad():
            module.blocks[0].attention_in.weight.mul_(1.01)
        return module

    monkeypatch.setattr(parity, "read_model", wrong)
    line = parity.compared(*case("bert-tiny", "masked-lm"), tmp_path)
    assert not line.equal
    assert "Beyond 1e-05: bert-tiny (masked-lm)" in parity.document([line], ["gpt2-xl"], "command")


def test_every_published_model_has_its_lines() -> None:
    named = {config.name for config, _ in parity.cases()}
    assert named == {name for name, entry in MODELS.items() if entry.family in parity.VOCABULARIES}
