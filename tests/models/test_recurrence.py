"""Recurrent steps against torch's own GRU, against the paper's formulas in plain numpy, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from phalanx.models.recurrence import Memory, attending_gru, gru

SIZES = {"steps": 4, "rows": 3, "hidden": 5, "asked": 6, "source": 7, "annotation": 8}


def draw(*shape: int, seed: int, scale: float = 0.8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).requires_grad_()


def made(seed: int = 0, lengths: tuple[int, ...] = (7, 4, 1)) -> tuple[Tensor, Tensor, Tensor, Tensor, Memory]:
    """Inputs, start, weight, bias and memory of three sentences of these source lengths."""
    steps, rows, hidden, asked, source, annotation = SIZES.values()
    bias = torch.zeros(rows, source)
    for row, length in enumerate(lengths):
        bias[row, length:] = -torch.inf
    memory = Memory(
        annotations=draw(rows, source, annotation, seed=seed + 1),
        keys=draw(rows, source, asked, seed=seed + 2),
        bias=bias,
        score=draw(asked, seed=seed + 3),
        inward=draw(3 * hidden, annotation, seed=seed + 4),
    )
    inputs, start = draw(steps, rows, 3 * hidden, seed=seed + 5), draw(rows, hidden, seed=seed + 6)
    return (
        inputs,
        start,
        draw(3 * hidden + asked, hidden, seed=seed + 7),
        draw(3 * hidden + asked, seed=seed + 8),
        memory,
    )


def by_torch(inputs: Tensor, start: Tensor, weight: Tensor, bias: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """States and contexts with automatic differentiation, from torch's own cell and the paper's tanh."""
    hidden = start.shape[1]
    state, states, contexts = start, [], []
    for given_ in inputs:
        question = state @ weight[3 * hidden :].t() + bias[3 * hidden :]
        energies = torch.tanh(question[:, None] + memory.keys) @ memory.score + memory.bias
        context = (energies.softmax(1)[:, :, None] * memory.annotations).sum(1)
        x = given_ + context @ memory.inward.t()
        # torch's cell wants a matrix for what comes in: the unit matrix gives x as it is.
        state = torch.gru_cell(x, state, torch.eye(3 * hidden), weight[: 3 * hidden], None, bias[: 3 * hidden])
        states.append(state)
        contexts.append(context)
    return torch.stack(states), torch.stack(contexts)


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_the_gru_and_its_gradients_are_those_of_torch(seed, steps, rows):
    theirs = nn.GRU(4, 5)
    with torch.no_grad():
        for place, parameter in enumerate(theirs.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed + place))
    inputs, start = draw(steps, rows, 4, seed=seed + 10), draw(1, rows, 5, seed=seed + 11)
    expected, _ = theirs(inputs, start)
    wanted = torch.autograd.grad(expected.sin().sum(), [inputs, start, *theirs.parameters()])

    inward = inputs @ theirs.weight_ih_l0.t() + theirs.bias_ih_l0
    states = gru(inward, start[0], theirs.weight_hh_l0, theirs.bias_hh_l0)
    found = torch.autograd.grad(states.sin().sum(), [inputs, start, *theirs.parameters()])
    torch.testing.assert_close(states, expected, atol=1e-6, rtol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_attention_is_the_papers_formula_in_numpy(seed):
    """Section 3.1 and A.1.2: e_j = v . tanh(W_a s + U_a h_j), softmax over a sentence's own tokens, a weighted sum."""
    inputs, start, weight, bias, memory = made(seed)
    found = attending_gru(inputs, start, weight, bias, memory)
    hidden = SIZES["hidden"]
    question_weight, question_bias = (part[3 * hidden :].detach().double().numpy() for part in (weight, bias))
    before = torch.cat([start[None], found.states[:-1]]).detach().double().numpy()
    keys, values = memory.keys.detach().double().numpy(), memory.annotations.detach().double().numpy()
    score = memory.score.detach().double().numpy()
    for step in range(SIZES["steps"]):
        for row, length in enumerate((7, 4, 1)):
            question = question_weight @ before[step, row] + question_bias
            energies = np.array([score @ np.tanh(question + keys[row, j]) for j in range(length)])
            shares = np.exp(energies - energies.max())
            shares /= shares.sum()
            context = sum(share * values[row, j] for j, share in enumerate(shares))
            np.testing.assert_allclose(found.weights[step, row, :length].numpy(), shares, atol=2e-6)
            assert (found.weights[step, row, length:] == 0).all()
            np.testing.assert_allclose(found.contexts[step, row].detach().numpy(), context, atol=5e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_gradients_through_attention_are_those_of_automatic_differentiation(seed):
    inputs, start, weight, bias, memory = made(seed)
    learned = [inputs, start, weight, bias, memory.annotations, memory.keys, memory.score, memory.inward]

    def cost(states: Tensor, contexts: Tensor) -> Tensor:
        return states.sin().sum() + contexts.square().sum()

    found = attending_gru(inputs, start, weight, bias, memory)
    states, contexts = by_torch(inputs, start, weight, bias, memory)
    torch.testing.assert_close(found.states, states, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.contexts, contexts, atol=1e-5, rtol=1e-4)
    gradients = torch.autograd.grad(cost(found.states, found.contexts), learned)
    expected = torch.autograd.grad(cost(states, contexts), learned)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_half_precision_products_are_near_the_exact_ones():
    inputs, start, weight, bias, memory = made()
    exact = attending_gru(inputs, start, weight, bias, memory)
    halved = memory._replace(inward=memory.inward.bfloat16())
    half = attending_gru(inputs.bfloat16(), start, weight.bfloat16(), bias.bfloat16(), halved)
    assert half.states.dtype == half.weights.dtype == torch.float32
    torch.testing.assert_close(half.states, exact.states, atol=0.05, rtol=0)
    (gradient,) = torch.autograd.grad(half.states.sum(), weight)
    (expected,) = torch.autograd.grad(exact.states.sum(), weight)
    assert (gradient - expected).norm() < 0.05 * expected.norm()


def test_weights_carry_no_gradient():
    found = attending_gru(*made())
    assert found.states.requires_grad
    assert not found.weights.requires_grad
    torch.testing.assert_close(found.weights.sum(2), torch.ones(SIZES["steps"], SIZES["rows"]))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_state_goes_on_where_it_was_left(steps):
    inputs, start, weight, bias, memory = made()
    whole = attending_gru(inputs, start, weight, bias, memory).states
    first = attending_gru(inputs[:steps], start, weight, bias, memory).states
    rest = attending_gru(inputs[steps:], first[-1], weight, bias, memory).states
    torch.testing.assert_close(torch.cat([first, rest]), whole)
