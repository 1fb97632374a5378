"""How processes agree: groups, their operations, and who is in them. Knows no models."""

from phalanx.autoload import register
from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, Mismatch, PeerLost
from phalanx.collectives.group import Group, join
from phalanx.collectives.handle import Handle
from phalanx.collectives.membership import Membership
from phalanx.collectives.transports.transport import ReduceOp
from phalanx.collectives.watch import dump_flight_recorder, report_to
from phalanx.collectives.world import (
    cross_rank,
    cross_size,
    init,
    is_initialized,
    local_rank,
    local_size,
    rank,
    shutdown,
    size,
    world,
)

__all__ = [
    "CollectiveError",
    "CollectiveTimeout",
    "Group",
    "Handle",
    "Membership",
    "Mismatch",
    "PeerLost",
    "ReduceOp",
    "cross_rank",
    "cross_size",
    "dump_flight_recorder",
    "init",
    "is_initialized",
    "join",
    "local_rank",
    "local_size",
    "rank",
    "report_to",
    "shutdown",
    "size",
    "world",
]

register()  # torch.distributed.init_process_group("phalanx")
