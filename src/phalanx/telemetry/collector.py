"""The collector: moves rows from the spool into the store, each exactly once.

A round reads what lies after each source's position, writes it as parts, and commits parts and positions
in one manifest. Killed before the commit it has done nothing, after it everything; only then are spool
files deleted. Whoever holds the collector's lease hands its epoch in.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from phalanx.events import SpoolFile, list_files, read_chunk
from phalanx.foundation import StorageError
from phalanx.telemetry import compaction, parts
from phalanx.telemetry.errors import SpoolUnreadable, StoreFenced
from phalanx.telemetry.manifest import Manifest, Part, Position, Retired
from phalanx.telemetry.reading import Reading
from phalanx.telemetry.store import Store

BATCH_BYTES = 16 << 20  # of the spool in one commit: about 40,000 rows, 100 MiB while they are Python's
CHUNK_BYTES = 2 << 20
KEEP_SPOOL_S = 5.0  # a progress bar reads the spool too, a little later
EMPTY_S = 3600.0
KEEP_PARTS_S = 60.0
KEEP_SOURCES = 4096  # that have ended; 100 bytes each in the manifest, so that a copied spool file is known


@dataclass(frozen=True)
class Round:
    """What one round did: rows that are new in the store (those of `losses` among them), copies left out."""

    rows: int = 0
    copies: int = 0
    commits: int = 0


@dataclass(frozen=True)
class _Spooled:
    """A file as it was found: `ended` when nobody will write to it any more."""

    file: SpoolFile
    size: int
    ended: bool
    is_last: bool
    modified: float


class Collector:
    """Of the holder of lease `epoch`. `keep_spool_s`: for how long a spool file that was read is left there."""

    def __init__(self, spool_dir: Path, store: Store, epoch: int, *, keep_spool_s: float = KEEP_SPOOL_S) -> None:
        self._spool_dir = spool_dir
        self._store = store
        self._epoch = epoch
        self._keep_spool_s = keep_spool_s

    def collect_once(self) -> Round:
        """Everything that lies in the spool now is in the store afterwards.

        Raises StoreFenced, StoreDamaged, StorageError; then the store is as it was, and the spool keeps the rows.
        Raises SpoolUnreadable at the end when a file could not be read.
        """
        manifest = self._store.claim(self._epoch)
        found = self._look()
        done = Round()
        unreadable: OSError | None = None
        while True:
            reading = Reading(manifest.sources, manifest.told)
            unreadable = self._read(found, reading)
            reading.tell(time.time_ns())
            if reading.positions == manifest.sources:
                break
            manifest = self._commit(manifest, reading, found)
            rows = sum(map(len, reading.rows.values()))
            done = Round(done.rows + rows, done.copies + reading.copies, done.commits + 1)
        self._delete(manifest, found)
        if unreadable is not None:
            raise SpoolUnreadable(
                f"events in the spool cannot be read ({unreadable.strerror})",
                where=str(unreadable.filename),
                remedy="make the file readable for you; the other files were collected",
            ) from unreadable
        return done

    def _look(self) -> list[_Spooled]:
        """The spool's files with their sizes; the size of one that has ended is final."""
        files = list_files(self._spool_dir)
        found = []
        for file, after in itertools.zip_longest(files, files[1:]):
            with contextlib.suppress(FileNotFoundError):
                before = file.path.stat()
                # A young empty file may be one whose writer has not locked it yet.
                settled = before.st_size > 0 or time.time() - before.st_mtime > EMPTY_S
                ended = settled and _has_no_writer(file.path)
                status = file.path.stat()
                is_last = after is None or after.source != file.source
                found.append(_Spooled(file, status.st_size, ended, is_last, status.st_mtime))
        return found

    def _read(self, found: list[_Spooled], reading: Reading) -> OSError | None:
        """Read on in every file, up to `BATCH_BYTES`. Returns why a file could not be read."""
        budget = BATCH_BYTES
        failures: list[OSError] = []
        waiting: set[str] = set()  # a source's next file is begun when nobody writes to this one any more
        for spooled in found:
            if budget <= 0:
                break
            if spooled.file.source in waiting:
                continue
            try:
                budget -= _read_file(spooled, reading, budget)
            except FileNotFoundError:
                continue
            except OSError as error:
                failures.append(error)
                waiting.add(spooled.file.source)
            if not spooled.ended:
                waiting.add(spooled.file.source)
        return failures[0] if failures else None

    def _commit(self, manifest: Manifest, reading: Reading, found: list[_Spooled]) -> Manifest:
        version, now = manifest.version + 1, time.time_ns()
        written: list[str] = []
        try:
            tables, retired = dict(manifest.tables), list(manifest.retired)
            for table, rows in reading.rows.items():
                part = self._store.write_part(table, parts.build(table, rows), version)
                written.append(part.file)
                tables[table] = (*tables.get(table, ()), part)
                while group := compaction.choose(tables[table]):
                    merged = self._merge(table, group, version)
                    written += [part.file for part in merged if part not in group and not part.damaged]
                    tables[table] = _put(tables[table], group, merged)
                    kept = {part.file for part in merged}
                    retired += [Retired(part.file, now) for part in group if part.file not in kept]
            old = [gone.file for gone in retired if now - gone.time_ns > KEEP_PARTS_S * 1e9]
            after = Manifest(
                version=version,
                epoch=self._epoch,
                told=reading.told,
                tables=tables,
                sources=_without_oldest(reading.positions, {spooled.file.source for spooled in found}),
                retired=tuple(gone for gone in retired if gone.file not in old),
            )
            self._store.commit(after)
        except (StorageError, StoreFenced):
            self._store.remove(written)
            raise
        self._store.remove(old)
        return after

    def _merge(self, table: str, group: list[Part], version: int) -> list[Part]:
        """The group as one part, or itself with the damaged ones marked."""
        loaded = [parts.load(self._store.path(part.file), part.sha256) for part in group]
        whole = [rows for rows in loaded if rows is not None]
        if len(whole) < len(group):
            return [replace(part, damaged=rows is None) for part, rows in zip(group, loaded, strict=True)]
        return [self._store.write_part(table, parts.join(whole), version)]

    def _delete(self, manifest: Manifest, found: list[_Spooled]) -> None:
        """Delete spool files that are in the store as a whole and that nobody writes to."""
        now = time.time()
        for spooled in found:
            file, at = spooled.file, manifest.sources.get(spooled.file.source, Position())
            whole = (
                spooled.size == 0 or file.number < at.number or (file.number == at.number and spooled.size <= at.offset)
            )
            if spooled.ended and whole and now - spooled.modified >= self._keep_spool_s:
                with contextlib.suppress(OSError):
                    file.path.unlink()


