"""Every way in which a group of processes can fail.

    CollectiveError             the group cannot be used any more
    ├── Mismatch                the members called different operations
    ├── PeerLost                another member died, left or gave up
    └── CollectiveTimeout       a member did not come, or did not answer, in time

After any of them the group is unusable: a new generation must be formed. They are torch's DistBackendError (a
RuntimeError) as well, so that a script which catches what gloo and NCCL raise catches these.
"""

from __future__ import annotations

from torch.distributed import DistBackendError

from phalanx.foundation import PhalanxError


class CollectiveError(PhalanxError, DistBackendError):
    """An operation of the group failed for another reason than a lost peer."""


class PeerLost(CollectiveError):
    """Another member is gone. `ranks`: those known to be gone; empty when only the broken connection is known."""

    def __init__(self, message: str, *, ranks: tuple[int, ...] = (), where: str = "", remedy: str = "") -> None:
        super().__init__(message, where=where, remedy=remedy or "read the log of that rank; the cause is there")
        self.ranks = ranks


class CollectiveTimeout(CollectiveError):
    """`missing` did not join, or the operation was not finished by all, in time."""

    def __init__(self, message: str, *, missing: tuple[int, ...] = (), where: str = "", remedy: str = "") -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.missing = missing


class Mismatch(CollectiveError):
    """The ranks did not call the same operation. The message names ranks, operations and tensors."""
