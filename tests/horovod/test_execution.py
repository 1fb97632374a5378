"""How tensors travel in a bucket of allreduces, on transports that take many at once and on those that do not.

Alone, an allreduce is its input scaled, so that every result is known; what ranks add up is tested in test_mpi_ops.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from phalanx.collectives.transports.alone import Alone
from phalanx.horovod.execution import Operation, begin
from phalanx.horovod.negotiation import FUSE_BELOW, Request

LARGE = FUSE_BELOW // 4  # elements of float32


class Counting(Alone):
    """Remembers what each operation was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[list[int]] = []

    def allreduce(self, tensor: torch.Tensor, *args: Any, **how: Any) -> int:
        self.given.append([tensor.numel()])
        return super().allreduce(tensor, *args, **how)


class Together(Counting):
    def allreduce_together(self, tensors: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], **how: Any) -> int:
        self.given.append([tensor.numel() for tensor in tensors])
        for tensor, output in zip(tensors, outputs, strict=True):
            Alone.allreduce(self, tensor, output=output, **how)
        return 0


def reduced(transport: Alone, tensors: list[torch.Tensor], *, in_place: bool) -> list[torch.Tensor]:
    described = tuple((str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for tensor in tensors)
    request = Request("allreduce", "many", op="sum", prescale=2.0, tensors=described)
    operation = Operation(request, tensors, in_place=in_place, grouped=True)
    begin(SimpleNamespace(transport=transport), [operation]).finish()  # type: ignore[arg-type]
    return list(operation.result)


def some() -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(0)
    plain = [torch.randn(size, generator=chance) for size in (3, LARGE, 5, 0)]
    across = torch.randn(LARGE, 2, generator=chance).t()
    conjugate = torch.randn(4, dtype=torch.complex64, generator=chance).conj()
    return [*plain, across, conjugate, torch.arange(6), torch.randn(2, 3, generator=chance).t()]


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("transport", [Counting, Together])
def test_whatever_its_layout_each_tensor_gets_its_own_result(transport: type[Counting], in_place: bool) -> None:
    tensors, expected = some(), [2 * tensor for tensor in some()]
    results = reduced(transport(), tensors, in_place=in_place)
    for tensor, result, right in zip(tensors, results, expected, strict=True):
        assert result.shape == right.shape
        assert torch.equal(result, right)
        assert (result is tensor) == in_place
        assert torch.equal(tensor, right if in_place else right / 2)


def test_small_ones_travel_together_and_large_ones_by_themselves() -> None:
    transport = Counting()
    reduced(transport, some(), in_place=True)
    assert transport.given == [[3 + 5 + 0 + 6], [LARGE], [2 * LARGE], [4], [6]]


def test_all_of_a_dtype_travel_as_they_lie_where_the_transport_can_do_that() -> None:
    transport = Together()
    reduced(transport, some(), in_place=True)
    assert transport.given == [[3, LARGE, 5, 0, 2 * LARGE, 6], [4], [6]]
