"""torch.distributed's backend "phalanx": what runs over torch.distributed runs over our transports, unchanged.

    torch.distributed.init_process_group("phalanx")

`phalanx.autoload` makes the name known. The ranks of a group tell each other their hosts in its store, and `connect`
decides as it does for our own groups. Knows nothing of operations.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from phalanx.autoload import NAME
from phalanx.collectives.connect import Party, connect, parse_choice
from phalanx.collectives.errors import CollectiveTimeout
from phalanx.collectives.identity import Identity, ranks_by_host
from phalanx.collectives.process_group import ProcessGroupPhalanx
from phalanx.collectives.watch import watch

log = logging.getLogger(__name__)

_SECOND = timedelta(seconds=1)
_PATIENCE_S = 3.0  # then it is said whom all wait for


def create(group: Any) -> ProcessGroupPhalanx:
    """The group that c10d's DistributedBackendOptions describe; collective over its ranks. Raises CollectiveError."""
    timeout_s = group.timeout / _SECOND
    # Who destroys a group and makes it anew gets the same store, with what was said in it before.
    group.store = PrefixStore(str(group.store.add(f"made/{group.group_rank}", 1)), group.store)
    names = group.global_ranks_in_group or range(group.group_size)
    party = Party(
        group.store,
        group.group_rank,
        _hosts(group, names, timeout_s),
        names=names,
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


def _hosts(group: Any, names: Sequence[int], timeout_s: float) -> list[list[int]]:
    """The ranks of each host, as the ranks themselves say. Raises CollectiveTimeout naming those that do not come."""
    keys = [f"host/{rank}" for rank in range(group.group_size)]
    group.store.set(keys[group.group_rank], Identity.own(os.environ.get("PHALANX_HOST", "")).host)
    patience_s = min(_PATIENCE_S, timeout_s)
    if missing := _missing(group.store, keys, patience_s):
        log.warning("waiting for rank %s to join", ", ".join(str(names[rank]) for rank in missing))
        missing = _missing(group.store, keys, timeout_s - patience_s)
    if missing:
        absent = tuple(names[rank] for rank in missing)
        raise CollectiveTimeout(
            f"rank {', '.join(map(str, absent))} did not join within {timeout_s:g} s",
            missing=absent,
            where=f"rank {names[group.group_rank]}",
            remedy="look at the log of that rank, or whether its process was started",
        )
    return ranks_by_host([group.store.get(key) for key in keys])


def _missing(store: Any, keys: Sequence[str], timeout_s: float) -> list[int]:
    """The ranks whose keys are not there after `timeout_s`."""
    try:
        store.wait(keys, timedelta(seconds=timeout_s))
    except RuntimeError:
        return [rank for rank, key in enumerate(keys) if not store.check([key])]
    return []
