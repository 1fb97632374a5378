"""Recurrent steps over time with their gradient written out by hand: the GRU, and the GRU that looks back by attention.

Automatic differentiation makes a product for the gradient of the weights at every step; here there is one for all steps
of a sentence. Half-precision weights make half-precision products; states and gates stay float32. Time comes first.
Knows no embeddings and no vocabulary.

    GRU (Cho et al. 2014, with the reset gate after the product, as torch and cuDNN have it, so that there is only one)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z);  n = tanh(x_n + r h_n);  s' = (1 - z) n + z s
        where x is what comes in and h = W s + b, both [.., 3H] in the order r, z, n
    Additive attention (Bahdanau, Cho and Bengio 2015, sections 3.1 and A.1.2)
        e_j = v . tanh(W_a s + U_a h_j);  a = softmax(e);  c = sum over j of a_j h_j;  C c joins what comes in
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Memory(NamedTuple):
    """What a decoder looks back at. `annotations` [B, S, M]: h of each source token; `keys` [B, S, A]: U_a h; `bias`
    float32 [B, S]: minus infinity at padding, else 0; `score` [A]: v; `inward` [3H, M]: C."""

    annotations: Tensor
    keys: Tensor
    bias: Tensor
    score: Tensor
    inward: Tensor


class Attended(NamedTuple):
    """After every step: `states` float32 [T, B, H], `contexts` float32 [T, B, M], and `weights` float32 [T, B, S]: how
    much of each source token the step took, which no gradient goes through."""

    states: Tensor
    contexts: Tensor
    weights: Tensor


def gru(inputs: Tensor, start: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """States float32 [T, B, H] after each of `inputs` [T, B, 3H], from `start` float32 [B, H]; `weight` [3H, H]."""
    states: Tensor = _Gru.apply(inputs, start, weight, bias)  # type: ignore[no-untyped-call]
    return states


def attending_gru(inputs: Tensor, start: Tensor, weight: Tensor, bias: Tensor, memory: Memory) -> Attended:
    """As `gru`; `weight` [3H + A, H] and `bias` [3H + A] make the question W_a s too, their last A rows."""
    with torch.autocast("cpu", enabled=False):  # `weight` says which products are in half precision
        return Attended(*_AttendingGru.apply(inputs, start, weight, bias, *memory))  # type: ignore[no-untyped-call]


class _Gates(NamedTuple):
    """`inner`: h_n, which the reset gate is a factor of. All [B, H]."""

    reset: Tensor
    update: Tensor
    new: Tensor
    inner: Tensor


def _gates(inward: Tensor, recurrent: Tensor) -> _Gates:
    """Of x and h, both float32 [B, 3H]."""
    width = inward.shape[1] // 3
    reset, update = (inward[:, : 2 * width] + recurrent[:, : 2 * width]).sigmoid_().chunk(2, 1)
    inner = recurrent[:, 2 * width :]
    return _Gates(reset, update, torch.addcmul(inward[:, 2 * width :], reset, inner).tanh_(), inner)


def _next(gates: _Gates, state: Tensor) -> Tensor:
    return torch.lerp(gates.new, state, gates.update)


def _back(gates: _Gates, state: Tensor, outer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x and of h, [B, 3H], and that of `state`, the one before, without what h gives it."""
    reset, update, new, inner = gates
    d_new = outer * (1 - update) * (1 - new * new)
    d_update = outer * (state - new) * update * (1 - update)
    d_reset = d_new * inner * reset * (1 - reset)
    return torch.cat([d_reset, d_update, d_new], 1), torch.cat([d_reset, d_update, d_new * reset], 1), outer * update


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, start: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        states, kept = [start], []
        for inward in inputs.unbind():
            kept.append(_gates(inward.float(), F.linear(states[-1].to(weight.dtype), weight, bias).float()))
            states.append(_next(kept[-1], states[-1]))
        ctx.kept, ctx.states, ctx.dtype = kept, states, inputs.dtype
        ctx.save_for_backward(weight)
        return torch.stack(states[1:])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, ...]:
        (weight,) = ctx.saved_tensors
        backwards = weight.t().contiguous()
        carried = torch.zeros_like(ctx.states[0])
        d_inputs: list[Tensor] = []
        d_recurrent: list[Tensor] = []
        for gates, state, given in zip(ctx.kept[::-1], ctx.states[-2::-1], outer[0].flip(0).unbind(), strict=True):
            inward, recurrent, shortcut = _back(gates, state, carried + given)
            d_inputs.append(inward.to(ctx.dtype))
            d_recurrent.append(recurrent.to(weight.dtype))
            carried = shortcut + F.linear(d_recurrent[-1], backwards)
        before = torch.cat(ctx.states[-2::-1]).to(weight.dtype)
        all_recurrent = torch.cat(d_recurrent)
        return torch.stack(d_inputs[::-1]), carried, all_recurrent.t() @ before, all_recurrent.sum(0)


