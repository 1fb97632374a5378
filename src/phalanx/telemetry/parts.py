"""Parts: rows of one table as Parquet bytes and back, checked on both ways.

Values are checked against the declared columns here, because a spool may have been written by an
older or newer version, or altered. Knows neither the spool's files nor the manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from phalanx.events import COMMON, TABLES, SpoolRow
from phalanx.events.tables import Column

_ARROW = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string(), "bool": pa.bool_()}
_INT64 = range(-(1 << 63), 1 << 63)

COLUMNS: Mapping[str, tuple[Column, ...]] = {name: (*COMMON, *table.columns) for name, table in TABLES.items()}
SCHEMAS: Mapping[str, pa.Schema] = {
    name: pa.schema([(column.name, _ARROW[column.type]) for column in columns]) for name, columns in COLUMNS.items()
}
_COMMON_PLAN = tuple((column.name, column.type) for column in COMMON)
_OWN_PLAN = {name: tuple((column.name, column.type) for column in table.columns) for name, table in TABLES.items()}

Values = list[Any]


class Unfit(ValueError):
    """A value that its column cannot hold."""


def values_of(row: SpoolRow) -> Values:
    """The row's values in the order of its table's columns.

    What is not there is None, columns that are not declared are left out. Raises Unfit for a table that is not
    declared or a value of another type.
    """
    plan = _OWN_PLAN.get(row.table)
    if plan is None:
        raise Unfit(f"no table {row.table!r}")
    context, fields = row.context, row.fields
    values = [_fit(context.get(name), kind) for name, kind in _COMMON_PLAN]
    values += [_fit(fields.get(name), kind) for name, kind in plan]
    return values


def _fit(value: Any, kind: str) -> Any:
    if value is None:
        return None
    given = type(value)
    if kind == "int64" and given in (int, bool) and value in _INT64:
        return int(value)
    if kind == "float64" and given in (float, int):
        try:
            return float(value)
        except OverflowError as error:
            raise Unfit("a number beyond float64") from error
    if kind == "string" and given is str:
        if value.isascii():
            return value
        # Halves of surrogate pairs come from file names that are not UTF-8; Parquet's strings must be.
        return value.encode("utf-8", "backslashreplace").decode()
    if kind == "bool" and given is bool:
        return value
    raise Unfit(f"{given.__name__} where {kind} is declared")


def build(table: str, rows: Sequence[Values]) -> pa.Table:
    """Rows as `values_of` gives them."""
    schema = SCHEMAS[table]
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def encode(table: pa.Table) -> bytes:
    """Parquet. zstd: a third of the size of snappy's for step rows, at the same speed of reading."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def fault(path: Path, size: int, sha256: str | None = None) -> str | None:
    """What is wrong with a part's file, None if nothing; without `sha256` only its size is looked at."""
    try:
        found = path.stat().st_size
        if found != size:
            return f"is {'cut' if found < size else 'longer'}: {found:,} bytes instead of {size:,}"
        if sha256 is not None:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    return "was altered"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def load(path: Path, sha256: str) -> pa.Table | None:
    """The rows of a part; None if its file is not the one that was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        return None
    return pq.read_table(pa.BufferReader(data), use_threads=False)


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """One after the other. Columns that only some have are null in the others, and none is left out."""
    return pa.concat_tables(tables, promote_options="default").combine_chunks()
