"""Rows and batches of labelled examples: `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`, several side by side.

A row of the loader is one example; the examples of a micro-batch are packed into as few lines of the model's length
as they fill, each a document of its own, so that hardly anything computed is padding. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data.batches import Batch, LoaderSpec, Row
from phalanx.data.corpus import Split
from phalanx.data.packing import pack
from phalanx.data.vocabulary import Vocabulary

_ROUND = 8  # tokens: lines that end early are cut there, to few different lengths


class ExampleRows:
    """Examples of one split. `cut`: how many are longer than the model's length, and lose their end."""

    def __init__(self, split: Split, vocabulary: Vocabulary, spec: LoaderSpec) -> None:
        vocabulary.check_serves(spec.objective)
        if split.labels is None:
            raise ValueError(f"a corpus for {spec.objective} has labels")
        self._tokens, self._offsets, self._labels = split.tokens, split.offsets, split.labels
        self._tagged = spec.objective == "tag"
        self._texts = 1 if self._tagged else split.documents // len(split.labels)
        marks = (vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id)
        self._cls, self._sep, self._pad = (int(id_) for id_ in marks if id_ is not None)  # it serves, so all are there
        self._length = spec.sequence_length
        sizes = np.diff(split.offsets).reshape(-1, self._texts).sum(1)
        self._room = spec.sequence_length - 1 - self._texts
        self.cut = int((sizes > self._room).sum())
        self.mean_tokens = float(np.minimum(sizes, self._room).mean()) + 1 + self._texts if len(sizes) else 0.0
        self._words = _words_in_room(split, self._room) if self._tagged else np.ones(len(sizes), np.int64)

    def __len__(self) -> int:
        return len(self._words)

    def row(self, index: int, epoch: int, mask: Callable[[], np.random.Generator]) -> Row:
        return self.example(index)

    def example(self, index: int) -> Row:
        """`tokens` int64 [n]; `document` int32 [n]: 1 in the first text, 2 in the second; `positions` int64 [m]: of
        [CLS], or of the first token of each word; `targets`: their labels, [m], int64 or float32."""
        texts = [self._text(index * self._texts + number) for number in range(self._texts)]
        if len(texts) == 2:
            first, second = shares_of_pair(len(texts[0]), len(texts[1]), self._room)
            texts = [texts[0][:first], texts[1][:second]]
        else:
            texts = [texts[0][: self._room]]
        parts = [np.array([self._cls])]
        for text in texts:
            parts += [text, np.array([self._sep])]
        sizes = [len(text) + 1 for text in texts]
        document = np.repeat(np.arange(1, len(texts) + 1, dtype=np.int32), [sizes[0] + 1, *sizes[1:]])
        tokens = np.concatenate(parts).astype(np.int64)
        if not self._tagged:
            return Row(tokens, document, np.zeros(1, np.int64), np.array(self._labels[index : index + 1]))
        start = int(self._offsets[index])
        labels = np.asarray(self._labels[start : start + len(texts[0])])
        begins = np.flatnonzero(labels >= 0)
        return Row(tokens, document, begins + 1, labels[begins])

    def predicted(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> int:
        return int(self._words[rows].sum())

    def collate(self, rows: list[Row]) -> Batch:
        """`tokens` int64 [B, T], `document` int32 [B, T] (from 1 in each line; 0: padding), `segments` int64 [B, T]
        (1 in the second text), and in the order of `rows` `positions` int64 [M] into the flattened tokens and `labels`
        [M]."""
        sizes = np.array([len(row.tokens) for row in rows], np.int64)
        order, bounds = pack(sizes, self._length)
        filled = np.add.reduceat(sizes[order], bounds[:-1])
        width = min(self._length, -(-int(filled.max()) // _ROUND) * _ROUND)
        tokens = np.full((len(bounds) - 1, width), self._pad, np.int64)
        document = np.zeros(tokens.shape, np.int32)
        segments = np.zeros(tokens.shape, np.int64)
        starts = np.empty(len(rows), np.int64)
        for line in range(len(tokens)):
            at = 0
            for number, example in enumerate(order[bounds[line] : bounds[line + 1]].tolist(), start=1):
                row, end = rows[example], at + int(sizes[example])
                tokens[line, at:end] = row.tokens
                document[line, at:end] = number
                segments[line, at:end] = row.document - 1
                starts[example] = line * width + at
                at = end
        labels = np.concatenate([row.targets for row in rows])
        positions = np.concatenate([row.positions + start for row, start in zip(rows, starts, strict=True)])
        arrays: dict[str, NDArray[Any]] = {
            "tokens": tokens,
            "document": document,
            "segments": segments,
            "positions": positions,
            "labels": labels,
        }
        return Batch(arrays, int(sizes.sum()), len(labels), 0)

    def _text(self, document: int) -> NDArray[np.int64]:
        return np.asarray(self._tokens[self._offsets[document] : self._offsets[document + 1]], np.int64)


def shares_of_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens two texts of these lengths keep, `room` in all: the longer one loses its last until both fit.

    As google-research/bert's `_truncate_seq_pair` does one by one; of two equally long ones the second loses first.
    """
    if first + second <= room:
        return first, second
    half, other = (room + 1) // 2, room // 2
    if first <= half:
        return first, room - first
    if second <= other:
        return room - second, second
    return half, other


def _words_in_room(split: Split, room: int) -> NDArray[np.int64]:
    """Of each sentence how many words begin before it is cut."""
    assert split.labels is not None
    begun = np.concatenate([[0], np.cumsum(np.asarray(split.labels) >= 0)])
    starts = split.offsets[:-1]
    ends = np.minimum(split.offsets[1:], starts + room)
    words: NDArray[np.int64] = begun[ends] - begun[starts]
    return words
