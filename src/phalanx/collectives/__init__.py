"""How processes agree: groups, their operations, and who is in them. Knows no models."""

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, PeerLost
from phalanx.collectives.group import Group, Handle, ReduceOp, join
from phalanx.collectives.membership import Membership

__all__ = ["CollectiveError", "CollectiveTimeout", "Group", "Handle", "Membership", "PeerLost", "ReduceOp", "join"]
