"""Cross-entropy in chunks against torch's own: value and gradient, in every precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from phalanx.models import cross_entropy as subject
from phalanx.models.cross_entropy import costs_and_ranks, cross_entropy


def drawn(rows: int, size: int, scale: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * 1000 + size)
    logits = (torch.randn(rows, size, generator=generator) * scale).to(dtype).requires_grad_()
    return logits, torch.randint(size, (rows,), generator=generator)


@given(st.integers(1, 40), st.integers(1, 50), st.sampled_from([0.0, 1.0, 100.0]), st.integers(1, 300))
def test_value_and_gradient_are_torchs_for_any_chunk(rows, size, scale, chunk):
    ours, targets = drawn(rows, size, scale, torch.float32)
    theirs = ours.detach().clone().requires_grad_()
    whole, subject._CHUNK = subject._CHUNK, chunk
    try:
        loss = cross_entropy(ours, targets)
    finally:
        subject._CHUNK = whole
    expected = F.cross_entropy(theirs, targets, reduction="sum")
    (loss / 7).backward()
    (expected / 7).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_half_precision_logits_are_reckoned_with_in_float32():
    logits, targets = drawn(64, 300, 3.0, torch.bfloat16)
    loss = cross_entropy(logits, targets)
    loss.backward()
    exact = logits.detach().double().requires_grad_()
    expected = F.cross_entropy(exact, targets, reduction="sum")
    expected.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    assert logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=0.01, atol=1e-5)


def test_a_target_that_seems_impossible_costs_what_it_must():
    """Its probability is zero in float32; the cost is not infinite."""
    logits = torch.tensor([[0.0, 500.0, -500.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([2]))
    loss.backward()
    assert loss.item() == 1000.0
    assert logits.grad.tolist() == [[0.0, 1.0, -1.0]]


def test_nothing_is_kept_where_no_gradient_is_wanted():
    logits, targets = drawn(8, 20, 1.0, torch.float32)
    with torch.no_grad():
        assert cross_entropy(logits, targets).grad_fn is None
    assert cross_entropy(logits.detach(), targets).grad_fn is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_give_a_loss_that_is_none(bad):
    logits = torch.zeros(3, 5)
    logits[1, 2] = bad
    assert not torch.isfinite(cross_entropy(logits, torch.tensor([0, 0, 0])))


def test_rows_beyond_the_targets_count_nothing():
    logits, targets = drawn(11, 20, 1.0, torch.float32)
    padded = torch.cat([logits.detach(), torch.full((5, 20), 3.0)]).requires_grad_()
    loss = cross_entropy(padded, targets)
    loss.backward()
    expected = cross_entropy(logits, targets)
    expected.backward()
    assert loss.item() == expected.item()
    assert torch.equal(padded.grad[:11], logits.grad)
    assert torch.equal(padded.grad[11:], torch.zeros(5, 20))


@given(st.integers(0, 40), st.integers(1, 50), st.sampled_from([0.0, 1.0, 100.0]), st.integers(1, 300))
def test_each_cost_is_torchs_and_each_rank_that_of_a_stable_sort(rows, size, scale, chunk):
    logits, targets = drawn(rows, size, scale, torch.float32)
    logits = logits.detach().round()  # so that some are equal
    extra = torch.cat([logits, torch.zeros(3, size)])  # rows that nobody asks for
    whole, subject._CHUNK = subject._CHUNK, chunk
    try:
        costs, ranks = costs_and_ranks(extra, targets)
    finally:
        subject._CHUNK = whole
    torch.testing.assert_close(costs, F.cross_entropy(logits, targets, reduction="none"), rtol=1e-5, atol=1e-5)
    order = logits.argsort(dim=1, descending=True, stable=True)
    assert ranks.tolist() == [row.tolist().index(target) for row, target in zip(order, targets.tolist(), strict=True)]


def test_an_answer_that_is_no_number_is_liked_least_and_costs_no_number():
    logits = torch.tensor([[1.0, math.nan, 0.0], [1.0, 2.0, 3.0]])
    costs, ranks = costs_and_ranks(logits, torch.tensor([1, 2]))
    assert ranks.tolist() == [2, 0]
    assert costs.isnan().tolist() == [True, False]
