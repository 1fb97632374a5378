"""The decoder against a plain reading of its parts, causality, and text drawn from it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from phalanx.models import MODELS, Decoder, build, resolve
from phalanx.models.decoder import squared_relu
from phalanx.models.rotary import rotate

VOCABULARY, LENGTH = 47, 20
DECODERS = [name for name, entry in MODELS.items() if entry.family == "decoder"]


def decoder(name: str = "gram-decoder", dropout: float = 0.0) -> Decoder:
    """With weights that are nowhere zero."""
    torch.manual_seed(4)
    module = build(resolve(name, VOCABULARY, LENGTH, dropout))
    assert isinstance(module, Decoder)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def some_tokens(rows: int = 3, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def plainly(module: Decoder, tokens: Tensor) -> Tensor:
    """Logits [T, V] of one row [T]: positions by complex numbers, attention token by token."""
    weights = dict(module.named_parameters())
    config = module.config
    width = config.hidden // config.heads

    def norm(value: Tensor) -> Tensor:
        centred = value - value.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def turn(value: Tensor) -> Tensor:
        place = torch.arange(len(value), dtype=value.dtype)[:, None]
        speed = 10_000 ** (-torch.arange(width // 2, dtype=value.dtype) * 2 / width)
        turned = torch.complex(*value.chunk(2, -1)) * torch.polar(torch.ones_like(place * speed), place * speed)
        return torch.cat([turned.real, turned.imag], -1)

    embedded = weights["embedding.weight"][tokens]
    for place in range(len(tokens)):
        key = int(tokens[place])
        for order in range(2, config.grams + 1):
            before = place - order + 1
            key = (key * 1_000_003 + (int(tokens[before]) + 1 if before >= 0 else 0)) % (2**31 - 1)
            embedded = embedded.index_add(
                0, torch.tensor([place]), weights[f"grams.{order - 2}.weight"][key % config.gram_table][None]
            )
    hidden = norm(embedded)
    for layer in range(config.layers):
        block = f"blocks.{layer}"
        parts = (norm(hidden) @ weights[f"{block}.attention_in.weight"].T).chunk(3, -1)
        mixed = torch.zeros_like(hidden)
        for head in range(config.heads):
            query, key, value = (part[:, head * width : (head + 1) * width] for part in parts)
            query, key = turn(norm(query)), turn(norm(key))
            for place in range(len(tokens)):
                scores = (key[: place + 1] @ query[place] / math.sqrt(width)).exp()
                mixed[place, head * width : (head + 1) * width] = scores / scores.sum() @ value[: place + 1]
        hidden = hidden + mixed @ weights[f"{block}.attention_out.weight"].T
        inner = (norm(hidden) @ weights[f"{block}.mlp_in.weight"].T).clamp(min=0) ** 2
        hidden = hidden + inner @ weights[f"{block}.mlp_out.weight"].T
    return norm(hidden) @ weights["head.weight"].T


@pytest.mark.parametrize("name", DECODERS)
def test_logits_are_those_of_the_formulas(name):
    module = decoder(name).double()
    tokens = some_tokens()
    with torch.no_grad():
        logits = module(tokens)
        expected = torch.stack([plainly(module, row) for row in tokens])
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected.float(), rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(st.integers(0, LENGTH - 2), st.integers(0, 99))
def test_no_token_is_predicted_from_a_later_one(last_kept, seed):
    module = decoder()
    tokens = some_tokens(seed=seed)
    other = some_tokens(seed=seed + 1)
    other[:, : last_kept + 1] = tokens[:, : last_kept + 1]
    with torch.no_grad():
        before, after = module(tokens), module(other)
    assert torch.equal(before[:, : last_kept + 1], after[:, : last_kept + 1])


def test_every_earlier_token_can_matter():
    module = decoder()
    embedded = module.embedding(some_tokens(1)).detach().requires_grad_()
    module.embedding.forward = lambda _: embedded
    module(some_tokens(1))[0, -1].square().sum().backward()
    assert (embedded.grad[0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("name", DECODERS)
def test_a_fresh_model_guesses_uniformly(name):
    module = build(resolve(name, VOCABULARY, LENGTH, None))
    loss, count = module.loss({"tokens": some_tokens(length=LENGTH + 1)})
    assert loss.item() / count == pytest.approx(math.log(VOCABULARY), rel=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_loss_is_the_sum_of_the_next_tokens_costs(precision):
    module = decoder()
    tokens = some_tokens(length=LENGTH + 1)
    with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        loss, count = module.loss({"tokens": tokens})
        logits = module(tokens[:, :-1])
    expected = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    assert count == 3 * LENGTH
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)


def test_bf16_is_near_fp32():
    module = decoder()
    gradients, losses = [], []
    for enabled in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss, _ = module.loss({"tokens": some_tokens(length=LENGTH + 1)})
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in module.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert F.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.98


def test_dropout_acts_in_training_only():
    module = decoder(dropout=0.3)
    assert not torch.equal(module(some_tokens()), module(some_tokens()))
    module.eval()
    assert torch.equal(module(some_tokens()), decoder().eval()(some_tokens()))


def test_rotation_keeps_lengths_and_depends_on_distances_only():
    module = build(resolve("gpt-tiny", VOCABULARY, LENGTH, None))
    width = module.config.hidden // module.config.heads
    tensor = torch.randn(2, 1, width).expand(2, LENGTH, width)  # the same query and key at every place
    query, key = rotate(tensor, module.get_buffer("_cos"), module.get_buffer("_sin"))
    torch.testing.assert_close(query.norm(dim=-1), tensor[0].norm(dim=-1))
    scores = query @ key.T
    for distance in range(-5, 6):
        along = scores.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=1e-4, atol=1e-4)


def test_the_gradient_of_the_squared_relu_is_right():
    tensor = torch.randn(50, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squared_relu, tensor)
    assert torch.equal(squared_relu(tensor), F.relu(tensor).square())


@pytest.mark.parametrize("name", DECODERS)
def test_padding_at_the_left_and_other_documents_change_nothing(name):
    module = decoder(name).eval()
    tokens = some_tokens(2)
    padding, document = torch.tensor([0, 6]), torch.tensor([[1] * 5 + [2] * (LENGTH - 5)], dtype=torch.int32)
    with torch.no_grad():
        padded = module(tokens, padding=padding)
        torch.testing.assert_close(padded[0], module(tokens[:1])[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(padded[1, 6:], module(tokens[1:, 6:])[0], rtol=1e-4, atol=1e-5)
        loss, count = module.loss({"tokens": tokens[:1], "document": document})
        alone = [module.loss({"tokens": tokens[:1, part]}) for part in (slice(5), slice(5, None))]
    assert int(count) == LENGTH - 2
    torch.testing.assert_close(loss, alone[0][0] + alone[1][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_a_cache_read_token_by_token_gives_the_logits_of_reading_at_once(name):
    module = decoder(name).eval()
    tokens = some_tokens(2)
    cache = module.new_cache(2, LENGTH)
    with torch.no_grad():
        whole = module(tokens)
        parts = [module(tokens[:, :7], cache)] + [module(tokens[:, i : i + 1], cache) for i in range(7, LENGTH)]
    assert cache.used == LENGTH
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)
