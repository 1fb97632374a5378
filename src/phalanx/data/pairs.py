"""Rows and batches of parallel text: a sentence and its translation, each closed by the end mark.

A row is one pair. Pairs that are longer than the model's length are left out, and counted. Pairs of like lengths are
computed together, so that little of a batch is padding: some batches' worth of rows (`Buckets`) are taken in the order
of the epoch, sorted by length, and given out batch by batch in an order of their own. Knows no files (`parallel`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from phalanx.data import draws
from phalanx.data.batches import Batch, LoaderSpec, Row
from phalanx.data.corpus import Split
from phalanx.data.errors import TextTooSmall
from phalanx.data.vocabulary import Vocabulary

_BATCHES_SORTED = 32
# Batches are as long as a multiple of this: oneDNN keeps kernels for every shape it meets, and in bf16 160 steps left
# 400 MB of them, with fewer lengths 260 MB in the same time.
_ROUND = 4
_NO_DOCUMENTS: NDArray[np.int32] = np.empty(0, np.int32)
_NO_POSITIONS: NDArray[np.int64] = np.empty(0, np.int64)


class PairRows:
    """Pairs of one split. `left_out`: how many are longer than the model's length."""

    def __init__(self, split: Split, vocabulary: Vocabulary, spec: LoaderSpec) -> None:
        """Raises TextTooSmall when every pair is too long."""
        vocabulary.check_serves(spec.objective)
        self._tokens, self._offsets = split.tokens, split.offsets
        self._pad, self._begin, self._end = (
            int(id_) for id_ in (vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id) if id_ is not None
        )
        self._byte_lengths = vocabulary.byte_lengths
        sizes = np.diff(split.offsets).reshape(-1, 2) + 1
        self._kept = np.flatnonzero(sizes.max(1) <= spec.sequence_length)
        self._sizes = sizes[self._kept]
        self.left_out = len(sizes) - len(self._kept)
        if not len(self._kept):
            raise TextTooSmall(
                f"each of the {len(sizes):,} pairs is longer than {spec.sequence_length:,} tokens",
                where="data.sequenceLength",
                remedy="raise it, or use a larger vocabulary, which has longer tokens",
            )
        self.mean_tokens = float(self._sizes.sum(1).mean())

    def __len__(self) -> int:
        return len(self._kept)

    def row(self, index: int, epoch: int = 0, mask: Callable[[], np.random.Generator] | None = None) -> Row:
        """`tokens` int64 [n] of the source, `targets` int64 [m], both with the end mark; the rest is empty."""
        source, target = (self._text(2 * int(self._kept[index]) + side) for side in (0, 1))
        return Row(source, _NO_DOCUMENTS, _NO_POSITIONS, target)

    def predicted(self, rows: NDArray[np.int64], epochs: NDArray[np.int64]) -> int:
        return int(self._sizes[rows, 1].sum())

    def by_length(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of `rows` [n] in the order of their targets' lengths, then of their sources', int64 [n]."""
        return np.lexsort((self._sizes[rows, 0], self._sizes[rows, 1]))

    def longest(self, count: int) -> NDArray[np.int64]:
        """The `count` rows that take most to compute (fewer when there are not so many), int64."""
        rows = np.arange(len(self))
        return rows[self.by_length(rows)[::-1][:count]]

    def collate(self, rows: list[Row]) -> Batch:
        """`source` int64 [B, S] and its `lengths` int64 [B]; `target` int64 [B, T], which begins with the begin mark;
        `positions` int64 [M] into the flattened target, `targets` int64 [M]: what follows each of them."""
        lengths = np.array([len(row.tokens) for row in rows], np.int64)
        sizes = np.array([len(row.targets) for row in rows], np.int64)
        source, target = (
            np.full((len(rows), -(-int(longest.max()) // _ROUND) * _ROUND), self._pad, np.int64)
            for longest in (lengths, sizes)
        )
        for place, row in enumerate(rows):
            source[place, : len(row.tokens)] = row.tokens
            target[place, 0] = self._begin
            target[place, 1 : len(row.targets)] = row.targets[:-1]
        positions = np.flatnonzero(np.arange(target.shape[1]) < sizes[:, None])
        targets = np.concatenate([row.targets for row in rows])
        arrays = {
            "source": source,
            "lengths": lengths,
            "target": target,
            "positions": positions,
            "targets": targets,
        }
        return Batch(arrays, int(lengths.sum() + sizes.sum()), len(targets), int(self._byte_lengths[targets].sum()))

    def _text(self, document: int) -> NDArray[np.int64]:
        tokens = self._tokens[self._offsets[document] : self._offsets[document + 1]]
        return np.append(tokens, self._end).astype(np.int64)


class Buckets:
    """Which places of the endless order of rows make a step: a function of seed and step alone.

    `batches` steps share a bucket: their places are those that they would have had without it, so every row still
    comes once an epoch.
    """

    def __init__(self, rows_per_epoch: int, global_batch: int, seed: int) -> None:
        self._batch, self._seed = global_batch, seed
        # Not more than an epoch, or the same sentence would be in a batch twice.
        self.batches = max(1, min(_BATCHES_SORTED, rows_per_epoch // global_batch))

    def places(self, step: int) -> NDArray[np.int64]:
        """Of the whole bucket that the step belongs to, int64 [batches * global batch]."""
        size = self.batches * self._batch
        return step // self.batches * size + np.arange(size, dtype=np.int64)

    def of_step(self, step: int, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """The step's part of `order`, which sorts the bucket's places by length, int64 [global batch]."""
        bucket, number = divmod(step, self.batches)
        turns = draws.Permutation(self.batches, self._seed, draws.BUCKETS, bucket)
        turn = int(turns(np.array([number]))[0])
        return order[turn * self._batch : (turn + 1) * self._batch]
