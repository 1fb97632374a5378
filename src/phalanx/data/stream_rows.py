"""Rows cut from the one sequence of documents, a global batch at a time; tokens are read for one's own rows only.

    causal   documents one after the other, an end mark after each, cut every T tokens: a row is T + 1 tokens, and the
             next one begins with its last
    masked   documents cut into pieces of T - 2 tokens, `[CLS] piece [SEP]`, packed best fit within each group of
             PIECES successive ones, whose rows then come in an order of their own

Every token of every document is in just one place. Where the rows go on is a position: a few numbers. Knows nothing of
ranks: it is told which rows of the batch are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from phalanx.data import draws
from phalanx.data.batches import NO_DOCUMENTS, NO_IDS, Batch, LoaderSpec, Row, collate_causal, collate_masked
from phalanx.data.dataset import Documents
from phalanx.data.masking import mask_count, mask_rows
from phalanx.data.packing import pack
from phalanx.data.stream_order import DocumentOrder
from phalanx.data.vocabulary import Vocabulary

PIECES = 4096
LEAST_PIECE = 3  # a shorter rest of a long document takes tokens from the piece before it
Ints = NDArray[np.int64]


class StreamRows(Protocol):
    """The rows of a stream for one objective."""

    def batch(self, step: int, wanted: Ints) -> tuple[list[Row], int]:
        """Rows `wanted` (ascending) of the next global batch, which is that of `step`; and how many tokens the whole
        batch predicts. Raises DatasetDamaged."""
        ...

    def collate(self, rows: Sequence[Row]) -> Batch: ...

    def position(self) -> dict[str, Any]:
        """JSON-safe: where the next batch begins."""
        ...


class CausalRows:
    """`position`: `offset` into the next document of the order."""

    def __init__(
        self,
        sources: Sequence[Documents],
        vocabulary: Vocabulary,
        spec: LoaderSpec,
        order: DocumentOrder,
        offset: int = 0,
    ) -> None:
        self._sources, self._vocabulary, self._spec, self._order = sources, vocabulary, spec, order
        self._offset = offset
        self._end_mark = _known(vocabulary.eos_id)

    def batch(self, step: int, wanted: Ints) -> tuple[list[Row], int]:
        length, total = self._spec.sequence_length, self._spec.sequence_length * self._spec.global_batch
        coming, ends = self._reach(self._offset + total + 1)
        ends -= self._offset
        starts = ends - coming["tokens"] - 1  # the first may be negative: its beginning was in the batch before
        begins = wanted * length
        first = np.searchsorted(ends, begins, side="right")
        last = np.searchsorted(ends, begins + length, side="right")
        tokens = self._read(coming, starts, begins, first, last)
        documents: Sequence[NDArray[np.int32]] = [NO_DOCUMENTS] * len(wanted)
        predicted = total
        if not self._spec.cross_documents:
            places = begins[:, None] + np.arange(length + 1)
            number = np.searchsorted(ends, places.ravel(), side="right").reshape(places.shape)
            documents = list((number - first[:, None] + 1).astype(np.int32))
            predicted -= int(((starts > 0) & (starts <= total)).sum())  # of a document, all but the first
        done = int(np.searchsorted(ends, total, side="right"))
        self._order.advance(done)
        self._offset = total - int(starts[done])
        rows = [Row(row, document, NO_IDS, NO_IDS) for row, document in zip(tokens, documents, strict=True)]
        return rows, predicted

    def collate(self, rows: Sequence[Row]) -> Batch:
        return collate_causal(rows, self._vocabulary)

    def position(self) -> dict[str, Any]:
        return {"sources": [list(place) for place in self._order.places()], "offset": self._offset}

    def _reach(self, tokens: int) -> tuple[NDArray[Any], Ints]:
        """Documents that reach so far with their end marks, and where each ends."""
        count = 1
        while True:
            coming = self._order.ahead(count)
            ends = np.cumsum(coming["tokens"] + 1)
            if ends[-1] >= tokens:
                enough = int(np.searchsorted(ends, tokens)) + 1
                return coming[:enough], ends[:enough]
            count = 2 * len(coming)

    def _read(self, coming: NDArray[Any], starts: Ints, begins: Ints, first: Ints, last: Ints) -> Ints:
        """Tokens [rows, T + 1] of the rows that begin at `begins` and touch documents `first` to `last`."""
        width = self._spec.sequence_length + 1
        counts = last - first + 1
        row = np.repeat(np.arange(len(begins)), counts)
        document = np.repeat(first, counts) + _within(counts)
        begin = np.maximum(starts[document], begins[row])
        end = np.minimum(starts[document] + coming["tokens"][document], begins[row] + width)
        kept = end > begin  # of some only the end mark is in the row
        row, document, begin, end = row[kept], document[kept], begin[kept], end[kept]
        found = np.full(len(begins) * width, self._end_mark, np.int64)
        skipped = begin - starts[document]
        places = row * width + begin - begins[row]
        _read_into(found, self._sources, coming[document], skipped, skipped + end - begin, places)
        return found.reshape(len(begins), width)


class _Cut(NamedTuple):
    """Pieces of documents: entries of the order, and int64 starts and sizes in them."""

    documents: NDArray[Any]
    starts: Ints
    sizes: Ints


@dataclass(frozen=True)
class _Group:
    """Pieces packed into rows. Of each piece `documents` is the entry of the order, with its start and size there; the
    row at place i is number `shuffle[i]`, pieces `by_row[bounds[n]:bounds[n + 1]]`, and `predicted[i]` tokens of it are
    predicted. After the group, `used` documents are done and `piece` pieces of the next."""

    documents: NDArray[Any]
    starts: Ints
    sizes: Ints
    by_row: Ints
    bounds: Ints
    shuffle: Ints
    predicted: Ints
    used: int
    piece: int

    def row(self, place: int) -> _Cut:
        """The pieces of the row at a place."""
        here = self.shuffle[place]
        pieces = self.by_row[self.bounds[here] : self.bounds[here + 1]]
        return _Cut(self.documents[pieces], self.starts[pieces], self.sizes[pieces])


class MaskedRows:
    """`position`: number of the `group`, `row`s of it that were given, and the `piece`s of the order's next document
    that the groups before it took."""

    def __init__(
        self,
        sources: Sequence[Documents],
        vocabulary: Vocabulary,
        spec: LoaderSpec,
        order: DocumentOrder,
        piece: int = 0,
        group: int = 0,
        row: int = 0,
    ) -> None:
        self._sources, self._spec, self._order = sources, spec, order
        self._piece, self._number, self._row = piece, group, row
        self._cls, self._sep = _known(vocabulary.cls_id), _known(vocabulary.sep_id)
        self._mask, self._pad = _known(vocabulary.mask_id), _known(vocabulary.pad_id)
        # As BERT's own preparation has it: [UNK] may be predicted. So lengths alone say how many tokens are.
        self._ordinary = vocabulary.ordinary_ids
        self._group: _Group | None = None

    def batch(self, step: int, wanted: Ints) -> tuple[list[Row], int]:
        parts: list[_Cut] = []
        predicted, begin = 0, 0
        while begin < self._spec.global_batch:
            group = self._current()
            end = min(begin + len(group.shuffle) - self._row, self._spec.global_batch)
            predicted += int(group.predicted[self._row : self._row + end - begin].sum())
            mine = wanted[(wanted >= begin) & (wanted < end)].tolist()
            parts += [group.row(self._row + place - begin) for place in mine]
            self._row += end - begin
            begin = end
        return (self._masked(step, wanted, parts) if parts else []), predicted

    def collate(self, rows: Sequence[Row]) -> Batch:
        return collate_masked(rows, self._spec.sequence_length, self._pad)

    def position(self) -> dict[str, Any]:
        return {
            "sources": [list(place) for place in self._order.places()],
            "piece": self._piece,
            "group": self._number,
            "row": self._row,
        }

    def _current(self) -> _Group:
        """The group that the next row is in."""
        while True:
            if self._group is None:
                self._group = self._pack()
            if self._row < len(self._group.shuffle):
                return self._group
            self._order.advance(self._group.used)
            self._piece = self._group.piece
            self._number, self._row, self._group = self._number + 1, self._row - len(self._group.shuffle), None

    def _pack(self) -> _Group:
        """The next PIECES pieces; fewer at the end of the epoch of a stream over one dataset, so that no row holds
        documents of two epochs."""
        longest = self._spec.sequence_length - 2
        coming = self._order.ahead(PIECES)[:PIECES]
        if len(self._sources) == 1:
            coming = coming[coming["epoch"] == coming["epoch"][0]]
        counts = -(-coming["tokens"] // longest)
        counts[0] -= self._piece
        reached = np.cumsum(counts)
        used = int(np.searchsorted(reached, PIECES, side="right"))  # documents of which every piece is in the group
        documents = coming[: used + 1]
        counts = counts[: used + 1]
        left = PIECES - (int(reached[used - 1]) if used else 0)
        if used < len(coming):
            counts[used] = left
        piece = _within(counts)
        piece[: counts[0]] += self._piece
        owner = documents[np.repeat(np.arange(len(counts)), counts)]
        starts, sizes = cut(owner["tokens"], piece, longest)
        by_row, bounds = pack(sizes + 2, self._spec.sequence_length)
        shuffle = draws.generator(self._spec.seed, draws.PACKED_ROWS, self._number).permutation(len(bounds) - 1)
        predicted = mask_count(np.add.reduceat(sizes[by_row], bounds[:-1])[shuffle], self._spec.mask_probability)
        next_piece = left + (self._piece if not used else 0) if used < len(coming) else 0
        return _Group(owner, starts, sizes, by_row, bounds, shuffle, predicted, used, next_piece)

    def _masked(self, step: int, places: Ints, rows: Sequence[_Cut]) -> list[Row]:
        """The rows at `places` of the global batch, all assembled and masked at once."""
        documents, starts, sizes = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        pieces = np.array([len(row.sizes) for row in rows])
        ends = np.cumsum(sizes + 2)
        begins = ends - sizes - 2
        tokens = np.full(int(ends[-1]), self._sep, np.int64)
        tokens[begins] = self._cls
        _read_into(tokens, self._sources, documents, starts, starts + sizes, begins + 1)
        number = np.repeat(_within(pieces) + 1, sizes + 2).astype(np.int32)
        candidates = np.repeat(begins + 1, sizes) + _within(sizes)
        owner = np.repeat(np.repeat(np.arange(len(rows)), pieces), sizes)
        bounds = np.concatenate([[0], ends[np.cumsum(pieces) - 1]])
        where = (places[owner] << 32) + candidates - bounds[owner]
        words = draws.words(self._spec.seed, draws.MASKS, step, where, 3)
        seen, positions, targets = mask_rows(
            tokens, candidates, owner, self._ordinary, self._mask, self._spec.mask_probability, words
        )
        of_row = np.searchsorted(positions, bounds)
        return [
            Row(seen[a:b], number[a:b], positions[c:d] - a, targets[c:d])
            for (a, b), (c, d) in zip(pairwise(bounds.tolist()), pairwise(of_row.tolist()), strict=True)
        ]


def cut(tokens: Ints, piece: Ints, longest: int) -> tuple[Ints, Ints]:
    """Start and size of piece number `piece` of a document of `tokens`, each int64 [n]: all pieces of `longest` tokens
    but the last, which takes some of the one before where it would be shorter than LEAST_PIECE."""

    def begin(number: Ints) -> Ints:
        found: Ints = np.minimum(number * longest, np.maximum(tokens - LEAST_PIECE, 0))
        return found

    starts = begin(piece)
    after = (piece + 1) * longest
    return starts, np.where(after >= tokens, tokens, begin(piece + 1)) - starts


def _within(counts: Ints) -> Ints:
    """0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, and so on."""
    found: Ints = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return found


def _read_into(
    target: Ints, sources: Sequence[Documents], coming: NDArray[Any], starts: Ints, stops: Ints, places: Ints
) -> None:
    for number, source in enumerate(sources):
        own = np.flatnonzero(coming["source"] == number) if len(sources) > 1 else slice(None)
        source.read_into(target, coming["document"][own], starts[own], stops[own], places[own])


def _known(id_: int | None) -> int:
    assert id_ is not None, "StreamLoader has checked that the vocabulary serves the objective"
    return id_
