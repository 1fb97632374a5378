"""Matrices that lie otherwise: the same numbers out of the model, alone and in batches."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from phalanx.models import GenerationSettings, ModelConfig, build, generate, lay_out, resolve
from phalanx.models.causal import CausalModel
from phalanx.models.layout import Packed

# The smallest GPT-2 whose matrices are large: only they are packed.
WIDE = ModelConfig("wide", "gpt2", 2100, 32, layers=2, hidden=512, heads=8, activation="gelu_tanh", tied=True)


def model_of(name: str) -> CausalModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = build(WIDE if name == "wide" else resolve(name, 2100, 32)).eval()
        for parameter in module.parameters():
            parameter.data += torch.randn_like(parameter) * 0.05
    assert isinstance(module, CausalModel)
    return module


@pytest.mark.parametrize("rows", [1, 2, 8])
@pytest.mark.parametrize("name", ["gpt-tiny", "llama-tiny", "wide"])
def test_the_logits_are_the_same(name: str, rows: int) -> None:
    model = model_of(name)
    other = deepcopy(model)
    lay_out(other, rows)
    tokens = torch.randint(2100, (3, 20), generator=torch.Generator().manual_seed(0))
    prompts = [[5, 6, 7], [8], [9, 10]][:rows]
    settings = GenerationSettings(max_tokens=6, temperature=0)
    with torch.no_grad():
        torch.testing.assert_close(other(tokens), model(tokens), rtol=1e-4, atol=1e-5)
    assert list(generate(other, prompts, settings)) == list(generate(model, prompts, settings))


def test_large_matrices_are_packed_for_several_rows_and_turned_for_one() -> None:
    model = model_of("wide")
    shape = model.blocks[0].mlp_in.weight.shape
    lay_out(model, 1)
    assert model.blocks[0].mlp_in.weight.shape == shape
    assert model.blocks[0].mlp_in.weight.t().is_contiguous()
    assert model.embedding.weight.t().is_contiguous()
    assert model.blocks[0].mlp_out.weight.is_contiguous(), "with fewer outputs than inputs it is fastest as it is"
    model = model_of("wide")
    lay_out(model, 4)
    assert isinstance(model.blocks[0].mlp_out, Packed)
    assert isinstance(model.head, Packed)
    small = model_of("gpt-tiny")
    lay_out(small, 4)
    assert not any(isinstance(module, Packed) for module in small.modules())


def test_other_precisions_stay_as_they_are() -> None:
    model = model_of("gpt-tiny").bfloat16()
    lay_out(model, 1)
    assert all(parameter.is_contiguous() for parameter in model.parameters())
