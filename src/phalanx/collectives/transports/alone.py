"""The transport of a group of one: every operation is the identity, scaled where that is asked for. No sockets.

Tensors are not looked at unless there is something to scale, so that a group of one also works on tensors without
data, as the planner has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.checked import Checked
from phalanx.collectives.transports.header import Header
from phalanx.collectives.transports.ordered import Call, Gathered
from phalanx.collectives.transports.reference import combine_in_torch
from phalanx.collectives.transports.transport import RankState


class Alone(Checked):
    """Rank 0 of 1."""

    def __init__(self) -> None:
        super().__init__(0, 1, (0,))
        self._whereabouts = ""

    def _submit(
        self, header: Header, size_bytes: int, run: Callable[[Call], Gathered | None], *, asynchronous: bool
    ) -> int:
        return super()._submit(header, size_bytes, run, asynchronous=False)

    def _exchange(self, call: Call, header: Header) -> list[Header]:
        return [header]

    def _reduce_all(
        self, call: Call, output: torch.Tensor, tensor: torch.Tensor | None, how: Header, present: Sequence[int]
    ) -> None:
        assert tensor is not None
        assert how.op
        if (how.prescale, how.postscale) != (1.0, 1.0):
            combine_in_torch([tensor], how.op, output=output, prescale=how.prescale, postscale=how.postscale)
        elif output is not tensor:
            output.view(-1).copy_(tensor.view(-1))

    def _reduce_pieces(
        self,
        call: Call,
        output: torch.Tensor,
        tensor: torch.Tensor | None,
        counts: Sequence[int],
        how: Header,
        present: Sequence[int],
    ) -> None:
        self._reduce_all(call, output, tensor, how, present)

    def _gather_bytes(self, call: Call, sizes: Sequence[int], data: torch.Tensor) -> list[torch.Tensor]:
        return [data]

    def _exchange_bytes(
        self, call: Call, output: torch.Tensor, data: torch.Tensor, received: Sequence[int], sent: Sequence[int]
    ) -> None:
        output.copy_(data)

    def _broadcast_bytes(self, call: Call, data: torch.Tensor, root: int) -> None:
        """It has it already."""

    def _give_up(self, reason: str) -> None:
        """There is nobody to tell."""

    def _shut(self, error: CollectiveError) -> None:
        """There is nothing to close."""

    def states(self) -> list[RankState]:
        words = self._last.in_words()
        return [RankState(0, os.getpid(), self._submitted, words, bool(self._open), True, self._whereabouts, 0.0)]

    def say_whereabouts(self, text: str) -> None:
        self._whereabouts = text
