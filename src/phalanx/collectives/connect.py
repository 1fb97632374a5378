"""Which transport a group gets, decided by all of its ranks together.

    alone                                   nothing is opened
    all on one host                         shared memory
    several hosts, as many ranks on each    shared memory on each, torch.distributed between them
    else, or where that cannot be had       torch.distributed (gloo), with one warning that says why

Every rank votes in the store before and after the attempt: one that has no compiler must not split the group.
Knows nothing of operations.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout
from phalanx.collectives.transports.alone import Alone
from phalanx.collectives.transports.transport import Transport

log = logging.getLogger(__name__)

Choice = Literal["auto", "shared-memory", "gloo"]


def parse_choice(text: str) -> Choice:
    """The value of PHALANX_TRANSPORT. Raises CollectiveError for an unknown word."""
    for choice in get_args(Choice):
        if text == choice:
            return choice  # type: ignore[no-any-return]
    raise CollectiveError(
        f"there is no transport {text!r}", remedy=f"PHALANX_TRANSPORT is one of {', '.join(get_args(Choice))}"
    )


@dataclass(frozen=True)
class Party:
    """Who connects, where they find each other, and how long they wait.

    `hosts`: the ranks (0..size-1) of each host; `names`: what messages call them; `address`: of this host.
    """

    store: Store
    rank: int
    hosts: Sequence[Sequence[int]]
    names: Sequence[int]
    address: str
    choice: Choice
    timeout_s: float
    operation_timeout_s: float

    @property
    def size(self) -> int:
        return sum(map(len, self.hosts))


def connect(party: Party) -> Transport:
    """Collective over the ranks of `party`. Raises CollectiveError on all ranks, or on none."""
    if party.size == 1:
        return Alone()
    plan = _plan(party)
    if plan is not None:
        why = _refusal(party, "may", lambda: _can_share(party))
        if why is None:
            made: list[Transport] = []
            why = _refusal(party, "did", lambda: made.append(plan()))
            if why is None:
                return made[0]
            for transport in made:
                transport.close()
        if party.choice == "shared-memory":
            raise CollectiveError(f"no shared memory: {why}", remedy="PHALANX_TRANSPORT=gloo does without")
        if party.rank == 0:
            log.warning("no shared memory, so gloo, which is several times slower: %s", why)
    return _flat(party)


def _plan(party: Party) -> Callable[[], Transport] | None:
    """What to try before gloo alone."""
    _refuse_different_choices(party)
    if party.choice == "gloo":
        return None
    if len(party.hosts) == 1:
        return lambda: _shared_memory(party, range(party.size), "host")
    per_host = {len(ranks) for ranks in party.hosts}
    if len(per_host) == 1 and per_host != {1}:
        return lambda: _hierarchical(party)
    if party.choice == "shared-memory":
        raise CollectiveError(
            f"shared memory was asked for, but the hosts have {[len(ranks) for ranks in party.hosts]} ranks",
            remedy="PHALANX_TRANSPORT=auto",
        )
    if len(per_host) > 1 and party.rank == 0:
        counts = ", ".join(str(len(ranks)) for ranks in party.hosts)
        log.warning("gloo alone, which is slower: hosts of different sizes (%s ranks) share no memory", counts)
    return None


def _shared_memory(party: Party, ranks: Sequence[int], prefix: str) -> Transport:
    from phalanx.collectives.transports.shm import SharedMemory

    return SharedMemory(
        PrefixStore(prefix, party.store),
        list(ranks).index(party.rank),
        len(ranks),
        names=[party.names[rank] for rank in ranks],
        timeout_s=party.timeout_s,
        operation_timeout_s=party.operation_timeout_s,
    )


def _hierarchical(party: Party) -> Transport:
    from phalanx.collectives.transports.hierarchical import Hierarchical

    host = next(number for number, ranks in enumerate(party.hosts) if party.rank in ranks)
    local = _shared_memory(party, party.hosts[host], f"host-{host}")
    try:
        return Hierarchical(
            local,
            PrefixStore("between", party.store),
            party.rank,
            party.hosts,
            names=party.names,
            address=party.address,
            timeout_s=party.timeout_s,
            operation_timeout_s=party.operation_timeout_s,
        )
    except CollectiveError:
        local.close()
        raise


def _flat(party: Party) -> Transport:
    from phalanx.collectives.transports.torch import Torch

    return Torch(
        PrefixStore("flat", party.store),
        party.rank,
        party.size,
        names=party.names,
        address=party.address,
        timeout_s=party.timeout_s,
        operation_timeout_s=party.operation_timeout_s,
    )


def _can_share(party: Party) -> None:
    from phalanx.collectives.transports.library import MAX_RANKS, library
    from phalanx.foundation import BuildError

    most = max(map(len, party.hosts))
    if most > MAX_RANKS:
        raise CollectiveError(f"{most} ranks on one host, and {MAX_RANKS} at most share memory")
    try:
        library()
    except BuildError as error:
        raise CollectiveError(f"{error.message}; {error.remedy}" if error.remedy else error.message) from error
    except OSError as error:
        raise CollectiveError(f"the compiled collectives cannot be loaded: {error}") from error


def _refusal(party: Party, question: str, attempt: Callable[[], object]) -> str | None:
    """None when the attempt went well on every rank, else why not on the first where it did not."""
    mine = ""
    try:
        attempt()
    except CollectiveError as error:
        mine = error.message or type(error).__name__
    for rank, word in enumerate(_vote(party, question, mine)):
        if word:
            return f"rank {party.names[rank]}: {word}"
    return None


def _refuse_different_choices(party: Party) -> None:
    choices = _vote(party, "choice", party.choice)
    if len(set(choices)) > 1:
        said = ", ".join(f"rank {name}: {choice}" for name, choice in zip(party.names, choices, strict=True))
        raise CollectiveError(f"the ranks want different transports: {said}", remedy="set PHALANX_TRANSPORT alike")


def _vote(party: Party, question: str, mine: str) -> list[str]:
    """What every rank says."""
    keys = [f"{question}/{rank}" for rank in range(party.size)]
    party.store.set(keys[party.rank], json.dumps(mine))
    try:
        party.store.wait(keys, timedelta(seconds=party.timeout_s))
    except RuntimeError as error:
        missing = [rank for rank, key in enumerate(keys) if not party.store.check([key])]
        raise CollectiveTimeout(
            f"rank {', '.join(str(party.names[rank]) for rank in missing)} came, but did not connect "
            f"within {party.timeout_s:g} s",
            missing=tuple(party.names[rank] for rank in missing),
            remedy="look at the log of that rank",
        ) from error
    return [json.loads(party.store.get(key)) for key in keys]
