"""Stage `read`: the documents of a piece, filtered, each with the digest of its normalized text.

Leaves the texts, and runs of (digest, document) for finding equal ones. Knows nothing of other pieces.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.data.build.external_sort import RunWriter
from phalanx.data.build.filters import reason_to_leave_out
from phalanx.data.build.listing import Part, SourceFile
from phalanx.data.build.options import BuildOptions
from phalanx.data.build.reading import read_part
from phalanx.data.build.texts import TextWriter, document_number, piece_path
from phalanx.data.build.work import Result, Work
from phalanx.data.errors import DataChanged, SourceMissing
from phalanx.foundation import sha256_file

Report = Callable[[int], None]
"""Called with the bytes done since the last call."""

EXAMPLES = 5
_DIGESTS_AT_ONCE = 1 << 14


class Excluded:
    """What was left out: reason -> documents, bytes and the names of the first few."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, int]] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, size: int, name: str) -> None:
        documents, total = self.found.get(reason, (0, 0))
        self.found[reason] = (documents + 1, total + size)
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(name)

    def to_json(self) -> dict[str, Any]:
        return {"excluded": self.found, "examples": self.examples}


def digest_of(text: str) -> tuple[int, int]:
    """128 bits of BLAKE2b over the text in Unicode's composed form (NFC) with each run of white space as one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def name_of(source: str, place: int, part: int) -> str:
    """A document's name for people: its file, the byte or row where it begins, and which part of a cut text it is."""
    return f"{source}@{place}" + (f"/{part}" if part else "")


def read(work: Work, options: BuildOptions, number: int, task: dict[str, Any], report: Report) -> Result:
    """Piece `number`, whose `parts` the task holds. Raises UnreadableText, SourceMissing, DataChanged, StorageError."""
    excluded = Excluded()
    digests: list[tuple[int, int, int]] = []
    hashes: dict[int, str] = {}
    counts = {"documents": 0, "bytes": 0, "cut": 0, "parts": 0}
    runs = RunWriter(work.sort / f"exact-{number:06d}", 3, options.sort_memory)
    with TextWriter(piece_path(work.texts, number)) as writer:
        for source_values, start, stop in task["parts"]:
            part = Part(SourceFile(**source_values), start, stop)
            source = part.source
            check_unchanged(source)
            if start == 0:
                hashes[source.number] = _hash(source)

            def skip(reason: str, size: int, source: SourceFile = source) -> None:
                excluded.add(reason, size, source.name)

            number_of_part, reported, unpacked = 0, 0, 0
            whole = source.bytes if stop is None else stop - start if source.kind != "parquet" else 0
            for place, data, goes_on in read_part(part, options, skip if options.skip_bad else None):
                text = data.decode()
                counts["documents"] += 1
                counts["bytes"] += len(data)
                if goes_on or number_of_part:
                    counts["parts"] += 1
                    counts["cut"] += number_of_part == 0
                reason = reason_to_leave_out(text, options.filters)
                if reason is None:
                    digest = digest_of(text)
                    digests.append((*digest, document_number(number, writer.documents)))
                    writer.add(data, digest, source.number, place, number_of_part)
                else:
                    excluded.add(reason, len(data), name_of(source.name, place, number_of_part))
                if len(digests) >= _DIGESTS_AT_ONCE:
                    runs.add(np.array(digests, np.uint64))
                    digests = []
                number_of_part = number_of_part + 1 if goes_on else 0
                unpacked += len(data)
                if unpacked > 1 << 20:  # of packed files nobody knows how far it is: never more than the whole
                    step = min(unpacked, max(whole - reported, 0))
                    report(step)
                    reported, unpacked = reported + step, 0
            report(max(whole - reported, 0))
            check_unchanged(source)
        writer.close()
    if digests:
        runs.add(np.array(digests, np.uint64))
    sorted_runs = runs.close() if options.exact else []
    return excluded.to_json() | {
        "kept": writer.documents,
        "counts": counts,
        "hashes": hashes,
        "runs": [path.name for path in sorted_runs],
    }


def check_unchanged(source: SourceFile) -> None:
    """Raises DataChanged when size or time of the file are no longer those of the plan, SourceMissing without it."""
    try:
        now = os.stat(source.name)
    except OSError as error:
        raise SourceMissing(
            f"is no longer there ({error.strerror})", where=source.name, remedy="bring it back, then run this again"
        ) from error
    if (now.st_size, now.st_mtime_ns) != (source.bytes, source.mtime_ns):
        raise DataChanged(
            f"changed since the build began: {source.bytes:,} bytes then, {now.st_size:,} now",
            where=source.name,
            remedy="bring it back as it was, or build from the beginning with --restart",
        )


def _hash(source: SourceFile) -> str:
    try:
        return sha256_file(Path(source.name))
    except OSError as error:
        raise SourceMissing(
            f"cannot be read ({error.strerror})", where=source.name, remedy="make it readable, or leave it out"
        ) from error
