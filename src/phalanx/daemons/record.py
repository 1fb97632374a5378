"""Rows of a command that runs no job, into the store of a home: spooled, and collected by whoever holds the lease."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from phalanx.daemons.collector import CollectorThread
from phalanx.events import Context, Emitter
from phalanx.foundation import Home


def record(home: Home, table: str, rows: Iterable[Mapping[str, Any]], program: str) -> None:
    """Emit `rows` of `table` as `program`, and wait until they can be asked for. Raises StorageError."""
    context = Context(host=os.uname().nodename, namespace="", job_uid="", attempt=0, program=program)
    emitter = Emitter(home.spool_dir, context)
    try:
        for row in rows:
            emitter.emit(table, dict(row))
    finally:
        emitter.close()
    collector = CollectorThread(home)
    collector.start()
    collector.flush()
    collector.stop()
