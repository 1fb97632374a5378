"""The sum of sparse tensors: every rank's indices and values gathered, then added up in rank order on each.

Cheaper than a dense sum while all ranks' values together are fewer than the dense tensor's elements. Values of
narrow types are added in float32 and rounded once, as dense ones are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

_EXACT = (torch.float32, torch.float64)


def add_up(
    parts: Sequence[tuple[torch.Tensor, torch.Tensor]], shape: torch.Size, divisor: float | None, scale: float
) -> torch.Tensor:
    """The coalesced sum of `parts`: (indices [sparse dimensions, n], values [n, ...]) of each rank, coalesced.

    Divided by `divisor` (an average), multiplied by `scale`.
    """
    indices = torch.cat([index for index, _ in parts], 1)
    values = [value for _, value in parts]
    dtype = values[0].dtype
    if not indices.shape[1]:
        return torch.sparse_coo_tensor(indices, values[0], shape, is_coalesced=True, check_invariants=False)
    narrow = dtype.is_floating_point and dtype not in _EXACT
    unique, place = torch.unique(indices, dim=1, return_inverse=True)
    total = torch.zeros((unique.shape[1], *values[0].shape[1:]), dtype=torch.float32 if narrow else dtype)
    start = 0
    for value in values:  # a rank's indices are distinct: one addition to each place at a time
        total.index_add_(0, place[start : start + len(value)], value.to(total.dtype))
        start += len(value)
    if divisor is not None:
        exact = total.is_floating_point() or total.is_complex()
        total = total / divisor if exact else torch.div(total, divisor, rounding_mode="trunc")
    if scale != 1.0:
        total = total * scale
    return torch.sparse_coo_tensor(unique, total.to(dtype), shape, is_coalesced=True, check_invariants=False)
