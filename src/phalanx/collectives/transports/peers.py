"""What ranks know of each other beside their connections: who they are, where they stand, and why the group broke.

All of it through the store in which they met, and none of it in the way of an operation that goes well: it is
written once an operation has waited for a while. A rank that loses another ends too, and would look like a second
victim to whoever looks later; so the first to know the cause writes it down, and all others repeat it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

from torch.distributed import Store  # type: ignore[attr-defined]

from phalanx.collectives.membership import Cause
from phalanx.collectives.transports.transport import RankState
from phalanx.host import is_alive, own_identity

_POLL_S = 0.01


class Peers:
    """The ranks of one transport. `names`: what they are called in messages, where that is not 0..size-1."""

    def __init__(self, store: Store, rank: int, size: int, names: Sequence[int] | None = None) -> None:
        self.rank = rank
        self.size = size
        self.names = tuple(range(size) if names is None else names)
        self._store = store
        self._here = _pid_namespace()
        self._members: dict[int, tuple[str, str]] = {}  # rank: (host, identity), once known
        self._whereabouts = ("", 0.0)
        self._store.set(f"member/{rank}", f"{self._here} {own_identity()}")

    # Why the group broke

    def cause(self) -> Cause | None:
        """What was written down, if anything. A store that no longer answers is a cause as well: its host is gone."""
        try:
            if not self._store.check(["cause"]):
                return None
            return _cause(self._store.get("cause"))
        except RuntimeError:
            return Cause((), "the store in which the ranks met does not answer: the process that held it has ended")

    def give_up(self, reason: str) -> None:
        """Tell the others why this rank leaves; unheard if the group was broken before."""
        self._write_down(Cause((self.names[self.rank],), f"rank {self.names[self.rank]}: {reason}"))

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
            text = json.dumps({"ranks": cause.ranks, "text": cause.text})
            return _cause(self._store.compare_set("cause", "", text))
        except RuntimeError:
            return cause

    def _named(self, ranks: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.names[rank] for rank in ranks)

    def _in_words(self, ranks: Sequence[int]) -> str:
        return ", ".join(f"rank {self.names[rank]} (pid {self._pid(rank)})" for rank in ranks)

    # Who they are

    def _member(self, rank: int) -> tuple[str, str]:
        if rank not in self._members:
            host, identity = self._store.get(f"member/{rank}").decode().split()
            self._members[rank] = host, identity
        return self._members[rank]

    def _pid(self, rank: int) -> int:
        return int(self._member(rank)[1].partition("@")[0])

    def _is_here(self, rank: int) -> bool:
        host, identity = self._member(rank)
        mine = self._member(self.rank)
        return host == self._here and _boot(identity) == _boot(mine[1])

    def _alive(self, rank: int) -> bool:
        """False only where this host can tell."""
        return not self._is_here(rank) or is_alive(self._member(rank)[1])

    # Where they stand

    def publish(self, sequence: int, operation: str, inside: bool) -> None:
        """Let the others see how far this rank is. A round trip to the store."""
        text, said = self._whereabouts
        fields = {"sequence": sequence, "operation": operation, "inside": inside, "where": text, "said": said}
        self._store.set(f"state/{self.rank}", json.dumps(fields))

    def behind(self, sequence: int) -> tuple[int, ...]:
        """Names of the ranks that have not said that they reached operation `sequence`."""
        return tuple(self.names[state.rank] for state in self.states() if state.sequence < sequence)

    def say_whereabouts(self, text: str) -> None:
        self._whereabouts = (text.encode()[-1000:].decode(errors="replace"), time.time())

    def states(self) -> list[RankState]:
        """One a rank, as last published: by those whose operation waited, and by those who are watched."""
        return [self._state(rank) for rank in range(self.size)]

    def _state(self, rank: int) -> RankState:
        fields: dict[str, Any] = {"sequence": 0, "operation": "", "inside": False, "where": "", "said": 0.0}
        if self._store.check([f"state/{rank}"]):
            fields |= json.loads(self._store.get(f"state/{rank}"))
        said: float = fields["said"]
        return RankState(
            rank=rank,
            pid=self._pid(rank),
            sequence=fields["sequence"],
            operation=fields["operation"],
            inside=fields["inside"],
            alive=self._alive(rank),
            whereabouts=fields["where"],
            whereabouts_age_s=time.time() - said if said else 0.0,
            here=self._is_here(rank),
        )


def _cause(written: bytes) -> Cause:
    fields = json.loads(written)
    return Cause(tuple(fields["ranks"]), fields["text"])


def _boot(identity: str) -> str:
    return identity.partition("@")[2].rpartition("-")[0]


def _pid_namespace() -> str:
    """A pid means something in one namespace only."""
    return os.readlink("/proc/self/ns/pid")
