"""From what a person names to the files a build reads, in a fixed order, and to pieces of work of even size.

Lists, and looks at no more than names, sizes and (in directories) the first bytes; a Parquet file's footer where it is
large. Knows nothing of documents.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from phalanx.data.build.options import BuildOptions
from phalanx.data.errors import SourceEmpty, SourceMissing, UnreadableText
from phalanx.data.source import looks_binary

Kind = Literal["text", "jsonl", "parquet"]
Codec = Literal["", "gz", "zst"]

PIECE_BYTES = 64 << 20
_CODECS: dict[str, Codec] = {".gz": "gz", ".zst": "zst", ".zstd": "zst"}
_KINDS: dict[str, Kind] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
_NAME_SOURCES = "name files, directories or globs that hold text, JSON lines or Parquet"


@dataclass(frozen=True)
class SourceFile:
    """`number`: its place in the order of reading; `name`: as a person finds it from where the build was started."""

    number: int
    name: str
    bytes: int
    mtime_ns: int
    kind: Kind
    codec: Codec

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True)
class Part:
    """Of a file: lines that begin at bytes `start` to `stop`, or row groups of Parquet; stop None: to its end."""

    source: SourceFile
    start: int = 0
    stop: int | None = None


def list_sources(options: BuildOptions) -> tuple[list[SourceFile], dict[str, tuple[int, int]]]:
    """Files in the order of the arguments, inside one in the order of names, each once; and what directories hold
    besides: reason -> (files, bytes). Raises SourceMissing for a name with nothing behind it, SourceEmpty for no text.
    """
    left_out: dict[str, tuple[int, int]] = {}
    files: list[SourceFile] = []
    seen: set[tuple[int, int]] = set()
    for argument in options.sources:
        for name in _named_by(argument, options.include, left_out):
            found = os.stat(name)
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            _check_name(name)
            kind, codec = _kind_of(name, options)
            files.append(SourceFile(len(files), name, found.st_size, found.st_mtime_ns, kind, codec))
    if not sum(file.bytes for file in files):
        held = ", ".join(f"{count:,} {reason}" for reason, (count, _) in sorted(left_out.items()))
        raise SourceEmpty(
            f"no text in {len(files):,} files" + (f" (left out: {held})" if held else ""),
            where=" ".join(options.sources),
            remedy=_NAME_SOURCES,
        )
    return files, left_out


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SourceMissing(
            "has a name that is not UTF-8, which a manifest cannot hold", where=repr(name), remedy="rename it"
        ) from error


def digest_of(files: Iterable[SourceFile]) -> str:
    """SHA-256 (hexadecimal) of names, sizes and times."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.to_json().encode() + b"\n")
    return digest.hexdigest()


def pieces(files: Iterable[SourceFile], options: BuildOptions, size: int = PIECE_BYTES) -> Iterator[list[Part]]:
    """Parts to be read one after the other by one process: small files together, large ones of lines or row groups in
    ranges of about `size` bytes. They depend on the files alone."""
    gathered: list[Part] = []
    total = 0
    for file in files:
        if file.bytes <= size or not _divisible(file, options):
            if gathered and total + file.bytes > size:
                yield gathered
                gathered, total = [], 0
            gathered.append(Part(file))
            total += file.bytes
            continue
        if gathered:
            yield gathered
            gathered, total = [], 0
        for start, stop in _row_groups(file, size) if file.kind == "parquet" else _byte_ranges(file, size):
            yield [Part(file, start, stop)]
    if gathered:
        yield gathered


def _divisible(file: SourceFile, options: BuildOptions) -> bool:
    """Compressed streams, and texts whose documents are longer than lines, are read from their beginning only."""
    return file.kind == "parquet" or (not file.codec and (file.kind == "jsonl" or options.cut == "lines"))


def _byte_ranges(file: SourceFile, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, file.bytes, size):
        yield start, min(start + size, file.bytes)


def _row_groups(file: SourceFile, size: int) -> Iterator[tuple[int, int]]:
    try:
        groups = pq.read_metadata(file.name).num_row_groups
    except (pa.ArrowException, OSError) as error:
        raise UnreadableText(
            f"is not a whole Parquet file ({error})", where=file.name, remedy="bring it whole, or leave it out"
        ) from error
    at_once = max(groups * size // file.bytes, 1)
    for start in range(0, groups, at_once):
        yield start, min(start + at_once, groups)


def _kind_of(name: str, options: BuildOptions) -> tuple[Kind, Codec]:
    path = Path(name)
    codec = _CODECS.get(path.suffix.lower(), "")
    if options.format != "auto":
        return options.format, "" if options.format == "parquet" else codec
    return _KINDS.get(Path(path.stem if codec else path.name).suffix.lower(), "text"), codec


def _named_by(argument: str, include: tuple[str, ...], left_out: dict[str, tuple[int, int]]) -> Iterator[str]:
    path = Path(argument).expanduser()
    if path.is_dir():
        yield from _walk(path, include, left_out)
    elif path.exists():
        if not path.is_file():
            raise SourceMissing("is neither a file nor a directory", where=argument, remedy=_NAME_SOURCES)
        yield str(path)
    else:
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise SourceMissing("there is no such file, and nothing that fits", where=argument, remedy=_NAME_SOURCES)
        for name in found:
            if os.path.isdir(name):
                yield from _walk(Path(name), include, left_out)
            elif os.path.isfile(name):
                yield name


def _walk(root: Path, include: tuple[str, ...], left_out: dict[str, tuple[int, int]]) -> Iterator[str]:
    """Regular files below `root` that are not hidden, not binary (unless their name says what they are) and fit."""

    def refuse(error: OSError) -> None:
        raise SourceMissing(
            f"cannot be read ({error.strerror})", where=str(error.filename), remedy="make it readable, or leave it out"
        ) from error

    def exclude(reason: str, path: Path) -> None:
        count, size = left_out.get(reason, (0, 0))
        left_out[reason] = (count + 1, size + path.lstat().st_size)

    visited: set[tuple[int, int]] = set()
    found: list[tuple[str, Path]] = []
    for directory, below, names in os.walk(root, onerror=refuse, followlinks=True):
        here = os.stat(directory)
        if (here.st_dev, here.st_ino) in visited:  # a loop of links
            below.clear()
            continue
        visited.add((here.st_dev, here.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in names:
            path = Path(directory, name)
            relative = path.relative_to(root).as_posix()
            if name.startswith("."):
                exclude("hidden files", path)
            elif not path.is_file():
                exclude("files that are none (links, pipes)", path)
            elif include and not any(fnmatch.fnmatch(relative, one) or fnmatch.fnmatch(name, one) for one in include):
                exclude("files that --include does not name", path)
            else:
                found.append((relative, path))
    for _, path in sorted(found):
        known = path.suffix.lower() in _CODECS or path.suffix.lower() in _KINDS
        try:
            binary = not known and looks_binary(path)
        except OSError as error:
            error.filename = str(path)
            refuse(error)
        if binary:
            exclude("binary files", path)
        else:
            yield str(path)