def _read_file(spooled: _Spooled, reading: Reading, budget: int) -> int:
    """Read on in one file; returns how many bytes."""
    file, at = spooled.file, reading.position(spooled.file.source)
    if file.number < at.number:
        return 0
    offset = at.offset if file.number == at.number else 0
    if offset > spooled.size:  # it was cut; rows that are known already are left out by their numbers
        offset = 0
        reading.move(file.source, file.number, offset)
    start = offset
    while offset < spooled.size and offset - start < budget:
        chunk = read_chunk(file.path, offset, CHUNK_BYTES)
        lines = chunk.lines
        end = chunk.offset
        if end == offset:
            if not spooled.ended:
                break
            lines, end = (None,), spooled.size  # a last line without an end is a row that was not written whole
        reading.take(file.source, lines)
        reading.move(file.source, file.number, end)
        offset = end
    if spooled.ended and spooled.is_last and offset >= spooled.size:
        reading.finish(file.source)
    return offset - start


def _has_no_writer(path: Path) -> bool:
    """Whether nobody holds the lock that the emitter of a file keeps while it lives."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _put(before: tuple[Part, ...], group: list[Part], instead: list[Part]) -> tuple[Part, ...]:
    """`before` with `instead` where the first of `group` was; the order of rows stays nearly that of arrival."""
    first = before.index(group[0])
    rest = [part for part in before if part not in group]
    return (*rest[:first], *instead, *rest[first:])


def _without_oldest(sources: dict[str, Position], present: set[str]) -> dict[str, Position]:
    """All sources with files, and the newest of those without; a source's name begins with its time."""
    gone = sorted(source for source in sources if source not in present)
    dropped = set(gone[: max(0, len(gone) - KEEP_SOURCES)])
    return {source: at for source, at in sources.items() if source not in dropped}
