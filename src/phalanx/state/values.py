"""What state holds and the errors it raises; the same for every implementation.

StateError
├── Conflict        the object changed since it was read (or exists, or is gone)
├── NotFound
└── StateDamaged    the file is not a usable state database
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phalanx.foundation import PhalanxError


class StateError(PhalanxError):
    """Desired state cannot be read or written."""


class Conflict(StateError):
    """A write was based on a version that is no longer the newest. Read again, decide again."""


class NotFound(StateError):
    """There is no such object."""


class StateDamaged(StateError):
    """The database is corrupt, of a newer schema, or not a database at all."""


@dataclass(frozen=True)
class Stored:
    """One object. `version` grows with every write to the whole state, so it orders changes of all objects."""

    kind: str
    namespace: str
    name: str
    uid: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    version: int
    deleted: bool = False


@dataclass(frozen=True)
class Lease:
    """`epoch` grows whenever the holder changes: a fencing token for whatever the lease guards."""

    name: str
    holder: str
    epoch: int
    expires_ns: int
