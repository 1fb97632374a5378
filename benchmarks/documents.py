"""The documents of a prepared corpus, one by one, as a side that packs nothing wants them.

They are taken out of our own packed rows, so both sides train on the same pieces of the same text, with
the same [CLS] and [SEP]. Knows nothing of torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phalanx.data import Batch, Corpus
from phalanx.data.packing import PackedRows

IGNORED = -100
"""Label of a position that is not predicted, in torch's cross entropy and in transformers."""


def documents_of(corpus: Corpus, sequence_length: int) -> list[NDArray[np.int64]]:
    """`[CLS] piece [SEP]` of every training document, int64 [n], n at most `sequence_length`."""
    vocabulary = corpus.vocabulary
    assert vocabulary.cls_id is not None
    assert vocabulary.sep_id is not None
    packed = PackedRows(corpus.train, sequence_length, vocabulary.cls_id, vocabulary.sep_id, vocabulary.unk_id)
    found = []
    for index in range(len(packed)):
        tokens, document = packed.row(index)
        found += np.split(tokens, np.flatnonzero(np.diff(document)) + 1)
    return found


@dataclass(frozen=True)
class PaddedBatch:
    """One document a row: `input_ids`, `attention_mask`, `labels` int64 [B, longest]; labels IGNORED elsewhere."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    labels: NDArray[np.int64]


def unpacked(batch: Batch, pad_id: int) -> PaddedBatch:
    """A packed masked-lm batch with every document in a row of its own, filled up with `pad_id`."""
    tokens, document = batch.arrays["tokens"], batch.arrays["document"]
    labels = np.full(tokens.shape, IGNORED, np.int64)
    labels.flat[batch.arrays["positions"]] = batch.arrays["targets"]
    pieces = [
        (tokens[row][document[row] == number], labels[row][document[row] == number])
        for row in range(len(tokens))
        for number in range(1, int(document[row].max()) + 1)
    ]
    shape = (len(pieces), max(len(seen) for seen, _ in pieces))
    padded = PaddedBatch(np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64))
    for row, (seen, wanted) in enumerate(pieces):
        padded.input_ids[row, : len(seen)] = seen
        padded.attention_mask[row, : len(seen)] = 1
        padded.labels[row, : len(wanted)] = wanted
    return padded
