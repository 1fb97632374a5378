"""Tables in files (CSV, TSV, Parquet, JSONL), in batches and never whole; of several readers each takes its turns.

What another reader takes is not decoded: Parquet is shared by row groups, lines by blocks of them. Only CSV with
quotes, where a line may hold a part of a row, is decoded by every reader.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from phalanx.evaluation.errors import UnusablePredictions

BLOCK_BYTES = 1 << 22
ROWS = 1 << 17  # of a batch of Parquet
MANY_COLUMNS = 20  # named in a message
MOST_WORDS = 300  # letters of Arrow's own message, which quotes the file
FORMATS = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}


class Turns:
    """Of what comes one after the other each of `parts` readers takes every `parts`th, this one beginning with `part`.

    One for all files, so that many small ones are shared too.
    """

    def __init__(self, part: int, parts: int) -> None:
        self.parts = parts
        self._next = -part

    def take(self) -> bool:
        """Whether the next is for this reader."""
        mine = self._next % self.parts == 0
        self._next += 1
        return mine


def column_names(file: Path) -> list[str]:
    """Raises UnusablePredictions for what is no such file."""
    kind = _kind(file)
    try:
        names = list(_schema(file, kind).names)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, kind, error) from None
    if len(set(names)) != len(names):
        raise UnusablePredictions(f"two columns have one name: {listed(names)}", where=str(file), remedy="rename one")
    return names


def read(
    file: Path, names: Sequence[str], numbers: Collection[str], turns: Turns
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches of the columns `names`, each with the number of its first row, from 0. `numbers`: columns whose values
    are floats, whatever those at the beginning of a text look like. Raises UnusablePredictions."""
    kind = _kind(file)
    try:
        if kind == "parquet":
            yield from _parquet(file, names, turns)
            return
        schema = _schema(file, kind)
        types = {name: pa.float64() if name in numbers else _type(schema.field(name)) for name in names}
        if turns.parts > 1 and (kind == "jsonl" or not _has_quotes(file)):
            yield from _blocks(file, kind, list(schema.names), types, turns)
        else:
            yield from _stream(file, kind, types, turns)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, kind, error) from None


def rows_of(file: Path) -> float:
    """Of Parquet exactly; of text as if all rows were as long as those at the beginning."""
    if _kind(file) == "parquet":
        return float(pa.parquet.read_metadata(file).num_rows)
    with file.open("rb") as opened:
        beginning = opened.read(BLOCK_BYTES)
    return file.stat().st_size / len(beginning) * max(beginning.count(b"\n"), 1)


def listed(names: Sequence[str]) -> str:
    """For a message."""
    more = f" and {len(names) - MANY_COLUMNS} more" if len(names) > MANY_COLUMNS else ""
    return ", ".join(map(repr, names[:MANY_COLUMNS])) + more


def _parquet(file: Path, names: Sequence[str], turns: Turns) -> Iterator[tuple[int, pa.RecordBatch]]:
    row = 0
    with pa.parquet.ParquetFile(file) as opened:
        for group in range(opened.num_row_groups):
            at = row
            row += opened.metadata.row_group(group).num_rows
            if turns.take():
                for batch in opened.iter_batches(ROWS, row_groups=[group], columns=list(names)):
                    yield at, batch
                    at += batch.num_rows


def _stream(file: Path, kind: str, types: dict[str, Any], turns: Turns) -> Iterator[tuple[int, pa.RecordBatch]]:
    row = 0
    with _opened(file, kind, types) as reader:
        for batch in reader:
            if turns.take():
                yield row, batch
            row += batch.num_rows


def _opened(file: Path, kind: str, types: dict[str, Any]) -> Any:
    if kind == "jsonl":
        return pa.json.open_json(file, _json_read(BLOCK_BYTES), _json_parse(types))
    return pa.csv.open_csv(file, _csv_read(BLOCK_BYTES), _csv_parse(kind), _csv_convert(types))


