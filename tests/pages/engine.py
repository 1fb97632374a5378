"""Spool files straight into DuckDB: the declared tables, with what the emitters wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from phalanx.events import COMMON, TABLES, list_files, read_rows
from phalanx.foundation import PhalanxError
from phalanx.pages import Rows

_ARROW = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string(), "bool": pa.bool_()}


def open_rows(spool: Path) -> Rows:
    """A function that answers SQL over the spool's rows, as the store does."""
    by_table: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for file in list_files(spool):
        for row in read_rows(file.path):
            by_table[row.table].append({**row.context, **row.fields})
    connection = duckdb.connect()
    for name, table in TABLES.items():
        schema = pa.schema([(column.name, _ARROW[column.type]) for column in (*COMMON, *table.columns)])
        connection.register(name, pa.Table.from_pylist(by_table[name], schema=schema))

    def rows(sql: str) -> Sequence[dict[str, Any]]:
        try:
            return connection.sql(sql).to_arrow_table().to_pylist()
        except duckdb.Error as error:
            raise PhalanxError(str(error)) from error

    return rows
