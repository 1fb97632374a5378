"""Rank 0's side of the negotiation: messages of ranks in, messages to all out.

A rank that describes a request the second time gives it a number, and calls it by that from then on. Knows no
sockets; `engine` carries the messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from phalanx.horovod.negotiation import End, Fail, Joined, Negotiation, Request, Response, Run, Sets, shown
from phalanx.horovod.stall import Stalls
from phalanx.horovod.wire import Plain

if TYPE_CHECKING:
    from phalanx.horovod.timeline import Timeline


class Coordinator:
    """Told everything that any rank announces. `timeline`: where negotiations are drawn, while it is not None."""

    timeline: Timeline | None = None

    def __init__(self, size: int, fuse_bytes: int, stalls: Stalls) -> None:
        self._negotiation = Negotiation(size, fuse_bytes)
        self._known: list[list[Request]] = [[] for _ in range(size)]
        self._same: dict[Request, Request] = {}  # of all ranks one object, which is quickly compared
        self._drawn: set[str] = set()  # whose negotiation has begun in the timeline
        self.stalls = stalls
        self.left: set[int] = set()

    def hear(self, rank: int, message: Plain) -> list[Response]:
        """What all do because of it. Raises ValueError for what is no message."""
        if not isinstance(message, list):
            raise ValueError(f"{message!r} of rank {rank} is no message")
        taken: list[Response] = []
        for item in message:
            match item:
                case int():
                    self._announce(rank, self._known[rank][item])
                case ["join"]:
                    taken += self._take()  # while it is known who had joined and must guess
                    self._negotiation.join(rank)
                case ["bye", str(reason)]:
                    self.left.add(rank)
                    return [*taken, *self._take(), End(reason)]
                case ["failed", str(reason)]:
                    self.left.add(rank)
                    return [*taken, *self._take(), End(reason, lost=rank)]
                case ["number", described]:
                    new = Request.decode(described)
                    request = self._same.setdefault(new, new)
                    self._known[rank].append(request)
                    self._announce(rank, request)
                case _:
                    self._announce(rank, Request.decode(item))
        return taken + self._take()

    def lose(self, rank: int) -> list[Response]:
        """`rank` is gone without a word."""
        return [End(f"rank {rank} is gone", lost=rank)]

    def _announce(self, rank: int, request: Request) -> None:
        if self.timeline is not None:
            name = shown(request.process_set, request.name)
            if name not in self._drawn:  # by another rank, perhaps, before there was a timeline
                self._drawn.add(name)
                self.timeline.negotiate_start(name, request.kind.upper())
            self.timeline.negotiate_rank_ready(name, rank)
        self._negotiation.announce(rank, request)

    def _take(self) -> list[Response]:
        responses = self._negotiation.take()
        for response in responses:
            if isinstance(response, Run):
                self.stalls.done(shown(response.process_set, name) for name in response.names)
        if self.timeline is not None and responses:
            self.timeline.cycle()
            for name in _decided(responses):
                self._drawn.discard(name)
                self.timeline.negotiate_end(name)
        return [self._without_requests(response) for response in responses]

    def _without_requests(self, response: Response) -> Response:
        if isinstance(response, Run) and not self._negotiation.is_joined(response.process_set):
            return Run(response.process_set, response.names)
        return response

    def look_for_stalls(self) -> list[Response]:
        """Warn of names that some ranks wait for; the end, when they were waited for too long."""
        ended: list[Response] = [End(reason) for _, reason in self.stalls.look(self._negotiation.waiting())]
        return ended[:1]


def _decided(responses: list[Response]) -> list[str]:
    names: list[str] = []
    for response in responses:
        if isinstance(response, Run):
            names += (shown(response.process_set, name) for name in response.names)
        elif isinstance(response, Fail):
            names.append(shown(response.process_set, response.name))
    return names


def encode(responses: list[Response]) -> Plain:
    """For the wire."""
    found: list[Plain] = []
    for response in responses:
        match response:
            case Run(process_set, names, requests):
                found.append(["run", process_set, list(names), [request.encode() for request in requests]])
            case Fail(process_set, name, reason):
                found.append(["fail", process_set, name, reason])
            case Joined(last):
                found.append(["joined", last])
            case Sets(ranks, name, made):
                found.append(["sets", [[number, list(members)] for number, members in ranks.items()], name, made])
            case End(reason, lost):
                found.append(["end", reason, lost])
    return found


def decode(message: Plain) -> list[Response]:
    """What `encode` made. Raises ValueError for anything else."""
    if not isinstance(message, list):
        raise ValueError(f"{message!r} is no message of rank 0")
    found: list[Response] = []
    for item in message:
        match item:
            case ["run", int(process_set), [*names], [*requests]]:
                found.append(Run(process_set, tuple(map(str, names)), tuple(map(Request.decode, requests))))
            case ["fail", int(process_set), str(name), str(reason)]:
                found.append(Fail(process_set, name, reason))
            case ["joined", int(last)]:
                found.append(Joined(last))
            case ["sets", [*pairs], str(name), int(made)]:
                ranks = {int(number): tuple(map(int, members)) for number, members in cast("list[Any]", pairs)}
                found.append(Sets(ranks, name, made))
            case ["end", str(reason), int(lost)]:
                found.append(End(reason, lost))
            case _:
                raise ValueError(f"{item!r} is no word of rank 0")
    return found
