"""Spools made by hand or by emitters, and what the store says of them afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from phalanx.events import Context, Emitter
from phalanx.events.spool import encode, file_name
from phalanx.telemetry import Collector, Reader, Round, Store

SOURCE = "1700000000000000000-77-abcd"


def context(**changes: Any) -> Context:
    return Context(**({"host": "here", "namespace": "n", "job_uid": "uid", "attempt": 1} | changes))


def emitter(home: Path, **options: Any) -> Emitter:
    return Emitter(home / "spool", context(program="test"), **options)


def line(seq: int, source: str = SOURCE, table: str = "steps", **fields: Any) -> bytes:
    about = {"source": source, "seq": seq, "time_ns": seq * 10, "host": "here", "namespace": "n", "job_uid": "uid"}
    return encode(table, fields or {"step": seq}, about | {"attempt": 1, "generation": 1, "rank": 0})


def spool(home: Path, *lines: bytes, number: int = 1, source: str = SOURCE) -> Path:
    """A spool file as a process that is gone has left it."""
    path = home / "spool" / file_name(source, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


def collect(home: Path, epoch: int = 1, keep_spool_s: float = 0.0) -> Round:
    return Collector(home / "spool", Store(home / "store"), epoch, keep_spool_s=keep_spool_s).collect_once()


def ask(home: Path, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in Reader(home / "store").rows(sql)]


def rows(home: Path, table: str) -> list[dict[str, Any]]:
    """By source and seq, read without the reader."""
    store = Store(home / "store")
    parts = [store.path(part.file) for part in store.read().tables.get(table, ())]
    found = [row for part in parts for row in pq.read_table(part, partitioning=None, use_threads=False).to_pylist()]
    return sorted(found, key=lambda row: (row["source"], row["seq"]))


def steps(home: Path) -> list[int]:
    return [row["step"] for row in rows(home, "steps")]


def losses(home: Path) -> list[tuple[Any, ...]]:
    return [(row["first_seq"], row["last_seq"], row["rows"], row["reason"]) for row in rows(home, "losses")]


def files(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def assert_tidy(home: Path) -> None:
    """Every file of the store is one that the newest manifest needs, and no copy of a row is there."""
    store = Store(home / "store")
    parts = {file for file in files(home / "store") if not file.startswith("manifest-")}
    assert parts == store.read().files()
    for table in ("steps", "losses", "sources"):
        keys = [(row["source"], row["seq"]) for row in rows(home, table)]
        assert len(keys) == len(set(keys))


def emit_steps(sink: Emitter, numbers: Iterable[int]) -> None:
    for number in numbers:
        sink.emit("steps", {"step": number})
