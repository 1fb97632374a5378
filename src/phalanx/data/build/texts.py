"""The texts of a piece on disk, packed in blocks, with a fixed-size record each: read often, in any order.

    <piece>.text      zstd blocks of about 256 KiB of UTF-8
    <piece>.blocks    where each begins, and its size unpacked: int64 [blocks, 2]
    <piece>.records   RECORD [documents]

A document's number is its piece's number times 2^32 plus its row, so numbers ascend in the order of the sources.
Knows nothing of what the texts are for.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phalanx.foundation import sync_directory, writing

RECORD = np.dtype(
    [
        ("digest", "<u8", 2),  # of the normalized text
        ("place", "<u8"),  # in its source: a byte or a row
        ("source", "<u4"),
        ("part", "<u4"),  # of a text that was cut, from 0
        ("block", "<u4"),
        ("start", "<u4"),  # in the block
        ("bytes", "<u4"),
    ]
)
ROW_BITS = 32
_BLOCK_BYTES = 256 << 10
_LEVEL = 1
_CACHED_BYTES = 1 << 20


def document_number(piece: int, row: int) -> int:
    return piece << ROW_BITS | row


def piece_and_row(document: int) -> tuple[int, int]:
    return document >> ROW_BITS, document & ((1 << ROW_BITS) - 1)


def piece_path(directory: Path, number: int) -> Path:
    """Stem of the files of a piece."""
    return directory / f"{number:06d}"


class TextWriter:
    """Writes a piece, a context manager; whole and durable after `close`, without it unfinished files are left.

    Raises StorageError (DiskFull).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._codec = pa.Codec("zstd", _LEVEL)
        with writing(path):
            self._files = {kind: path.with_suffix(f".{kind}").open("wb") for kind in ("text", "blocks", "records")}
        self._texts: list[bytes] = []
        self._rows: list[tuple[tuple[int, int], int, int, int, int, int, int]] = []
        self._size = self._block = 0
        self.documents = 0

    def __enter__(self) -> TextWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def add(self, text: bytes, digest: tuple[int, int], source: int, place: int, part: int) -> None:
        if self._size and self._size + len(text) > _BLOCK_BYTES:
            self._flush()
        self._rows.append((digest, place, source, part, self._block, self._size, len(text)))
        self._texts.append(text)
        self._size += len(text)
        self.documents += 1

    def close(self) -> None:
        self._flush()
        with writing(self._path):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            sync_directory(self._path.parent)

    def _flush(self) -> None:
        if not self._texts:
            return
        with writing(self._path):
            text = self._files["text"]
            self._files["blocks"].write(np.array([text.tell(), self._size], "<i8").tobytes())
            text.write(self._codec.compress(b"".join(self._texts), asbytes=True))
            self._files["records"].write(np.array(self._rows, RECORD).tobytes())
        self._texts, self._rows = [], []
        self._size = 0
        self._block += 1


class TextReader:
    """The texts of a finished piece. `records`: RECORD [documents], mapped."""

    def __init__(self, path: Path) -> None:
        self._file = path.with_suffix(".text").open("rb")
        self._blocks = np.fromfile(path.with_suffix(".blocks"), "<i8").reshape(-1, 2)
        records = path.with_suffix(".records")
        self.records: NDArray[Any] = np.memmap(records, RECORD, "r") if records.stat().st_size else np.empty(0, RECORD)
        self._codec = pa.Codec("zstd")
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._cached = 0

    def close(self) -> None:
        self._file.close()

    def text(self, row: int) -> bytes:
        """Of one document; the blocks read last are kept."""
        record = self.records[row]
        start = int(record["start"])
        return self._block(int(record["block"]))[start : start + int(record["bytes"])]

    def in_blocks(self, kept: NDArray[np.bool_], first: int = 0) -> Iterator[tuple[NDArray[np.int64], list[bytes]]]:
        """(rows int64 [n], their texts) block by block, of rows `first` + i where `kept[i]`."""
        step = 1 << 16
        for begin in range(0, len(kept), step):
            rows = first + begin + np.flatnonzero(kept[begin : begin + step])
            if not len(rows):
                continue
            records = self.records[rows[0] : rows[-1] + 1][rows - rows[0]]
            cuts = np.flatnonzero(np.diff(records["block"])) + 1
            for mine, those in zip(np.split(rows, cuts), np.split(records, cuts), strict=True):
                block = self._block(int(those["block"][0]))
                starts, sizes = those["start"].tolist(), those["bytes"].tolist()
                yield mine, [block[start : start + size] for start, size in zip(starts, sizes, strict=True)]

    def _block(self, number: int) -> bytes:
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        start, size = self._blocks[number].tolist()
        end = int(self._blocks[number + 1, 0]) if number + 1 < len(self._blocks) else None
        self._file.seek(start)
        packed = self._file.read() if end is None else self._file.read(end - start)
        block: bytes = self._codec.decompress(packed, size, asbytes=True)
        self._cache[number] = block
        self._cached += size
        while self._cached > _CACHED_BYTES and len(self._cache) > 1:
            self._cached -= len(self._cache.popitem(last=False)[1])
        return block
