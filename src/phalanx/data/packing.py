"""Rows of a fixed length out of documents of any length.

`Windows` (causal): cuts the endless circle of all tokens every T; a row crosses documents, with
their end marks between. `PackedRows` (masked): whole documents, or the pieces of a long one,
put side by side in a row so that little of it stays empty. Knows nothing of batches or masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data.corpus import Split

_SHORTEST_PIECE = 3


class Windows:
    """Windows of T + 1 tokens, T apart. The circle is entered `shift` tokens after its start."""

    def __init__(self, split: Split, sequence_length: int) -> None:
        self._tokens, self._offsets = split.tokens, split.offsets
        self._length = sequence_length

    def __len__(self) -> int:
        """Windows an epoch: each token is the target of at most one."""
        return len(self._tokens) // self._length

    def row(self, index: int, shift: int = 0) -> NDArray[np.int64]:
        """int64 [T + 1]: window `index`; its last token is the first of the next one."""
        total = len(self._tokens)
        start = (shift + index * self._length) % total
        row = np.asarray(self._tokens[start : start + self._length + 1])
        while len(row) < self._length + 1:
            row = np.concatenate([row, self._tokens[: self._length + 1 - len(row)]])
        return row.astype(np.int64)

    def documents(self, index: int, shift: int = 0) -> NDArray[np.int32]:
        """int32 [T + 1]: the document of each token of the window, counted from 1 in it."""
        places = (shift + index * self._length + np.arange(self._length + 1)) % len(self._tokens)
        owners = np.searchsorted(self._offsets, places, side="right")
        begins = (np.diff(owners) != 0) | (np.diff(places) < 0)
        return np.cumsum(np.concatenate([[1], begins])).astype(np.int32)


class PackedRows:
    """Rows `[CLS] piece [SEP] [CLS] piece [SEP] ...` of at most T tokens.

    A document longer than T - 2 is cut into pieces of T - 2; pieces are packed best fit, longest
    first (Johnson 1974: never more than 11/9 of the fewest rows, and here within a percent of it).
    """

    def __init__(
        self, split: Split, sequence_length: int, cls_id: int, sep_id: int, unknown_id: int | None = None
    ) -> None:
        self._tokens = split.tokens
        self._length = sequence_length
        self._cls, self._sep = cls_id, sep_id
        self._starts, self._sizes = _pieces(split.offsets, sequence_length - 2)
        self._pieces, self._bounds = pack(self._sizes + 2, sequence_length)
        unknown = np.flatnonzero(split.tokens == unknown_id) if unknown_id is not None else np.empty(0, np.int64)
        before, until = np.searchsorted(unknown, [self._starts, self._starts + self._sizes])
        self._known = self._sizes - (until - before)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def ordinary(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [n]: how many tokens of each row are neither special nor unknown."""
        return np.array([self._known[self._of(row)].sum() for row in rows], np.int64)

    def row(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Tokens int64 [n] (n at most T) and the document of each, int32 [n], counted from 1 in this row."""
        parts: list[NDArray[Any]] = []
        documents: list[NDArray[np.int32]] = []
        for place, piece in enumerate(self._of(index), start=1):
            start, size = int(self._starts[piece]), int(self._sizes[piece])
            parts += [np.array([self._cls]), np.asarray(self._tokens[start : start + size]), np.array([self._sep])]
            documents.append(np.full(size + 2, place, np.int32))
        return np.concatenate(parts).astype(np.int64), np.concatenate(documents)

    def _of(self, row: int) -> NDArray[np.int64]:
        return self._pieces[self._bounds[row] : self._bounds[row + 1]]


def _pieces(offsets: NDArray[np.int64], longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and size of each piece; a remainder too short to learn from is left out unless it is a whole document."""
    sizes = np.diff(offsets)
    counts = -(-sizes // longest)
    document = np.repeat(np.arange(len(sizes)), counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = offsets[document] + place * longest
    lengths = np.minimum(longest, offsets[document + 1] - starts)
    keep = (lengths >= _SHORTEST_PIECE) | ((place == 0) & (lengths > 0))
    return starts[keep], lengths[keep]


def pack(sizes: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Best fit, longest first: pieces in order of their rows int64 [n], and each row's bounds in that order [rows + 1].

    `sizes` int64 [n], none above `capacity`.

    `open_rows[room]` are rows with that much room; the bits of `rooms` say which rooms exist, so
    that the least sufficient one is found by arithmetic instead of a search.
    """
    order = np.argsort(-sizes, kind="stable")
    row_of = np.empty(len(sizes), np.int64)
    open_rows: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    rows = 0
    for piece in order.tolist():
        size = int(sizes[piece])
        fitting = rooms >> size
        if fitting:
            room = size + ((fitting & -fitting).bit_length() - 1)
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms &= ~(1 << room)
        else:
            room, row = capacity, rows
            rows += 1
        row_of[piece] = row
        open_rows[room - size].append(row)
        rooms |= 1 << (room - size)
    by_row = np.argsort(row_of, kind="stable")
    return by_row, np.searchsorted(row_of[by_row], np.arange(rows + 1))
