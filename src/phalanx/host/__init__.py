"""What this machine is, and what runs on it. Loads a file when one of its names is used: facts are the job's values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names

if TYPE_CHECKING:
    from phalanx.host.facts import disk_free, facts_of_host
    from phalanx.host.processes import (
        identity_of,
        is_alive,
        own_identity,
        reap,
        signal_group,
        start,
        terminate,
        wait_until_dead,
    )

__all__ = [
    "disk_free",
    "facts_of_host",
    "identity_of",
    "is_alive",
    "own_identity",
    "reap",
    "signal_group",
    "start",
    "terminate",
    "wait_until_dead",
]

__getattr__ = lazy_names(
    __name__, {name: "facts" if name in ("disk_free", "facts_of_host") else "processes" for name in __all__}
)
