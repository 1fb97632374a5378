"""What ranks tell each other before an operation, so that a wrong call raises on all of them before any data moves.

A header has a fixed size, so that the exchange itself cannot mismatch. What can be seen: another operation,
reduction, dtype, shape, root, scaling, division into pieces or name. What cannot: two calls swapped by one rank that
are alike in all of these, as are calls without names for tensors of one shape. Knows nothing of how headers travel.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from phalanx.collectives.errors import Mismatch
from phalanx.collectives.transports.transport import ReduceOp, shorten

HEADER_BYTES = 512
_JOIN = "join"
# Those that a rank without data can take part in.
_JOINABLE = (_JOIN, "allreduce", "reducescatter", "allgather_ragged", "barrier")


@dataclass(frozen=True, slots=True)
class Header:
    """One rank's call. `shape`: of its tensor; `root`: -1 where there is none; `pieces`: reducescatter's division."""

    kind: str
    op: ReduceOp | Literal[""] = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    root: int = -1
    prescale: float = 1.0
    postscale: float = 1.0
    pieces: str = ""  # a digest where the caller gave counts
    name: str = ""
    device: str = "cpu"

    @property
    def joined(self) -> bool:
        return self.kind == _JOIN

    def encode(self) -> bytes:
        """HEADER_BYTES bytes; of a name that does not fit the end becomes a digest."""
        most = HEADER_BYTES
        while len(text := self._json(shorten(self.name, most))) > HEADER_BYTES:
            most -= 16  # JSON may write a character in six
            if most < 16:
                raise Mismatch(f"{self.kind}: a tensor of {len(self.shape)} dimensions is not supported")
        return text.ljust(HEADER_BYTES).encode()

    def _json(self, name: str) -> str:
        fields = [self.kind, self.op, self.dtype, self.shape, self.root, self.prescale, self.postscale, self.pieces]
        return json.dumps([*fields, name, self.device], separators=(",", ":"))

    @classmethod
    def decode(cls, data: bytes) -> Header:
        kind, op, dtype, shape, *rest = json.loads(data)
        return cls(kind, op, dtype, tuple(shape), *rest)

    def in_words(self) -> str:
        """`allreduce sum float32[1024] 'grad.a'`: what errors call the operation."""
        parts = [self.kind.removesuffix("_ragged"), self.op]
        if self.dtype:
            parts.append(f"{self.dtype}[{', '.join(map(str, self.shape))}]")
        if self.device != "cpu":
            parts.append(f"on {self.device}")
        if self.root >= 0:
            parts.append(f"root {self.root}")
        if (self.prescale, self.postscale) != (1.0, 1.0):
            parts.append(f"scaled by {self.prescale:g} and {self.postscale:g}")
        if self.name:
            parts.append(f"'{self.name}'")
        return " ".join(part for part in parts if part)

    def _signature(self) -> tuple[object, ...]:
        """What must be the same on all ranks. A ragged operation's first dimension may differ."""
        shape = self.shape
        if self.kind.endswith("_ragged"):
            shape = (-1, *shape[1:])
        scales = self.prescale, self.postscale
        return self.kind, self.op, self.dtype, shape, self.root, scales, self.pieces, self.name, self.device

    @property
    def joinable(self) -> bool:
        """Whether ranks without data can take part. NCCL cannot leave a rank out, and zeros are right in sums only."""
        return self.kind in _JOINABLE and (self.device == "cpu" or self.op in ("", "sum", "average"))


def describe(tensor: torch.Tensor) -> tuple[str, tuple[int, ...]]:
    """The name of its dtype and its shape, as headers and records have them."""
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)


def dtype_of(header: Header) -> torch.dtype:
    dtype = getattr(torch, header.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def refuse_mismatch(headers: Sequence[Header], names: Sequence[int], sequence: int) -> None:
    """Raise Mismatch unless all ranks that have not joined call the same, something that joined ranks can do.

    `names`: what the ranks are called. The same words on every rank.
    """
    calls: dict[tuple[object, ...], list[int]] = {}
    for rank, header in enumerate(headers):
        calls.setdefault(header._signature(), []).append(rank)
    joined = any(header.joined for header in headers)
    if len(calls) - joined <= 1 and not (joined and not all(header.joinable for header in headers)):
        return
    why = "the ranks called different operations"
    if len(calls) - joined <= 1:
        why = "ranks that have joined cannot take part"
    said = "; ".join(
        f"{ranks_in_words([names[rank] for rank in ranks])}: {headers[ranks[0]].in_words()}" for ranks in calls.values()
    )
    raise Mismatch(
        f"{why} in operation {sequence}: {said}",
        remedy="call the same operations on the same tensors in the same order on every rank",
    )


def ranks_in_words(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