class _AttendingGru(torch.autograd.Function):
    """The search is in float32, of which sigmoid takes a seventh of the time of tanh on a CPU: by tanh x = 2 sigmoid 2x
    - 1 it scores with 2 v . sigmoid(2 (W_a s + U_a h_j)), less than e_j by the sum of v, which softmax does not see."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        start: Tensor,
        weight: Tensor,
        bias: Tensor,
        annotations: Tensor,
        keys: Tensor,
        hidden: Tensor,
        score: Tensor,
        inward: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        width, dtype = start.shape[1], weight.dtype
        doubled, twice = 2 * keys, 2 * score
        states, contexts, shares, felt, kept = [start], [], [], [], []
        for given in inputs.unbind():
            recurrent = F.linear(states[-1].to(dtype), weight, bias).float()
            felt.append(torch.add(doubled, recurrent[:, None, 3 * width :], alpha=2).sigmoid_())
            shares.append((felt[-1] @ twice + hidden).softmax(1))
            contexts.append((shares[-1][:, None] @ annotations)[:, 0])
            entering = given.float() + F.linear(contexts[-1].to(dtype), inward).float()
            kept.append(_gates(entering, recurrent[:, : 3 * width]))
            states.append(_next(kept[-1], states[-1]))
        ctx.lists = states, contexts, shares, felt, kept
        ctx.dtype = inputs.dtype
        ctx.save_for_backward(weight, annotations, score, inward)
        weights = torch.stack(shares)
        ctx.mark_non_differentiable(weights)
        return torch.stack(states[1:]), torch.stack(contexts), weights

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        weight, annotations, score, inward = ctx.saved_tensors
        states, contexts, shares, felt, kept = ctx.lists
        dtype = weight.dtype
        backwards, outwards = weight.t().contiguous(), inward.t().contiguous()
        carried, d_keys, d_score = (torch.zeros_like(each) for each in (states[0], felt[0], score))
        d_inputs: list[Tensor] = []
        d_recurrent: list[Tensor] = []
        d_contexts: list[Tensor] = []
        for step in reversed(range(len(kept))):
            d_in, d_gates, shortcut = _back(kept[step], states[step], carried + outer[0][step])
            d_inputs.append(d_in.to(dtype))
            d_contexts.append(outer[1][step] + F.linear(d_inputs[-1], outwards))
            d_shares = shares[step] * (d_contexts[-1][:, None] @ annotations.mT)[:, 0]
            d_scores = d_shares - shares[step] * d_shares.sum(1, keepdim=True)
            d_score += d_scores.flatten() @ felt[step].flatten(0, 1)
            # Of tanh, 1 - tanh^2 = 4 sigmoid (1 - sigmoid).
            d_felt = torch.ops.aten.sigmoid_backward(d_scores[:, :, None] * score, felt[step])
            d_keys += d_felt
            d_recurrent.append(torch.cat([d_gates, 4 * d_felt.sum(1)], 1).to(dtype))
            carried = shortcut + F.linear(d_recurrent[-1], backwards)
        before = torch.cat(states[-2::-1]).to(dtype)
        all_recurrent, all_inputs = torch.cat(d_recurrent), torch.cat(d_inputs)
        return (
            torch.stack(d_inputs[::-1]).to(ctx.dtype),
            carried,
            all_recurrent.t() @ before,
            all_recurrent.sum(0),
            torch.stack(shares[::-1], 2) @ torch.stack(d_contexts, 1),
            4 * d_keys,
            None,
            2 * d_score,
            all_inputs.t() @ torch.cat(contexts[::-1]).to(dtype),
        )
