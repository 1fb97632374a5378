"""Desired state in one SQLite file in WAL mode: many processes of one host read and write it safely.

Every write takes the write lock first (`BEGIN IMMEDIATE`), compares versions, and commits whole;
a process killed at any moment leaves the previous state. Objects are JSON and mean nothing here.
Deleted objects stay as tombstones so that a watch sees them go.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phalanx.foundation import StorageError, ensure_private_directory
from phalanx.foundation.files import DiskFull, ReadOnly
from phalanx.state.values import Conflict, Lease, NotFound, StateDamaged, StateError, Stored

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 15.0
POLL_S = 0.05

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL,
    spec TEXT NOT NULL, status TEXT NOT NULL, version INTEGER NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, namespace, name)
);
CREATE INDEX IF NOT EXISTS objects_by_version ON objects (version);
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, holder TEXT NOT NULL, epoch INTEGER NOT NULL, expires_ns INTEGER NOT NULL
) WITHOUT ROWID;
"""
_COLUMNS = "kind, namespace, name, uid, spec, status, version, deleted"


class SqliteState:
    """Get, list, apply, report, delete, watch and lease.

    `path`: the database, created private (0600) when missing. `is_alive(holder)`: whether a lease's
    holder still exists; when it says no, the lease is free before its time is up.
    One instance serves one thread. Raises StateError, StorageError.
    """

    def __init__(self, path: Path, *, is_alive: Callable[[str], bool] = lambda holder: True) -> None:
        self.path = path
        self._is_alive = is_alive
        ensure_private_directory(path.parent)
        with self._errors():
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self._enter_wal()
            self._db.execute("PRAGMA synchronous = FULL")
            if self._schema_version() != SCHEMA_VERSION:
                self._create()

    def _enter_wal(self) -> None:
        """SQLite does not wait for this one lock: of the first two processes of a home, one is told busy at once."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def close(self) -> None:
        self._db.close()

    def get(self, kind: str, namespace: str, name: str) -> Stored | None:
        found = self._select("kind = ? AND namespace = ? AND name = ? AND NOT deleted", (kind, namespace, name))
        return found[0] if found else None

    def list(self, kind: str, namespace: str | None = None) -> Sequence[Stored]:
        """All objects of a kind (of one namespace), by namespace and name."""
        if namespace is None:
            return self._select("kind = ? AND NOT deleted", (kind,))
        return self._select("kind = ? AND namespace = ? AND NOT deleted", (kind, namespace))

    def apply(
        self, kind: str, namespace: str, name: str, spec: Mapping[str, Any], *, uid: str, expect: int | None
    ) -> Stored:
        """Write what is desired. `expect`: the version read before; 0: must not exist; None: whatever is there.

        The status of an existing object is kept unless its `uid` differs. Raises Conflict.
        """
        with self._transaction():
            before = self._checked(kind, namespace, name, expect)
            status = before.status if before is not None and before.uid == uid else {}
            return self._write(Stored(kind, namespace, name, uid, spec, status, self._next_version()))

    def report(
        self, kind: str, namespace: str, name: str, status: Mapping[str, Any], *, expect: int | None = None
    ) -> Stored:
        """Write what is. Raises NotFound, Conflict."""
        with self._transaction():
            before = self._checked(kind, namespace, name, expect)
            if before is None:
                raise NotFound(f"there is no {kind} {namespace}/{name}")
            return self._write(Stored(kind, namespace, name, before.uid, before.spec, status, self._next_version()))

    def delete(self, kind: str, namespace: str, name: str, *, expect: int | None = None) -> None:
        """Remove an object; watches see it once more, as deleted. Raises NotFound, Conflict."""
        with self._transaction():
            before = self._checked(kind, namespace, name, expect)
            if before is None:
                raise NotFound(f"there is no {kind} {namespace}/{name}")
            version = self._next_version()
            self._write(Stored(kind, namespace, name, before.uid, before.spec, before.status, version, deleted=True))

    def changes(self, since: int, kinds: Collection[str]) -> Sequence[Stored]:
        """Objects of `kinds` whose newest version is above `since`, oldest first; an object appears once."""
        marks = ", ".join("?" for _ in kinds)
        return self._select(f"version > ? AND kind IN ({marks})", (since, *kinds), order="version")

    def watch(self, kinds: Collection[str], since: int, timeout_s: float) -> Sequence[Stored]:
        """As `changes`, but waits up to `timeout_s` for the first one; empty when nothing changed."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.changes(since, kinds)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(POLL_S, left))

    def lease(self, name: str, holder: str, ttl_s: float) -> Lease | None:
        """Take or renew a lease for `ttl_s` seconds; None when somebody else holds it.

        The epoch stays while the same holder renews in time and grows with every other taking.
        """
        with self._transaction():
            now = time.time_ns()
            current = self._lease(name)
            epoch = 1
            if current is not None:
                held = current.expires_ns > now
                if held and current.holder != holder and self._is_alive(current.holder):
                    return None
                epoch = current.epoch if held and current.holder == holder else current.epoch + 1
            taken = Lease(name, holder, epoch, now + int(ttl_s * 1e9))
            self._db.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
                (taken.name, taken.holder, taken.epoch, taken.expires_ns),
            )
            return taken

    def holder(self, name: str) -> Lease | None:
        """The lease as it is held now, or None."""
        with self._errors():
            current = self._lease(name)
        if current is None or current.expires_ns <= time.time_ns() or not self._is_alive(current.holder):
            return None
        return current

    def release(self, name: str, holder: str) -> None:
        """Give a lease back early; does nothing when `holder` no longer holds it."""
        with self._transaction():
            self._db.execute("UPDATE leases SET expires_ns = 0 WHERE name = ? AND holder = ?", (name, holder))

    def _lease(self, name: str) -> Lease | None:
        row = self._db.execute("SELECT name, holder, epoch, expires_ns FROM leases WHERE name = ?", (name,)).fetchone()
        return Lease(*row) if row else None

    def _checked(self, kind: str, namespace: str, name: str, expect: int | None) -> Stored | None:
        before = self.get(kind, namespace, name)
        version = before.version if before is not None else 0
        if expect is not None and expect != version:
            what = "exists already" if expect == 0 else "is gone" if before is None else "was changed by somebody else"
            raise Conflict(f"{kind} {namespace}/{name} {what}", remedy="read it again and repeat")
        return before

    def _next_version(self) -> int:
        row = self._db.execute("UPDATE meta SET value = value + 1 WHERE key = 'version' RETURNING value").fetchone()
        return int(row[0])

    def _write(self, stored: Stored) -> Stored:
        self._db.execute(
            f"INSERT OR REPLACE INTO objects ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                stored.kind,
                stored.namespace,
                stored.name,
                stored.uid,
                json.dumps(stored.spec),
                json.dumps(stored.status),
                stored.version,
                int(stored.deleted),
            ),
        )
        return stored

    def _select(self, where: str, values: tuple[Any, ...], order: str = "namespace, name") -> Sequence[Stored]:
        with self._errors():
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM objects WHERE {where} ORDER BY {order}", values).fetchall()
        return [
            Stored(kind, namespace, name, uid, json.loads(spec), json.loads(status), version, bool(deleted))
            for kind, namespace, name, uid, spec, status, version, deleted in rows
        ]

    def _schema_version(self) -> int:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise StateDamaged(
                f"was written by a newer Phalanx (schema {version}, this one knows {SCHEMA_VERSION})",
                where=str(self.path),
                remedy="use that version, or another --home",
            )
        return version

    def _create(self) -> None:
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('version', 0)")
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except OSError as error:
            raise StorageError(f"cannot be opened ({error.strerror})", where=str(self.path)) from error

    def _translated(self, error: sqlite3.Error) -> StateError | StorageError:
        where = str(self.path)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return DiskFull(
                "the disk is full", where=where, remedy="free space there, or choose another place with --home"
            )
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
            return ReadOnly(
                f"cannot be written ({error})", where=where, remedy="make it writable, or use another --home"
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return StateDamaged(
                f"is not a usable state database ({error})", where=where, remedy="move it away, or use another --home"
            )
        if code == sqlite3.SQLITE_BUSY:
            return StateError(
                f"is locked by another process for over {BUSY_TIMEOUT_S:.0f} s", where=where, remedy="look who holds it"
            )
        return StateError(f"cannot be used ({error})", where=where, remedy="check the file and its disk")
