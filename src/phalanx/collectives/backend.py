"""torch.distributed's backend "phalanx": what runs over torch.distributed runs over our transports, unchanged.

    torch.distributed.init_process_group("phalanx")

`phalanx.autoload` makes the name known. The ranks of a group tell each other their hosts in its store, and `connect`
decides as it does for our own groups. Knows nothing of operations.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from phalanx.autoload import NAME
from phalanx.collectives.connect import Party, connect, parse_choice
from phalanx.collectives.errors import CollectiveTimeout
from phalanx.collectives.identity import Identity
from phalanx.collectives.process_group import ProcessGroupPhalanx
from phalanx.collectives.watch import watch

_SECOND = timedelta(seconds=1)


def create(group: Any) -> ProcessGroupPhalanx:
    """The group that c10d's DistributedBackendOptions describe; collective over its ranks. Raises CollectiveError."""
    timeout_s = group.timeout / _SECOND
    party = Party(
        group.store,
        group.group_rank,
        _hosts(group, timeout_s),
        names=group.global_ranks_in_group or range(group.group_size),
        address="",
        choice=parse_choice(os.environ.get("PHALANX_TRANSPORT", "auto")),
        timeout_s=timeout_s,
        operation_timeout_s=timeout_s,
    )
    transport = connect(party)
    if party.size > 1:
        members = group.global_ranks_in_group
        watch(transport, f"ranks {', '.join(map(str, members))}" if members else "world", party.names)
    return ProcessGroupPhalanx(NAME, transport, group.store, group.timeout)


def _hosts(group: Any, timeout_s: float) -> list[list[int]]:
    """The ranks of each host, as the ranks themselves say. Raises CollectiveTimeout naming those that do not come."""
    keys = [f"host/{rank}" for rank in range(group.group_size)]
    group.store.set(keys[group.group_rank], Identity.own(os.environ.get("PHALANX_HOST", "")).host)
    try:
        group.store.wait(keys, timedelta(seconds=timeout_s))
    except RuntimeError as error:
        missing = tuple(rank for rank, key in enumerate(keys) if not group.store.check([key]))
        raise CollectiveTimeout(
            f"rank {', '.join(map(str, missing))} did not join within {timeout_s:g} s",
            missing=missing,
            where=f"rank {group.group_rank} of {group.group_size}",
            remedy="look at the log of that rank, or whether its process was started",
        ) from error
    ranks: dict[bytes, list[int]] = {}
    for rank, key in enumerate(keys):
        ranks.setdefault(group.store.get(key), []).append(rank)
    return list(ranks.values())
