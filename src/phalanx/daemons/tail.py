"""Following one job's rows while they are still in the spool, for a terminal that shows progress.

Reads beside the collector and takes nothing from it; a row that the collector removed first was
already older than what a terminal wants to show.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from phalanx.events import SpoolRow, list_files, read_chunk


class JobTail:
    """`poll` gives the rows of one attempt of a job that came since the last call."""

    def __init__(self, spool_dir: Path, job_uid: str, attempt: int) -> None:
        self._spool_dir = spool_dir
        self._job = (job_uid, attempt)
        self._offsets: dict[Path, int] = {}
        self._foreign: set[str] = set()

    def poll(self) -> Iterator[SpoolRow]:
        for file in list_files(self._spool_dir):
            if file.source in self._foreign:
                continue
            try:
                chunk = read_chunk(file.path, self._offsets.get(file.path, 0))
            except FileNotFoundError:
                continue
            self._offsets[file.path] = chunk.offset
            for row in chunk.rows:
                if (row.context.get("job_uid"), row.context.get("attempt")) != self._job:
                    self._foreign.add(file.source)
                    break
                yield row
