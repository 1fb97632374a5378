"""The manifest of a checkpoint: what was trained, how far, and where each tensor lies, with checksums.

A tensor may lie in several pieces, so that sharded writers need no other format; today each has one.
Knows no torch: it can be read where torch is not installed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import Field, ValidationError

from phalanx.job import Plan
from phalanx.job.spec import Value
from phalanx.training.errors import CheckpointDamaged

SCHEMA = 1


class PieceEntry(Value):
    """A box of a tensor: `key` in safetensors `file`; its first element is at `offset` of the whole tensor."""

    file: str
    key: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    sha256: str = Field(description="Of the piece's bytes, row-major, little-endian.")


class TensorEntry(Value):
    dtype: str = Field(description="safetensors' name, such as F32.")
    global_shape: tuple[int, ...]
    pieces: tuple[PieceEntry, ...]


class Rng(Value):
    """Random numbers are a function, not a state: `rule` names it, `seed` is its argument that is not a position."""

    seed: int
    rule: str


class Manifest(Value):
    """`step`: optimizer steps done. `data_cursor`: where the next global batch begins: its number, from 0, or what a
    stream over datasets says (`data.Cursor`)."""

    schema_version: int = SCHEMA
    step: int = Field(ge=0)
    data_cursor: Annotated[int, Field(ge=0)] | dict[str, Any]
    rng: Rng
    model: dict[str, Any] = Field(description="Configuration from which `models` builds it.")
    plan: Plan
    tensors: dict[str, TensorEntry] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of the other files, by name.")


def encode(manifest: Manifest) -> bytes:
    """JSON of the manifest beside its own SHA-256, so that an altered manifest is known too."""
    body = manifest.model_dump(mode="json")
    return json.dumps({"sha256": _digest(body), "manifest": body}, indent=1).encode()


def decode(data: bytes, where: str) -> Manifest:
    """Raises CheckpointDamaged for anything that `encode` of this schema did not write."""
    try:
        document = json.loads(data)
        body, digest = document["manifest"], document["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointDamaged("the manifest is torn", where=where) from error
    if _digest(body) != digest:
        raise CheckpointDamaged("the manifest was altered after it was written", where=where)
    if body.get("schema_version") != SCHEMA:
        raise CheckpointDamaged(
            f"the manifest has schema {body.get('schema_version')}, this version reads {SCHEMA}",
            where=where,
            remedy="read it with the version of Phalanx that wrote it",
        )
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        raise CheckpointDamaged(f"the manifest is not valid: {error.errors()[0]['msg']}", where=where) from error


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
