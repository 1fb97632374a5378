"""What happened? The columnar store, the collector that fills it, the reader that answers SQL.

Names are loaded on first use: a collector needs no DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names

if TYPE_CHECKING:
    from phalanx.telemetry.collector import Collector, Round
    from phalanx.telemetry.errors import QueryError, SpoolUnreadable, StoreDamaged, StoreFenced, TelemetryError
    from phalanx.telemetry.reader import Answer, DamagedPart, Reader
    from phalanx.telemetry.store import Store

_HOMES = {
    "Answer": "reader",
    "Collector": "collector",
    "DamagedPart": "reader",
    "QueryError": "errors",
    "Reader": "reader",
    "Round": "collector",
    "SpoolUnreadable": "errors",
    "Store": "store",
    "StoreDamaged": "errors",
    "StoreFenced": "errors",
    "TelemetryError": "errors",
}
__all__ = [
    "Answer",
    "Collector",
    "DamagedPart",
    "QueryError",
    "Reader",
    "Round",
    "SpoolUnreadable",
    "Store",
    "StoreDamaged",
    "StoreFenced",
    "TelemetryError",
]
__getattr__ = lazy_names(__name__, _HOMES)
