"""Adasum: a sum of gradients as far as they are orthogonal, an average as far as they are parallel.

Maleki et al., "Scaling Distributed Training with Adaptive Summation", https://arxiv.org/abs/2006.02924: two vectors
become a (1 - a.b / 2|a|^2) + b (1 - a.b / 2|b|^2), the results of ranks 0-1 and 2-3 then become one, and so on.
Each rank computes one slice of everything, so that memory does not grow with the number of ranks. Knows nothing of
names, gradients or optimizers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

from phalanx.collectives import CollectiveError, Group
from phalanx.collectives.fusion import divided

_NOTHING = sys.float_info.min**0.5  # of a squared norm: a vector without a direction is added as it is
_PIECE = 32768  # elements: 7 times as fast as the dot products of whole copies


def adasum(group: Group, tensors: Sequence[torch.Tensor]) -> None:
    """Every tensor (the same shapes and dtypes on all ranks) becomes the Adasum of the ranks', each on its own.

    The same bits on every rank. Dot products are float64's, sums float32's (float64's of float64), rounded once.
    Raises CollectiveError for tensors that are no floating-point numbers, and for ranks that are no power of two.
    """
    if group.size & (group.size - 1):
        raise CollectiveError(f"adasum of {group.size} ranks: a power of two only")
    alike: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise CollectiveError(f"adasum of {str(tensor.dtype).removeprefix('torch.')}: floating-point numbers only")
        alike.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
    if group.size > 1:
        for part in alike.values():
            _combine(group, part)


def _combine(group: Group, tensors: Sequence[torch.Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    counts = divided(flat.numel(), group.size)
    begin = sum(counts[: group.rank])
    lengths = [tensor.numel() for tensor in tensors]
    parts = _parts(lengths, begin, begin + counts[group.rank])
    exact = torch.float64 if flat.dtype is torch.float64 else torch.float32
    received, _ = group.alltoall(flat, counts, "adasum")
    slices = list(received.to(exact).view(group.size, counts[group.rank]))  # of each rank
    while len(slices) > 1:
        pairs = list(zip(slices[::2], slices[1::2], strict=True))
        dots = flat.new_zeros((len(pairs), len(tensors), 2, 2), dtype=torch.float64)
        for (left, right), of_pair in zip(pairs, dots, strict=True):
            for index, part in parts:
                _add_products(of_pair[index], left[part], right[part])
        group.allreduce(dots, name="adasum", asynchronous=False).wait()
        for (left, right), of_pair in zip(pairs, dots.tolist(), strict=True):
            for index, part in parts:
                (left_squared, dot), (_, right_squared) = of_pair[index]
                left[part].mul_(_share(dot, left_squared)).add_(right[part], alpha=_share(dot, right_squared))
        slices = slices[::2]
    whole = group.allgather(slices[0].to(flat.dtype), "adasum")
    for tensor, result in zip(tensors, torch.split(whole, lengths), strict=True):
        tensor.copy_(result.view(tensor.shape))


def _add_products(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add a.a and a.b, b.a and b.b to `total` [2, 2], in pieces whose copies stay in the cache."""
    for pair in zip(torch.split(a, _PIECE), torch.split(b, _PIECE), strict=True):
        both = torch.stack(pair).double()
        total.addmm_(both, both.t())


def _share(dot: float, squared: float) -> float:
    """How much of a vector is kept: all but half of its projection on the other."""
    return 1.0 - dot / squared / 2 if squared >= _NOTHING else 1.0


def _parts(lengths: Sequence[int], begin: int, end: int) -> list[tuple[int, slice]]:
    """Of each tensor that has elements between `begin` and `end`: its number, and where they are from `begin` on."""
    found, start = [], 0
    for index, length in enumerate(lengths):
        first, last = max(start, begin), min(start + length, end)
        if first < last:
            found.append((index, slice(first - begin, last - begin)))
        start += length
    return found
