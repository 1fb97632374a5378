"""The spool's format: files of JSON lines, one row a line, appended by one process and read by another.

A file is `<source>.<number>.jsonl`. A line that ends without a newline is still being written; a
complete line that is not a row was torn by a full disk or altered. Whoever reads keeps an offset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIX = ".jsonl"
READ_BYTES = 4 << 20


@dataclass(frozen=True)
class SpoolFile:
    path: Path
    source: str
    number: int


@dataclass(frozen=True)
class SpoolRow:
    """One row as it was emitted. `fields` has the table's own columns, `context` the common ones."""

    table: str
    fields: dict[str, Any]
    context: dict[str, Any]


@dataclass(frozen=True)
class SpoolChunk:
    """The complete lines of one file up to `offset`, in their order; None is a line that is no row."""

    lines: tuple[SpoolRow | None, ...]
    offset: int

    @property
    def rows(self) -> tuple[SpoolRow, ...]:
        return tuple(line for line in self.lines if line is not None)

    @property
    def corrupt(self) -> int:
        return self.lines.count(None)


def file_name(source: str, number: int) -> str:
    return f"{source}.{number:06d}{SUFFIX}"


def list_files(spool_dir: Path) -> list[SpoolFile]:
    """The spool's files, oldest first within each source, and none missing before one that is there.

    A directory that changes while it is read may show a source's newest file and not the one before it; those are
    asked for by name, because who reads a source in order takes what is not here for gone.
    """
    found: dict[str, set[int]] = {}
    for path in spool_dir.glob(f"*{SUFFIX}"):
        source, _, number = path.name.removesuffix(SUFFIX).rpartition(".")
        if source and number.isdecimal():
            found.setdefault(source, set()).add(int(number))
    files = []
    for source, seen in sorted(found.items()):
        inside = {number for number in range(min(seen), max(seen)) if number not in seen}
        seen |= {number for number in inside if (spool_dir / file_name(source, number)).exists()}
        before = min(seen) - 1
        while before >= 0 and (spool_dir / file_name(source, before)).exists():
            seen.add(before)
            before -= 1
        files += [SpoolFile(spool_dir / file_name(source, number), source, number) for number in sorted(seen)]
    return files


def encode(table: str, fields: dict[str, Any], context: dict[str, Any]) -> bytes:
    """One line. NaN and infinities are written as JSON's common extension and read back."""
    return json.dumps({"table": table, **context, "row": fields}, separators=(",", ":")).encode() + b"\n"


def read_chunk(path: Path, offset: int, limit: int = READ_BYTES) -> SpoolChunk:
    """Complete lines from `offset` on, about `limit` bytes of them. Raises FileNotFoundError."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(limit)
        if len(data) == limit:
            data += file.readline()
    end = data.rfind(b"\n") + 1
    lines = tuple(_decode(line) for line in data[:end].split(b"\n") if line.strip())
    return SpoolChunk(lines, offset + end)


def read_rows(path: Path) -> Iterator[SpoolRow]:
    """All whole rows of a file."""
    offset = 0
    while True:
        chunk = read_chunk(path, offset)
        if chunk.offset == offset:
            return
        yield from chunk.rows
        offset = chunk.offset


def _decode(line: bytes) -> SpoolRow | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    table, fields = document.pop("table", None), document.pop("row", None)
    seq, source = document.get("seq"), document.get("source")
    if isinstance(table, str) and isinstance(fields, dict) and isinstance(seq, int) and isinstance(source, str):
        return SpoolRow(table, fields, document)
    return None