def _blocks(
    file: Path, kind: str, heads: list[str], types: dict[str, Any], turns: Turns
) -> Iterator[tuple[int, pa.RecordBatch]]:
    row = 0
    with file.open("rb") as opened:
        while kind != "jsonl" and not opened.readline().strip(b"\r\n"):
            pass  # the line of heads comes after empty ones
        while block := opened.read(BLOCK_BYTES):
            block += opened.readline()
            if not turns.take():
                row += _rows_in(block)
                continue
            if kind == "jsonl":
                table = pa.json.read_json(pa.BufferReader(block), _json_read(len(block)), _json_parse(types))
            else:
                options = _csv_read(len(block), heads), _csv_parse(kind), _csv_convert(types)
                table = pa.csv.read_csv(pa.BufferReader(block), *options)
            for batch in table.to_batches():
                yield row, batch
                row += batch.num_rows


def _rows_in(block: bytes) -> int:
    """Lines that are not empty: a table has no rows for the others."""
    ends = block.count(b"\n") + (not block.endswith(b"\n"))
    if b"\n\n" not in block and b"\n\r\n" not in block and block[:1] not in b"\r\n":
        return ends
    return sum(1 for line in block.split(b"\n") if line.strip(b"\r"))


def _has_quotes(file: Path) -> bool:
    with file.open("rb") as opened:
        return any(b'"' in block for block in iter(lambda: opened.read(BLOCK_BYTES), b""))


def _schema(file: Path, kind: str) -> pa.Schema:
    """As the beginning has it."""
    if kind == "parquet":
        with pa.parquet.ParquetFile(file) as opened:
            return opened.schema_arrow
    if kind == "jsonl":
        with pa.json.open_json(file, _json_read(BLOCK_BYTES)) as reader:
            return reader.schema
    with pa.csv.open_csv(file, _csv_read(BLOCK_BYTES), _csv_parse(kind)) as reader:
        return reader.schema


def _type(field: Any) -> Any:
    """Of a column that is empty at the beginning nothing is known: words fit all."""
    return pa.string() if pa.types.is_null(field.type) else field.type


def _csv_read(block_bytes: int, heads: list[str] | None = None) -> Any:
    return pa.csv.ReadOptions(block_size=block_bytes, use_threads=False, column_names=heads)


def _csv_parse(kind: str) -> Any:
    return pa.csv.ParseOptions(delimiter="\t" if kind == "tsv" else ",", newlines_in_values=True)


def _csv_convert(types: dict[str, Any]) -> Any:
    return pa.csv.ConvertOptions(include_columns=list(types), column_types=types)


def _json_read(block_bytes: int) -> Any:
    return pa.json.ReadOptions(block_size=block_bytes, use_threads=False)


def _json_parse(types: dict[str, Any]) -> Any:
    return pa.json.ParseOptions(
        explicit_schema=pa.schema(list(types.items())),
        unexpected_field_behavior="ignore",
    )


def _kind(file: Path) -> str:
    if not file.is_file():
        raise UnusablePredictions(
            "is a directory" if file.is_dir() else "there is no such file",
            where=str(file),
            remedy="name a file of predictions",
        )
    if file.suffix.lower() not in FORMATS:
        raise UnusablePredictions(
            f"is of no known kind ({file.suffix or 'no ending'})", where=str(file), remedy=f"give {', '.join(FORMATS)}"
        )
    if not file.stat().st_size:
        raise UnusablePredictions("is empty", where=str(file), remedy="write the predictions again")
    return FORMATS[file.suffix.lower()]


def _unreadable(file: Path, kind: str, error: Exception) -> UnusablePredictions:
    words = " ".join(str(error).split())
    words = words if len(words) <= MOST_WORDS else f"{words[:MOST_WORDS]} ..."
    return UnusablePredictions(
        f"cannot be read as {kind.upper()}: {words}", where=str(file), remedy="write it again, whole"
    )
