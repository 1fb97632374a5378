"""Both ways of attention against the formula, for any mask."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from phalanx.models import attention
from phalanx.models.attention import attend, bias_of

LENGTH = 9


def formula(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    """Vaswani et al. 2017, equation 1, with forbidden pairs left out of the sum."""
    weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).exp()
    if allowed is not None:
        weights = weights * allowed
    return weights / weights.sum(-1, keepdim=True) @ value


def drawn(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, LENGTH, 8, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def masks() -> dict[str, Tensor | None]:
    some = torch.rand(2, 1, LENGTH, LENGTH, generator=torch.Generator().manual_seed(1)) < 0.4
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    return {"none": None, "causal": causal, "any": some | torch.eye(LENGTH, dtype=torch.bool)}


@pytest.mark.parametrize("longest_plain", [1, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", masks())
def test_values_and_gradients_are_those_of_the_formula(dtype, mask, longest_plain, monkeypatch):
    monkeypatch.setattr(attention, "_LONGEST_PLAIN", longest_plain)
    allowed = masks()[mask]
    ours = drawn(dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in ours]
    got = attend(*ours, None if allowed is None else bias_of(allowed))
    expected = formula(*exact, allowed)
    got.square().sum().backward()
    expected.square().sum().backward()
    near = {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, **near)
    for tensor, reference in zip(ours, exact, strict=True):
        torch.testing.assert_close(tensor.grad.double(), reference.grad, **near)


def test_what_is_hidden_has_no_influence_at_all():
    query, key, value = (tensor.detach() for tensor in drawn(torch.bfloat16))
    bias = bias_of(torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril())
    before = attend(query, key, value, bias)
    key[..., -1, :], value[..., -1, :] = 100.0, -100.0
    assert torch.equal(attend(query, key, value, bias)[..., :-1, :], before[..., :-1, :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropped_weights_leave_the_mean(dtype):
    query, key, value = (tensor.detach() for tensor in drawn(dtype))
    torch.manual_seed(0)
    mean = sum(attend(query, key, value, None, 0.3).float() for _ in range(600)) / 600
    torch.testing.assert_close(mean, attend(query, key, value, None).float(), rtol=0, atol=0.12)
