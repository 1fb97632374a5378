"""Cross-entropy and its gradient in one walk over the logits, a few rows at a time, so that they stay in the cache.

torch's own writes the logarithms of all probabilities, reads them again for the gradient, and turns
half-precision logits into a float32 copy of both first.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_CHUNK = 1 << 18  # numbers at a time: 1 MB of float32, a core's second-level cache


def cross_entropy(logits: Tensor, targets: Tensor, ignored: int | None = None) -> Tensor:
    """Sum over rows of -log softmax(logits)[target], in nats: float32 scalar.

    `logits` [N, V] of any floating dtype, reckoned with in float32; `targets` int64 [M] of the first M rows: rows
    beyond them count nothing, nor do those whose target is `ignored`.
    """
    total: Tensor = _CrossEntropy.apply(logits, targets, ignored)  # type: ignore[no-untyped-call]
    return total


def costs_and_ranks(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What each right answer costs in nats, float32 [M], and how many answers the model likes better, int64 [M].

    Arguments as for `cross_entropy`. Of answers liked alike the one of lower index counts as better, as for argmax;
    a NaN is liked least, and costs NaN.
    """
    costs, ranks = [torch.empty(0)], [torch.empty(0, dtype=torch.int64)]
    rows = max(1, _CHUNK // logits.shape[1])
    for start in range(0, targets.shape[0], rows):
        end = min(start + rows, targets.shape[0])
        some, target = logits[start:end], targets[start:end, None]
        costs.append(_costs(some, target, some.softmax(-1, dtype=torch.float32)))
        liked = some.nan_to_num(-math.inf, math.inf, -math.inf)
        own = liked.gather(1, target)
        earlier = torch.arange(logits.shape[1]) < target
        ranks.append(((liked > own) | ((liked == own) & earlier)).sum(1))
    return torch.cat(costs), torch.cat(ranks)


def _costs(logits: Tensor, target: Tensor, probabilities: Tensor) -> Tensor:
    """-log p(target) of each row. log p(target) = logit(target) - logit(top) + log p(top): the largest probability
    never underflows."""
    return logits.amax(-1).float() - logits.gather(1, target)[:, 0].float() - probabilities.amax(-1).log()


class _CrossEntropy(torch.autograd.Function):
    """The gradient, softmax minus one at the target, is made with the loss and only scaled in backward."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, ignored: int | None) -> Tensor:
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), device=logits.device)
        rows = max(1, _CHUNK // logits.shape[1])
        wanted = targets.shape[0]
        for start in range(0, wanted, rows):
            end = min(start + rows, wanted)
            some, target = logits[start:end], targets[start:end, None]
            skipped = None if ignored is None else target == ignored
            if skipped is not None:
                target = target.masked_fill(skipped, 0)
            if gradient is None or gradient.dtype != torch.float32:
                probabilities = some.softmax(-1, dtype=torch.float32)
            else:  # where they are wanted, without a copy
                probabilities = gradient[start:end]
                torch.softmax(some, -1, out=probabilities)
            costs = _costs(some, target, probabilities)
            total += (costs if skipped is None else costs.masked_fill(skipped[:, 0], 0)).sum()
            if gradient is not None:
                probabilities.scatter_add_(1, target, torch.full_like(target, -1, dtype=torch.float32))
                if skipped is not None:
                    probabilities.masked_fill_(skipped, 0)
                if probabilities.dtype != gradient.dtype:
                    gradient[start:end] = probabilities
        if gradient is not None:
            gradient[wanted:] = 0
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        """Scales in place: a second backward through the same loss is refused by torch."""
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(outer[0].to(gradient.dtype)), None, None
