"""`phalanx events`: what happened, asked in SQL, during a run or after it."""

from __future__ import annotations

import csv
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from phalanx.cli._options import echo_json, home_option, json_option
from phalanx.foundation import Home, PhalanxError, UsageError, nearest

if TYPE_CHECKING:
    from phalanx.events import Column, Table
    from phalanx.telemetry import Answer, Reader

LIMIT = 1000


@click.group()
def command() -> None:
    """Query what happened, during a run or after it.

    \b
    Examples:
      phalanx events tables                  list the tables
      phalanx events tables steps            the columns of one, with their units
      phalanx events sql "SELECT step, loss FROM steps WHERE rank = 0 ORDER BY step DESC LIMIT 5"
    """


@command.command()
@click.argument("table", required=False)
@home_option
@json_option
def tables(table: str | None, home: Home, as_json: bool) -> None:
    """List the tables of events, or the columns of TABLE.

    \b
    Examples:
      phalanx events tables
      phalanx events tables steps
      phalanx events tables --json
    """
    from phalanx.events import COMMON, TABLES

    if table is not None and table not in TABLES:
        near = nearest(table, TABLES)
        remedy = f"did you mean {near}? " if near else ""
        raise UsageError(f"there is no table {table}", remedy=remedy + "`phalanx events tables` lists them")
    reader = _open(home)
    counts = reader.counts()
    _warn(reader)
    chosen = [TABLES[table]] if table is not None else list(TABLES.values())
    if as_json:
        described = [_described(one, counts[one.name], COMMON) for one in chosen]
        echo_json(described[0] if table is not None else described)
    elif table is None:
        _echo_table(("table", "rows", "what"), [(one.name, counts[one.name], one.doc) for one in chosen])
        if not any(counts.values()):
            click.echo(f"\nThere are no events in {home.root} yet: `phalanx run` writes them.", err=True)
    else:
        click.echo(f"{chosen[0].name}: {chosen[0].doc}; rows: {counts[table]:,}\n")
        columns = (*chosen[0].columns, *COMMON)
        _echo_table(("column", "type", "unit", "what"), [(one.name, one.type, one.unit, one.doc) for one in columns])


@command.command()
@click.argument("query")
@home_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, with a header.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=LIMIT,
    show_default=True,
    help="Print at most so many rows; 0: all.",
)
def sql(query: str, home: Home, as_json: bool, as_csv: bool, limit: int) -> None:
    """Answer QUERY, one SELECT in DuckDB's dialect of SQL.

    Events of a run that is going on are there half a second after they happened. A query can neither change the
    store nor read other files.

    \b
    Examples:
      phalanx events sql "SELECT step, loss, tokens_per_second FROM steps WHERE rank = 0 ORDER BY step"
      phalanx events sql "SELECT rank, avg(communication_s / step_s) AS waiting FROM steps GROUP BY rank"
      phalanx events sql "SELECT * FROM workers WHERE event = 'exited' ORDER BY time_ns" --json
      phalanx events sql "SELECT * FROM steps" --csv --limit 0 > steps.csv
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other.")
    reader = _open(home)
    answer = reader.query(query, limit or None)
    _warn(reader)
    if as_json:
        echo_json([dict(zip(answer.columns, map(_json_value, row), strict=True)) for row in answer.rows])
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.columns)
        writer.writerows(answer.rows)
    else:
        _echo_answer(answer)
    if answer.is_cut:
        click.echo(f"Only the first {limit:,} rows are shown; `--limit 0` shows all.", err=True)


def _open(home: Home) -> Reader:
    """A reader of the home's store, after what killed runs left in the spool was collected."""
    from phalanx.daemons.collector import collect_if_idle
    from phalanx.telemetry import Reader

    try:
        collect_if_idle(home)
    except PhalanxError as error:
        click.echo(f"phalanx: the newest events are missing: {error}", err=True)
    return Reader(home.store_dir)


def _warn(reader: Reader) -> None:
    for part in reader.damaged:
        click.echo(f"phalanx: {part}", err=True)


def _described(table: Table, rows: int, common: Iterable[Column]) -> dict[str, Any]:
    columns = [
        {"name": column.name, "type": column.type, "unit": column.unit, "doc": column.doc}
        for column in (*common, *table.columns)
    ]
    return {"name": table.name, "doc": table.doc, "rows": rows, "columns": columns}


def _json_value(value: Any) -> Any:
    """JSON has no NaN and no infinities; written as strings, as protobuf's JSON mapping does."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    return value


def _echo_answer(answer: Answer) -> None:
    """A table, or where a terminal is too narrow for it, a block of lines for each row."""
    width = sum(_widths(answer.columns, answer.rows)) + 2 * len(answer.columns)
    if not _is_terminal() or width <= shutil.get_terminal_size().columns:
        _echo_table(answer.columns, answer.rows)
        return
    longest = max(map(len, answer.columns))
    for number, row in enumerate(answer.rows, 1):
        click.echo(f"-- row {number}")
        for name, value in zip(answer.columns, row, strict=True):
            click.echo(f"{name:<{longest}}  {_cell(value)}")


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _echo_table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as their widest cell, numbers to the right."""
    widths = _widths(heads, rows)
    right = [
        any(row[place] is not None for row in rows) and all(isinstance(row[place], int | float | None) for row in rows)
        for place in range(len(heads))
    ]

    def line(cells: Iterable[str]) -> str:
        aligned = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        )
        return "  ".join(aligned).rstrip()

    click.echo(line(heads))
    click.echo(line("-" * width for width in widths))
    for row in rows:
        click.echo(line(map(_cell, row)))


def _widths(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[int]:
    return [max([len(head), *(len(_cell(row[place])) for row in rows)]) for place, head in enumerate(heads)]


def _cell(value: Any) -> str:
    """One line without control characters, which could move a terminal's cursor."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(value))
