"""The manifest: which parts make the store, and how far each source has been read. One value, written whole.

Rows and the positions they were read up to are in the same manifest, so that a row is in the store
exactly when its source's position is past it. Knows no files; `store` reads and writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phalanx.telemetry.errors import StoreDamaged

SCHEMA = 1
_HEAD, _MIDDLE, _END = b'{"sha256":"', b'","manifest":', b"}\n"


@dataclass(frozen=True)
class Part:
    """One immutable Parquet file; `file` is relative to the store. `damaged`: seen so, and never merged."""

    file: str
    rows: int
    bytes: int
    sha256: str
    damaged: bool = False


@dataclass(frozen=True)
class Position:
    """How far a source has been read: its last `seq`, and the `offset` in bytes in its file of that `number`.

    `corrupt`: lines after the last row that were no rows, not yet told as lost. `closed`: that row was its goodbye.
    """

    seq: int = 0
    number: int = 0
    offset: int = 0
    corrupt: int = 0
    closed: bool = False


@dataclass(frozen=True)
class Retired:
    """A part that was merged into another; its file is kept for readers of older manifests until it is old."""

    file: str
    time_ns: int


@dataclass(frozen=True)
class Manifest:
    """`version` counts commits. `epoch`: of the collector's lease that owns the store. `told`: rows of `losses`."""

    version: int = 0
    epoch: int = 0
    told: int = 0
    tables: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    sources: Mapping[str, Position] = field(default_factory=dict)
    retired: tuple[Retired, ...] = ()

    def files(self) -> set[str]:
        """Every file that must stay."""
        return {part.file for parts in self.tables.values() for part in parts} | {old.file for old in self.retired}


def encode(manifest: Manifest) -> bytes:
    """JSON, behind the SHA-256 of its bytes."""
    document = {
        "schema": SCHEMA,
        "version": manifest.version,
        "epoch": manifest.epoch,
        "told": manifest.told,
        "tables": {name: [vars(part) for part in parts] for name, parts in manifest.tables.items()},
        # A list and not an object: there is one for every process of every run.
        "sources": [
            [name, at.seq, at.number, at.offset, at.corrupt, at.closed] for name, at in manifest.sources.items()
        ],
        "retired": [vars(old) for old in manifest.retired],
    }
    body = json.dumps(document, separators=(",", ":")).encode()
    return _HEAD + hashlib.sha256(body).hexdigest().encode() + _MIDDLE + body + _END


def decode(data: bytes, where: str) -> Manifest:
    """Raises StoreDamaged for anything but what `encode` wrote."""
    body_at = len(_HEAD) + 64 + len(_MIDDLE)
    body = data[body_at : -len(_END)]
    digest = hashlib.sha256(body).hexdigest().encode()
    if data != _HEAD + digest + _MIDDLE + body + _END:
        raise StoreDamaged(
            "the store's manifest is cut or was altered",
            where=where,
            remedy="move that file away: the one before it is used then, without the newest rows. "
            "If there is none, move the store away and a new one is begun",
        )
    document = json.loads(body)
    if document["schema"] != SCHEMA:
        raise StoreDamaged(
            f"the store was written by another version of Phalanx (schema {document['schema']}, "
            f"this one knows {SCHEMA})",
            where=where,
            remedy="use that version, or another --home",
        )
    return _from(document)


def _from(document: dict[str, Any]) -> Manifest:
    return Manifest(
        version=document["version"],
        epoch=document["epoch"],
        told=document["told"],
        tables={name: tuple(Part(**part) for part in parts) for name, parts in document["tables"].items()},
        sources={name: Position(*at) for name, *at in document["sources"]},
        retired=tuple(Retired(**old) for old in document["retired"]),
    )
