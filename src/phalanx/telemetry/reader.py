"""The reader: answers SQL over the store's sound parts, and can do nothing else.

Each declared table is an Arrow dataset of the manifest's files in a DuckDB in memory without access to
files, whose configuration is locked: a query can neither read another file nor write one. A part that
is cut, altered or missing is left out and named. Knows nothing of who asks.
"""

from __future__ import annotations

import decimal
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from phalanx.events import TABLES
from phalanx.foundation import nearest
from phalanx.telemetry import parts
from phalanx.telemetry.errors import QueryError
from phalanx.telemetry.manifest import Manifest, Part
from phalanx.telemetry.store import Store

THREADS = 2
MEMORY = "1GiB"
TRIES = 3

_STATEMENTS = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # a table's name is never a variable of this program
    "temp_directory": "",
    "memory_limit": MEMORY,
    "threads": THREADS,
}


@dataclass(frozen=True)
class Answer:
    """`types`: DuckDB's names, one a column. `is_cut`: there are more rows than were asked for."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    is_cut: bool = False


@dataclass(frozen=True)
class DamagedPart:
    """A part that queries leave out, and what is wrong with it."""

    path: Path
    table: str
    rows: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: the part {self.reason}; its {self.rows:,} rows of {self.table} are left out"


class Reader:
    """Of a store directory; every query sees the newest commit. One instance serves one thread.

    `damaged`: parts that were found damaged by the queries so far and are left out of their answers.
    """

    def __init__(self, directory: Path) -> None:
        self._store = Store(directory)
        self._manifest: Manifest | None = None
        self._sound: set[str] = set()
        self._damaged: dict[str, DamagedPart] = {}
        self._connection: duckdb.DuckDBPyConnection | None = None

    @property
    def damaged(self) -> tuple[DamagedPart, ...]:
        return tuple(self._damaged.values())

    def counts(self) -> dict[str, int]:
        """Rows of each declared table. Raises StoreDamaged."""
        manifest = self._refresh()
        self._check(manifest, frozenset())
        return {name: sum(part.rows for part in self._good(manifest, name)) for name in TABLES}

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """As `query`, a dict for each row."""
        answer = self.query(sql)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]

    def query(self, sql: str, limit: int | None = None) -> Answer:
        """The answer to one SELECT, of at most `limit` rows.

        Values are Python's: int, float (decimals too), str, bool, None, and what DuckDB makes of other types.
        Raises QueryError, StoreDamaged.
        """
        for left in reversed(range(TRIES)):
            manifest = self._refresh()
            mentioned = frozenset(name for name in TABLES if name in sql.lower())
            self._check(manifest, mentioned)
            try:
                return self._run(self._open(manifest), sql, limit)
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                # A part may have gone since: merged into another, or damaged under our eyes.
                self._sound.clear()
                known = len(self._damaged)
                moved = self._refresh() is not manifest
                self._check(self._refresh(), frozenset(TABLES))
                if not left or not (moved or len(self._damaged) > known):
                    raise _explained(error, mentioned) from error
        raise AssertionError("unreachable")

    def _run(self, connection: duckdb.DuckDBPyConnection, sql: str, limit: int | None) -> Answer:
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            what = "there is no statement" if not statements else f"there are {len(statements)} statements"
            raise QueryError(what, where="SQL", remedy="write one SELECT")
        if statements[0].type not in _STATEMENTS:
            raise QueryError(
                f"{statements[0].type.name} is not allowed: the store is only read",
                where="SQL",
                remedy="write a SELECT",
            )
        result = connection.execute(statements[0])
        described = result.description or []
        found = result.fetchall() if limit is None else result.fetchmany(limit + 1)
        return Answer(
            columns=_distinct([column[0] for column in described]),
            types=tuple(str(column[1]) for column in described),
            rows=tuple(tuple(_plain(value) for value in row) for row in found[:limit]),
            is_cut=limit is not None and len(found) > limit,
        )

    def _refresh(self) -> Manifest:
        """The newest manifest; what was opened for an older one is forgotten."""
        manifest = self._store.read()
        if self._manifest is None or manifest.version != self._manifest.version:
            self._manifest, self._connection = manifest, None
        return self._manifest

    def _check(self, manifest: Manifest, whole: frozenset[str]) -> None:
        """Look for damaged parts: read those of the tables `whole` once, look at the sizes of the others."""
        for table in TABLES:
            for part in manifest.tables.get(table, ()):
                if part.file in self._sound or part.file in self._damaged:
                    continue
                path = self._store.path(part.file)
                reason = parts.fault(path, part.bytes, part.sha256 if table in whole else None)
                if reason is not None:
                    self._damaged[part.file] = DamagedPart(path, table, part.rows, reason)
                    self._connection = None
                elif table in whole:
                    self._sound.add(part.file)

    def _good(self, manifest: Manifest, table: str) -> list[Part]:
        return [part for part in manifest.tables.get(table, ()) if part.file not in self._damaged]

    def _open(self, manifest: Manifest) -> duckdb.DuckDBPyConnection:
        if self._connection is not None:
            return self._connection
        connection = duckdb.connect(":memory:", config=_CONFIG)
        for table, schema in parts.SCHEMAS.items():
            files = [str(self._store.path(part.file)) for part in self._good(manifest, table)]
            # The declared schema: what an older part lacks is null, what a newer one has besides is not shown.
            rows = ds.dataset(files, schema=schema, format="parquet") if files else schema.empty_table()
            connection.register(table, rows)
        connection.execute("SET lock_configuration = true")
        self._connection = connection
        return connection


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Column names of which no two are the same, so that a row can be a dict."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        distinct.append(f"{name}_{count}" if count else name)
    return tuple(distinct)


def _plain(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _explained(error: Exception, mentioned: frozenset[str]) -> QueryError:
    """DuckDB's message without its class and without the lines that show C++ signatures; with the nearest name."""
    text = str(error)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    message = re.sub(r"^[A-Za-z ]+ Error: ", "", first)
    remedy = "`phalanx events tables` lists tables, `phalanx events tables TABLE` the columns of one"
    wanted = re.search(r'(Table with name|[Cc]olumn named|[Cc]olumn) "?(\w+)"?', message)
    if isinstance(error, duckdb.PermissionException):
        message, remedy = "a query reads the tables of the store, and no files", "write a SELECT over its tables"
    elif isinstance(error, duckdb.OutOfMemoryException):
        message, remedy = f"the query needs more than {MEMORY} of memory", "ask for fewer rows or columns"
    elif wanted is not None:
        columns = {column.name for table in mentioned for column in parts.COLUMNS[table]}
        near = nearest(wanted[2], TABLES if "Table" in wanted[1] else sorted(columns))
        remedy = f"did you mean {near}? {remedy}" if near else remedy
    return QueryError(message, where="SQL", remedy=remedy)
