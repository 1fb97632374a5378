"""An operation as its caller asks for it, and holds it while it is under way. Knows tickets, and what follows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Generic, TypeVar, get_args

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.transport import ReduceOp, Transport

T = TypeVar("T")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Reduction:
    """What is asked for, whatever the tensors. Raises CollectiveError for what cannot be meant."""

    op: ReduceOp
    name: str
    prescale: float
    postscale: float
    asynchronous: bool

    def __post_init__(self) -> None:
        known = get_args(ReduceOp)
        if self.op not in known:
            raise CollectiveError(f"there is no reduction {self.op!r}", remedy=f"one of {', '.join(known)}")
        scales: tuple[object, ...] = self.prescale, self.postscale
        for scale in scales:
            if not isinstance(scale, Real):
                raise CollectiveError(f"{self.op} {self.name}".strip() + f": {scale!r} is no number to scale by")


class Handle(Generic[T]):
    """An operation under way. Its tensor is ready, and may be touched, when `wait` has returned."""

    def __init__(self, transport: Transport, tickets: Sequence[int], finish: Callable[[], T]) -> None:
        self._transport = transport
        self._tickets = list(tickets)
        self._finish: Callable[[], T] | None = finish
        self._result: T | None = None

    def poll(self) -> bool:
        """Whether `wait` would return, or raise, at once."""
        return all(self._transport.done(ticket) for ticket in self._tickets)

    def wait(self) -> None:
        """Return when the operation is done. Raises CollectiveError (PeerLost, CollectiveTimeout, Mismatch)."""
        self.synchronize()

    def then(self, convert: Callable[[T], Other]) -> Handle[Other]:
        """This operation with another form of its result."""
        return Handle(self._transport, self._tickets, lambda: convert(self.synchronize()))

    def synchronize(self) -> T:
        """Wait as `wait` does; the result."""
        while self._tickets:
            self._transport.wait(self._tickets[0])
            del self._tickets[0]
        if self._finish is not None:
            self._result = self._finish()
            self._finish = None
        return self._result  # type: ignore[return-value]  # None is a result of `finish` only
