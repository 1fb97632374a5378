"""Rows of a command, into the store of a home: spooled, and collected by whoever holds the lease."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from phalanx.daemons.collector import CollectorThread
from phalanx.events import Context, Emitter
from phalanx.foundation import Home
from phalanx.job import Job


def record(home: Home, table: str, rows: Iterable[Mapping[str, Any]], program: str, *, job: Job | None = None) -> None:
    """Emit `rows` of `table` as `program`, and wait until they can be asked for. `job`: whose they are.

    Raises StorageError.
    """
    context = Context(
        host=os.uname().nodename,
        namespace=job.metadata.namespace if job else "",
        job_uid=job.metadata.uid if job else "",
        attempt=job.status.attempt if job else 0,
        program=program,
    )
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
