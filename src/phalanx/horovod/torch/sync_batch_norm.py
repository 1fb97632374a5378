"""Batch normalization whose statistics are those of all ranks' batches together.

What travels is small: a mean, a variance and a count of each rank forward, two sums backward. On GPUs with the
kernels of torch.nn.SyncBatchNorm, on CPUs (which neither torch nor Horovod has) with the same formulas.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from phalanx.horovod.torch.mpi_ops import Sum, allgather, allreduce_, size


class SyncBatchNorm(_BatchNorm):
    """As torch.nn.BatchNorm1d/2d/3d over the batches of all ranks: input [N, C, ...], N may differ between ranks.

    `momentum` None: running statistics are plain averages. Without `track_running_stats`, those of the batches are
    used in evaluation too, and then every rank must evaluate. All ranks call it as often, in the same order.
    Gradients of weight and bias are this rank's: the optimizer reduces them.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Raises ValueError for fewer than two dimensions, and when all ranks together have one value per channel."""
        self._check_input_dim(input)
        if size() == 1 or not (self.training or self.running_mean is None):
            return super().forward(input)
        normalized: Tensor = _Synchronized.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, *self._to_be_updated(), self.eps
        )
        return normalized

    def _to_be_updated(self) -> tuple[Tensor | None, Tensor | None, float]:
        """Running mean and variance, and how much of what they will be is this batch's."""
        if not self.training or self.num_batches_tracked is None:
            return None, None, 0.0
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        return self.running_mean, self.running_var, share


class _Synchronized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        given: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        share: float,
        eps: float,
    ) -> Tensor:
        given = given.contiguous()
        on_gpu = given.is_cuda
        channels = given.shape[1]
        mean, spread = torch.batch_norm_stats(given, eps) if on_gpu else _moments(given)
        mine = torch.cat([mean, spread, mean.new_tensor([given.numel() // channels])])
        everything = allgather(mine.unsqueeze(0), name="sync_batch_norm.statistics")
        everything = everything[everything[:, -1] > 0]  # a rank with an empty batch says nothing
        means, spreads, counts = everything[:, :channels], everything[:, channels:-1], everything[:, -1:]
        total = float(counts.sum())
        if total < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got {total:.0f} on all ranks")
        ctx.total = total
        if on_gpu:
            mean, inverse = torch.batch_norm_gather_stats_with_counts(
                given, means, spreads, running_mean, running_var, share, eps, counts.flatten()
            )  # fmt: skip
            ctx.save_for_backward(given, weight, mean, inverse, counts.flatten().int())
            return torch.batch_norm_elemt(given, weight, bias, mean, inverse, eps)
        mean, variance = _together(means, spreads, counts)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), share)
            running_var.lerp_((variance * (total / (total - 1))).to(running_var.dtype), share)
        kind = given.dtype if weight is None else weight.dtype
        ctx.save_for_backward(given, weight, mean, (variance + eps).rsqrt(), counts)
        return F.batch_norm(given, mean.to(kind), variance.to(kind), weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        given, weight, mean, inverse, counts = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad[:3]
        gradient = gradient.contiguous()
        if gradient.is_cuda:
            sums, both, *of_parameters = torch.batch_norm_backward_reduce(
                gradient, given, mean, inverse, weight, of_input, of_weight, of_bias
            )  # fmt: skip
        else:
            sums, both = _sums(gradient, given, mean)
            of_parameters = [both * inverse, sums] if weight is None else [(both * inverse).to(weight), sums.to(weight)]
        gradient_of_input = None
        if of_input:
            everywhere = allreduce_(torch.stack([sums, both]), op=Sum, name="sync_batch_norm.gradients")
            if gradient.is_cuda:
                gradient_of_input = torch.batch_norm_backward_elemt(
                    gradient, given, mean, inverse, weight, everywhere[0], everywhere[1], counts
                )  # fmt: skip
            else:
                gradient_of_input = _gradient_of_input(gradient, given, weight, mean, inverse, everywhere / ctx.total)
        gradient_of_weight, gradient_of_bias = of_parameters
        return (
            gradient_of_input,
            gradient_of_weight if of_weight else None,
            gradient_of_bias if of_bias else None,
            *[None] * 4,
        )


# What torch has kernels for on GPUs only. Statistics are float64: they are few, and cancel.


def _along_channels(values: Tensor, like: Tensor) -> Tensor:
    """[C] as [1, C, 1, ...], in the dtype to compute in."""
    return values.to(_wide(like)).view(1, -1, *[1] * (like.dim() - 2))


def _wide(given: Tensor) -> torch.dtype:
    return torch.float64 if given.dtype == torch.float64 else torch.float32


def _other_dimensions(given: Tensor) -> list[int]:
    return [dimension for dimension in range(given.dim()) if dimension != 1]


def _moments(given: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel; zero of none."""
    if not given.numel():
        return (given.new_zeros(given.shape[1], dtype=torch.float64),) * 2
    mean, variance = torch.batch_norm_update_stats(
        given.to(_wide(given)), None, None, 0.0
    )  # six times var_mean's speed
    return mean.double(), variance.double()


def _together(means: Tensor, variances: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Of all ranks' values ([ranks, C], counts [ranks, 1]), as Chan et al. 1979 join partial variances."""
    weights = counts / counts.sum()
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean).square())).sum(0)


def _sums(gradient: Tensor, given: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Of the gradient, and of the gradient times how far the input is from its mean; of each channel."""
    wide, others = gradient.to(_wide(given)), _other_dimensions(given)
    away = given.to(wide.dtype) - _along_channels(mean, given)
    return wide.sum(others).double(), (wide * away).sum(others).double()


def _gradient_of_input(
    gradient: Tensor, given: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, means: Tensor
) -> Tensor:
    """Ioffe & Szegedy 2015, equation of dl/dx; `means`: of what `_sums` says, over all ranks."""
    away = given.to(_wide(given)) - _along_channels(mean, given)
    straight = gradient.to(away.dtype) - _along_channels(means[0], given)
    straight -= away.mul_(_along_channels(inverse.square() * means[1], given))
    return straight.mul_(_along_channels(inverse if weight is None else inverse * weight, given)).to(given.dtype)
