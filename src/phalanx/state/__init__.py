"""What is desired now: objects with versions, watches and leases."""

from phalanx.state.sqlite import SqliteState
from phalanx.state.values import Conflict, Lease, NotFound, StateDamaged, StateError, Stored

__all__ = ["Conflict", "Lease", "NotFound", "SqliteState", "StateDamaged", "StateError", "Stored"]
