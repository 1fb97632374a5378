"""What this machine is, and what runs on it."""

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
