"""What can go wrong with the store.

TelemetryError
├── StoreDamaged     the manifest is not one, was altered, or is of a newer Phalanx
├── StoreFenced      somebody else owns the store now
├── SpoolUnreadable  a spool file cannot be read; the others were collected
└── QueryError       (a UsageError, exit 2) the SQL cannot be answered
"""

from __future__ import annotations

from phalanx.foundation import PhalanxError, UsageError


class TelemetryError(PhalanxError):
    """Events cannot be collected or queried."""


class StoreDamaged(TelemetryError):
    """The store's manifest cannot be used, so nobody knows which parts count."""


class StoreFenced(TelemetryError):
    """Another collector has committed since; what this one had prepared was refused, and is still in the spool."""


class SpoolUnreadable(TelemetryError):
    """A file of the spool is there and cannot be read."""


class QueryError(TelemetryError, UsageError):
    """A query that is wrong, forbidden, or too large."""
