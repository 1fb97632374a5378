"""What ranks know of each other beside their connections: who they are, where they stand, and why the group broke.

All of it through the store in which they met, and none of it in the way of an operation that goes well: it is
written once an operation has waited for a while. A rank that loses another ends too, and would look like a second
victim to whoever looks later; so the first to know the cause writes it down, and all others repeat it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch.distributed import Store  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, PeerLost
from phalanx.collectives.identity import Identity
from phalanx.collectives.transports.transport import RankState

_POLL_S = 0.01
_SILENT = "the store in which the ranks met does not answer"


@dataclass(frozen=True)
class Cause:
    """Why the group broke, in the words of the first that knew. `ranks`: who is lost or gave up, or, if `late`, who
    did not come; () if that is unknown."""

    ranks: tuple[int, ...]
    text: str
    late: bool = False

    def error(self, what: str, where: str) -> CollectiveError:
        """What `what` fails with because of it."""
        words = f"{what}: {self.text}"
        if not self.late:
            return PeerLost(words, ranks=self.ranks, where=where)
        remedy = "see which rank is stopped or far behind; its log tells what it does"
        return CollectiveTimeout(words, missing=self.ranks, where=where, remedy=remedy)


class Peers:
    """The ranks of one transport. `names`: what they are called in messages, where that is not 0..size-1."""

    def __init__(self, store: Store, rank: int, size: int, names: Sequence[int] | None = None) -> None:
        self.rank = rank
        self.size = size
        self.names = tuple(range(size) if names is None else names)
        self._store = store
        self._members = {rank: Identity.own()}  # those that are known
        self._whereabouts = ("", 0.0)
        self._store.set(f"member/{rank}", json.dumps(asdict(self._members[rank])))

    # Why the group broke

    def cause(self) -> Cause | None:
        """What was written down, if anything. A store that no longer answers is a cause as well: its host is gone."""
        try:
            if not self._store.check(["cause"]):
                return None
            return _cause(self._store.get("cause"))
        except RuntimeError:
            gone = [rank for rank in range(self.size) if not self._alive(rank)]
            who = f"{self._in_words(gone)} ended, and " if gone else ""
            return Cause(self._named(gone), f"{who}{_SILENT}")

    def give_up(self, reason: str) -> None:
        """Tell the others why this rank leaves; unheard if the group was broken before."""
        self._write_down(Cause((self.names[self.rank],), f"rank {self.names[self.rank]}: {reason}"))

    def late(self, sequence: int) -> Cause:
        """Operation `sequence` was not finished in time: who has not said that it came to it."""
        try:
            states = self.states()
        except CollectiveError as error:
            return self.cause() or Cause((), error.message, late=True)
        missing = tuple(self.names[state.rank] for state in states if state.sequence < sequence)
        words = f"; rank {', '.join(map(str, missing))} did not come" if missing else ""
        return self._write_down(Cause(missing, f"not finished by all ranks in time{words}", late=True))

    def lost(self, patience_s: float = 1.0) -> Cause:
        """Why a connection broke: what was written down, else who of this host has ended, else who does not answer.

        From now on this rank counts as one that leaves because of a loss: nobody will take it for the loss.
        """
        try:
            self._store.set(f"survivor/{self.rank}", "")
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline:
                if (cause := self.cause()) is not None:
                    return cause
                if gone := [rank for rank in self._without_word() if not self._alive(rank)]:
                    return self._write_down(Cause(self._named(gone), f"{self._in_words(gone)} ended"))
                time.sleep(_POLL_S)
            return self._lost_elsewhere(patience_s)
        except RuntimeError:
            return self.cause() or Cause((), "a connection to another rank broke")

    def _lost_elsewhere(self, patience_s: float) -> Cause:
        """All of this host live: of the others, those who have not said within another while that they survive."""
        deadline = time.monotonic() + 2 * patience_s
        while (silent := self._without_word()) and time.monotonic() < deadline:
            if (cause := self.cause()) is not None:
                return cause
            time.sleep(_POLL_S)
        if not silent:
            return self.cause() or Cause((), "a connection to another rank broke")
        return self._write_down(Cause(self._named(silent), f"{self._in_words(silent)} is gone or does not answer"))

    def _without_word(self) -> list[int]:
        others = (rank for rank in range(self.size) if rank != self.rank)
        return [rank for rank in others if not self._store.check([f"survivor/{rank}"])]

    def _write_down(self, cause: Cause) -> Cause:
        """The first cause stays, whoever writes it."""
        try:
            return _cause(self._store.compare_set("cause", "", json.dumps(asdict(cause))))
        except RuntimeError:
            return cause

    def _named(self, ranks: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.names[rank] for rank in ranks)

    def _in_words(self, ranks: Sequence[int]) -> str:
        return ", ".join(f"rank {self.names[rank]} ({self._member(rank)})" for rank in ranks)

    # Who they are

    def learn(self) -> None:
        """Who all are, now that all have come: they may have to be named when the store is gone."""
        for rank in range(self.size):
            self._member(rank)

    def _member(self, rank: int) -> Identity:
        if rank not in self._members:
            self._members[rank] = Identity(**json.loads(self._store.get(f"member/{rank}")))
        return self._members[rank]

    def _is_here(self, rank: int) -> bool:
        return self._member(rank).machine == self._member(self.rank).machine

    def _alive(self, rank: int) -> bool:
        """False only where this machine can tell."""
        return not self._member(rank).is_gone()

    # Where they stand

    def publish(self, sequence: int, operation: str, inside: bool) -> None:
        """Let the others see how far this rank is: a round trip. Raises CollectiveError when the store is gone."""
        text, said = self._whereabouts
        fields = {"sequence": sequence, "operation": operation, "inside": inside, "where": text, "said": said}
        with _while_it_answers():
            self._store.set(f"state/{self.rank}", json.dumps(fields))

    def say_whereabouts(self, text: str) -> None:
        self._whereabouts = (text.encode()[-1000:].decode(errors="replace"), time.time())

    def states(self) -> list[RankState]:
        """One a rank, as last published: by those whose operation waited, and by those who are watched.

        Raises CollectiveError when the store is gone.
        """
        with _while_it_answers():
            return [self._state(rank) for rank in range(self.size)]

    def _state(self, rank: int) -> RankState:
        fields: dict[str, Any] = {"sequence": 0, "operation": "", "inside": False, "where": "", "said": 0.0}
        if self._store.check([f"state/{rank}"]):
            fields |= json.loads(self._store.get(f"state/{rank}"))
        said: float = fields["said"]
        return RankState(
            rank=rank,
            pid=self._member(rank).pid,
            sequence=fields["sequence"],
            operation=fields["operation"],
            inside=fields["inside"],
            alive=self._alive(rank),
            whereabouts=fields["where"],
            whereabouts_age_s=time.time() - said if said else 0.0,
            here=self._is_here(rank),
        )


@contextlib.contextmanager
def _while_it_answers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # as torch says it
        raise CollectiveError(_SILENT) from error


def _cause(written: bytes) -> Cause:
    fields = json.loads(written)
    return Cause(tuple(fields["ranks"]), fields["text"], fields["late"])
