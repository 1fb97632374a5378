"""Matrices of weights as pictures: a pixel a cell, in a PNG that the page holds in itself, with the tokens beside it.

A cell's ink is the square root of its weight, so that small ones are seen: the alpha of the pixel is 255 times that.
A page with a hundred of them needs no script to show them, and one of 50 x 50 takes about 3 KB.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_INK = (47, 95, 208)  # the first tone of the style sheet, which can be seen on light and dark
_CELL = 18
_LETTER = 7.2  # width of a character of the labels
_LONGEST = 22  # characters of a label; more are cut


@dataclass(frozen=True)
class Label:
    """`at`: the middle of its row or column; `token` whole, `text` as it is written."""

    at: float
    token: str
    text: str


@dataclass(frozen=True)
class HeatMap:
    """`weights` [rows, columns], each from 0 to 1. Sizes are in units of the picture's own."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    weights: NDArray[np.float32]

    @property
    def uri(self) -> str:
        return picture(self.weights)

    @property
    def left(self) -> float:
        return 12 + _LETTER * max(map(len, map(_cut, self.rows)), default=0)

    @property
    def top(self) -> float:
        return 12 + _LETTER * max(map(len, map(_cut, self.columns)), default=0)

    @property
    def width(self) -> float:
        return _CELL * len(self.columns)

    @property
    def height(self) -> float:
        return _CELL * len(self.rows)

    @property
    def row_labels(self) -> list[Label]:
        return _labels(self.rows)

    @property
    def column_labels(self) -> list[Label]:
        return _labels(self.columns)


def picture(weights: NDArray[np.float32]) -> str:
    """A `data:` address of the PNG (RFC 2083: 8 bits each of red, green, blue and alpha, no filter)."""
    rows, columns = weights.shape
    pixels = np.empty((rows, columns, 4), np.uint8)
    pixels[..., :3] = _INK
    pixels[..., 3] = np.round(255 * np.sqrt(np.clip(weights, 0, 1)))
    lines = np.insert(pixels.reshape(rows, -1), 0, 0, axis=1)  # each begins with the number of its filter
    header = struct.pack(">IIBBBBB", columns, rows, 8, 6, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _labels(tokens: tuple[str, ...]) -> list[Label]:
    return [Label(_CELL * (place + 0.5), token, _cut(token)) for place, token in enumerate(tokens)]


def _cut(token: str) -> str:
    return token if len(token) <= _LONGEST else token[: _LONGEST - 1] + "…"
