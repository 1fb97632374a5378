"""Who is in the group: the token a launcher hands to a worker, and the register in which workers find each other.

The register lies in a store (see `rendezvous`). Each member writes down its process and its host, so that all know
who shares memory with whom. Knows nothing of tensors; `group` moves them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.distributed import DistNetworkError, DistStoreError, PrefixStore, Store  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, PeerLost
from phalanx.collectives.identity import Identity, ranks_by_host
from phalanx.collectives.launchers import Address, meeting_point, number, told_by
from phalanx.collectives.rendezvous import meet_at

log = logging.getLogger(__name__)

_STORE_GONE = (DistNetworkError, DistStoreError)  # what torch says when nobody answers
_PATIENCE_S = 3.0  # then it is said whom all wait for
_LEAVING_S = 5.0  # how long rank 0 keeps the store for members that have not left yet


@dataclass(frozen=True)
class Membership:
    """A worker's place in its group. `rendezvous`: a file that all members can open, or a TCP store.

    `local_rank` and `local_size` are what the launcher says; a group goes by `Register.hosts`. `host`: a name that
    makes processes of one machine count as several hosts, for tests; "": the machine itself is asked. `transport`:
    auto, shared-memory or gloo.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    generation: int = 0
    rendezvous: Path | Address | None = None
    host: str = ""
    transport: str = "auto"

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.size and 0 <= self.local_rank < self.local_size <= self.size):
            raise CollectiveError(
                f"rank {self.rank} of {self.size} (local {self.local_rank} of {self.local_size}) is impossible",
                remedy="check RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE",
            )
        if self.size > 1 and self.rendezvous is None:
            raise CollectiveError(
                f"rank {self.rank} of {self.size} is not told where to meet the others",
                remedy="set PHALANX_RENDEZVOUS to the path of a new file that all ranks can open, or, between hosts, "
                "MASTER_ADDR and MASTER_PORT to an address of rank 0's host",
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Membership:
        """The token in the variables of our launcher, torchrun, MPI or Slurm (`launchers` has them); alone without any.

        Generation: PHALANX_GENERATION, else torchrun's TORCHELASTIC_RESTART_COUNT. PHALANX_HOST and
        PHALANX_TRANSPORT: see `host` and `transport`.
        Raises CollectiveError for values that are no numbers, that contradict each other, or that do not suffice.
        """
        told = told_by(environment)
        generation = number(environment, "PHALANX_GENERATION")
        if generation is None:
            generation = number(environment, "TORCHELASTIC_RESTART_COUNT") or 0
        return cls(
            rank=told.rank,
            size=told.size,
            local_rank=told.rank if told.local_rank is None else told.local_rank,
            local_size=told.size if told.local_size is None else told.local_size,
            generation=generation,
            rendezvous=meeting_point(environment, told),
            host=environment.get("PHALANX_HOST", ""),
            transport=environment.get("PHALANX_TRANSPORT", "auto"),
        )


@dataclass(frozen=True)
class Place:
    """Where a rank is: among the ranks of its host, and its host among those that have such a local rank."""

    local_rank: int = 0
    local_size: int = 1
    cross_rank: int = 0
    cross_size: int = 1


def place_among(hosts: list[list[int]], rank: int) -> Place:
    """The place of `rank`; `hosts` are the ranks of each. Hosts may have different numbers of ranks."""
    mine = next(ranks for ranks in hosts if rank in ranks)
    local = mine.index(rank)
    column = [ranks[local] for ranks in hosts if len(ranks) > local]
    return Place(local, len(mine), column.index(rank), len(column))


class Register:
    """The members and their hosts. What goes wrong after they have met is the transport's to say."""

    store: Store  # of this forming of the group, for transports; from `meet` on
    address: str  # of this host in the network of the members; "" for those of one host

    def __init__(self, membership: Membership) -> None:
        self._me = membership
        self._members: list[Identity] = []

    def meet(self, timeout_s: float) -> None:
        """Sign in and wait until all have.

        The same processes may meet again, and others after them in the same store: every rank counts its formings.
        Raises CollectiveTimeout naming the ranks that did not come, CollectiveError for two of the same rank.
        """
        me = self._me
        assert me.rendezvous is not None
        meeting = meet_at(me.rendezvous, me.rank, me.local_size < me.size, timeout_s)
        self.address = meeting.address
        base = PrefixStore(f"generation-{me.generation}-of-{me.size}", meeting.store)
        try:
            forming = base.add(f"formings/{me.rank}", 1)
            self._refuse_twins(PrefixStore(f"{forming - 1}", base), forming)
            self.store = PrefixStore(f"{forming}", base)
            self._form(timeout_s)
        except _STORE_GONE as error:
            raise PeerLost(
                f"the register at {me.rendezvous} went away while the group was forming",
                ranks=(0,) if self._holds_store else (),
                where=self._where,
            ) from error

    def _form(self, timeout_s: float) -> None:
        """Whether the group is formed is decided once, by the first that sees all or has waited too long."""
        begun = time.monotonic()
        deadline, speaks_at = begun + timeout_s, begun + _PATIENCE_S
        ranks = range(self._me.size)
        keys = [f"member/{rank}" for rank in ranks]
        self.store.set(keys[self._me.rank], json.dumps(asdict(Identity.own(self._me.host))))
        while True:
            if self.store.check(keys):
                outcome = self.store.compare_set("outcome", "", "formed")
            elif self.store.check(["outcome"]):
                outcome = self.store.get("outcome")
            elif time.monotonic() > min(deadline, speaks_at):
                missing = [rank for rank in ranks if not self.store.check([keys[rank]])]
                if time.monotonic() <= deadline:
                    log.warning("waiting for rank %s to join", ", ".join(map(str, missing)))
                    speaks_at = deadline
                    continue
                text = f"rank {', '.join(map(str, missing))} did not join within {timeout_s:g} s"
                outcome = self.store.compare_set("outcome", "", json.dumps({"missing": missing, "text": text}))
            else:
                time.sleep(0.005)
                continue
            break
        self._accept(outcome)
        self._members = [Identity(**json.loads(self.store.get(key))) for key in keys]

    def hosts(self) -> list[list[int]]:
        """The ranks of each host, ascending; hosts in the order of their first rank.

        One host: the same boot, pid namespace, user and /dev/shm, or the same PHALANX_HOST.
        """
        return ranks_by_host([member.host for member in self._members])

    def place(self) -> Place:
        """Of this member."""
        return place_among(self.hosts(), self._me.rank)

    def close(self) -> None:
        """Sign out. Rank 0, if it holds the store, waits a little for those who may still need it."""
        others = [rank for rank in range(self._me.size) if rank != self._me.rank]
        try:
            self.store.set(f"left/{self._me.rank}", "")
            if self._me.rank != 0 or not self._holds_store:
                return
            deadline = time.monotonic() + _LEAVING_S
            while time.monotonic() < deadline:
                staying = [rank for rank in others if not self._members[rank].is_gone()]
                if not staying or self.store.check([f"left/{rank}" for rank in staying]):
                    return
                time.sleep(0.01)
        except _STORE_GONE:
            return  # the store is gone, and nobody can be waiting for it

    @property
    def _where(self) -> str:
        return f"generation {self._me.generation}"

    @property
    def _holds_store(self) -> bool:
        """Whether rank 0's process is the store: if it ends, nothing can be read or written."""
        return isinstance(self._me.rendezvous, Address) and not self._me.rendezvous.held_by_agent

    def _accept(self, outcome: bytes) -> None:
        """Return if the group is formed. Raises what was decided instead, whoever decided it."""
        if outcome == b"formed":
            return
        told = json.loads(outcome)
        if told["missing"]:
            raise CollectiveTimeout(
                told["text"],
                missing=tuple(told["missing"]),
                where=self._where,
                remedy="look at the log of that rank, or whether its process was started",
            )
        remedy = "start every rank once, and again only with a new PHALANX_GENERATION"
        raise CollectiveError(told["text"], where=self._where, remedy=remedy)

    def _refuse_twins(self, before: Store, forming: int) -> None:
        """Who comes again while others still wait in its last forming is not the same process: two have one rank."""
        if forming == 1 or before.check(["outcome"]):
            return
        rank = self._me.rank
        twins = Identity.own().on_node()
        if before.check([f"member/{rank}"]):
            twins = f"{Identity(**json.loads(before.get(f'member/{rank}'))).on_node()}, and {twins}"
        text = f"there are two of rank {rank}: {twins}"
        self._accept(before.compare_set("outcome", "", json.dumps({"missing": [], "text": text})))
