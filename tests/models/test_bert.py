"""BERT against a plain reading of the paper, one document at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from phalanx.models import Bert, build, resolve
from phalanx.models.causal import places_in

VOCABULARY, LENGTH = 61, 24


def encoder(dropout: float = 0.0, spread: float = 0.3) -> Bert:
    """With weights large enough that every part matters, biases and norms included."""
    torch.manual_seed(3)
    module = build(resolve("bert-tiny", VOCABULARY, LENGTH, dropout))
    assert isinstance(module, Bert)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * spread)
    return module


def published(module: Bert, tokens: Tensor) -> Tensor:
    """Logits [n, V] of one whole document [n] (Devlin et al. 2019; Vaswani et al. 2017), written out plainly."""
    weights = dict(module.named_parameters())

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, value: Tensor) -> Tensor:
        centred = value - value.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def gelu(value: Tensor) -> Tensor:
        return value * (1 + torch.erf(value / math.sqrt(2))) / 2

    config = module.config
    width = config.hidden // config.heads
    hidden = norm(
        "norm",
        weights["embedding.weight"][tokens]
        + weights["positions.weight"][: len(tokens)]
        + weights["segments.weight"][0],
    )
    for layer in range(config.layers):
        block = f"blocks.{layer}"
        query, key, value = linear(f"{block}.attention_in", hidden).chunk(3, dim=-1)
        heads = []
        for head in range(config.heads):
            part = slice(head * width, (head + 1) * width)
            scores = (query[:, part] @ key[:, part].T / math.sqrt(width)).exp()
            heads.append(scores / scores.sum(-1, keepdim=True) @ value[:, part])
        hidden = norm(f"{block}.attention_norm", hidden + linear(f"{block}.attention_out", torch.cat(heads, -1)))
        hidden = norm(f"{block}.mlp_norm", hidden + linear(f"{block}.mlp_out", gelu(linear(f"{block}.mlp_in", hidden))))
    hidden = norm("transform_norm", gelu(linear("transform", hidden)))
    return hidden @ weights["embedding.weight"].T + weights["head_bias"]


def packed(rows: list[list[int]], seed: int = 0) -> tuple[Tensor, Tensor, list[list[Tensor]]]:
    """Rows of documents of these sizes side by side, padded: tokens, document, and each document's tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(rows), LENGTH, dtype=torch.int64)
    document = torch.zeros(len(rows), LENGTH, dtype=torch.int32)
    texts: list[list[Tensor]] = []
    for row, sizes in enumerate(rows):
        start = 0
        texts.append([])
        for number, size in enumerate(sizes, start=1):
            text = torch.randint(1, VOCABULARY, (size,), generator=generator)
            tokens[row, start : start + size], document[row, start : start + size] = text, number
            texts[-1].append(text)
            start += size
    return tokens, document, texts


def predict(module: Bert, tokens: Tensor, document: Tensor, positions: Tensor) -> Tensor:
    return module.predict({"tokens": tokens, "document": document, "positions": positions})


def all_real(document: Tensor) -> Tensor:
    return document.flatten().nonzero().flatten()


row_of_sizes = st.lists(st.integers(1, 9), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) <= LENGTH)


@settings(max_examples=20)
@given(st.lists(row_of_sizes, min_size=1, max_size=3), st.integers(0, 99))
def test_packed_rows_compute_what_each_document_would_alone(rows, seed):
    module = encoder().double()
    tokens, document, texts = packed(rows, seed)
    with torch.no_grad():
        got = predict(module, tokens, document, all_real(document))
        expected = torch.cat([published(module, text) for row in texts for text in row])
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-5)


def test_only_the_positions_asked_for_are_computed_and_in_their_order():
    module = encoder()
    tokens, document, _ = packed([[5, 6], [7]])
    everywhere = predict(module, tokens, document, torch.arange(2 * LENGTH))
    positions = torch.tensor([LENGTH + 3, 0, 7])
    some = predict(module, tokens, document, positions)
    assert some.shape == (3, VOCABULARY)
    assert some.dtype == torch.float32
    torch.testing.assert_close(some, everywhere[positions], rtol=1e-4, atol=1e-5)


def test_another_documents_tokens_and_the_padding_change_nothing():
    module = encoder()
    tokens, document, _ = packed([[5, 6, 4], [9]])
    mine = torch.arange(5, 11)  # the second document of the first row
    with torch.no_grad():
        before = predict(module, tokens, document, mine)
        changed = torch.randint(1, VOCABULARY, tokens.shape)
        changed[0, 5:11] = tokens[0, 5:11]
        after = predict(module, changed, document, mine)
    assert torch.equal(before, after)


def test_the_loss_is_the_sum_over_masked_positions_and_their_number():
    module = encoder()
    tokens, document, _ = packed([[5, 6], [7]])
    positions, targets = torch.tensor([1, 6, LENGTH]), torch.tensor([4, 8, 9])
    loss, count = module.loss({"tokens": tokens, "document": document, "positions": positions, "targets": targets})
    logits = predict(module, tokens, document, positions)
    expected = -sum(logits[i].log_softmax(-1)[target] for i, target in enumerate(targets))
    assert count == 3
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_positions_count_from_the_start_of_each_document():
    document = torch.tensor([[1, 1, 1, 2, 3, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    assert places_in(document).tolist() == [[0, 1, 2, 0, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7]]


@given(row_of_sizes)
def test_positions_are_a_count_for_any_sizes(sizes):
    _, document, _ = packed([sizes])
    expected = [place for size in [*sizes, LENGTH - sum(sizes)] for place in range(size)]
    assert places_in(document)[0].tolist() == expected


def test_a_fresh_model_has_the_published_number_of_parameters():
    """4.4 million with 30,522 entries and 512 positions (Turc et al. 2019), without pooler."""
    module = build(resolve("bert-tiny", 30_522, 512, None))
    tables = 30_522 * 128 + 512 * 128 + 2 * 128 + 2 * 128
    layer = 4 * (128 * 128 + 128) + 2 * 128 * 512 + 512 + 128 + 2 * 2 * 128
    head = 128 * 128 + 128 + 2 * 128 + 30_522
    assert sum(parameter.numel() for parameter in module.parameters()) == tables + 2 * layer + head


def test_dropout_acts_in_training_only():
    module = encoder(dropout=0.3)
    tokens, document, _ = packed([[5, 6]])
    positions = all_real(document)
    assert not torch.equal(*(predict(module, tokens, document, positions) for _ in range(2)))
    module.eval()
    assert torch.equal(*(predict(module, tokens, document, positions) for _ in range(2)))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_bf16_is_near_fp32(dropout):
    """The plain attention of bf16 beside the fused one of fp32; gradients too."""
    module = encoder(spread=0.05).eval()
    module.config = resolve("bert-tiny", VOCABULARY, LENGTH, dropout)
    tokens, document, _ = packed([[5, 6, 9], [20]])
    batch = {"tokens": tokens, "document": document, "positions": torch.arange(4, 12), "targets": torch.arange(8)}
    losses, gradients = [], []
    for enabled in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss, _ = module.loss(batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append(module.blocks[0].attention_in.weight.grad.clone())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert torch.nn.functional.cosine_similarity(*(g.flatten() for g in gradients), dim=0) > 0.98
