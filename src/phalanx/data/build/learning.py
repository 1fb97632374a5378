"""Two stages between the documents and their tokens: how the shards are cut, and the vocabulary, when it is learned.

Both look at documents that are neither left out nor, for the vocabulary, held out. Knows nothing of duplicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data.build.collecting import Report
from phalanx.data.build.duplicates import kept_rows
from phalanx.data.build.options import MEBI, BuildOptions
from phalanx.data.build.reading import cut_point
from phalanx.data.build.texts import TextReader, piece_path
from phalanx.data.build.work import Result, Work
from phalanx.data.errors import SourceEmpty, TextTooSmall
from phalanx.data.learn import learn_vocabulary
from phalanx.foundation import write_atomic
from phalanx.job import VocabularySpec

_ROWS_AT_ONCE = 1 << 20
_SHARDS = 256
_LEAST_SHARD, _LARGEST_SHARD = 16 * MEBI, 1024 * MEBI
_PIECE = 16 << 10
# The learner takes about 90 bytes for each byte of the different words (measured), and may have three quarters of it.
_BYTES_A_SYMBOL = 120
_FOR_LEARNING = 3 / 4


def is_held_out(records: NDArray[Any], threshold: int) -> NDArray[np.bool_]:
    """bool [n]: by the first half of the digest, so that equal texts are on one side."""
    return (
        np.asarray(records["digest"][:, 0] <= np.uint64(threshold - 1)) if threshold else np.zeros(len(records), bool)
    )


def kept_records(work: Work) -> Iterator[tuple[int, int, NDArray[np.bool_], NDArray[Any]]]:
    """(piece, first row, which of the rows are kept, their records), portion by portion in the order of the sources."""
    for piece, result in enumerate(work.results("read")):
        if not result["kept"]:
            continue
        reader = TextReader(piece_path(work.texts, piece))
        for first in range(0, len(reader.records), _ROWS_AT_ONCE):
            records = reader.records[first : first + _ROWS_AT_ONCE]
            yield piece, first, kept_rows(work, piece, first, len(records)), records
        reader.close()


def layout(work: Work, options: BuildOptions, _number: int, _task: dict[str, Any], _report: Report) -> Result:
    """Which digests are held out, and the document (piece, row) with which each shard begins.

    A share of all digests is held out; where that happens to be no document, the one with the least digest. A shard
    has a 256th of the text for training, but 16 MiB to 1 GiB. Raises SourceEmpty, TextTooSmall.
    """
    threshold = int(options.held_out * 2.0**64)
    least = 1 << 64
    documents = held_out = train_bytes = 0
    for _, _, kept, records in kept_records(work):
        mine = records[kept]
        held = is_held_out(mine, threshold)
        documents, held_out = documents + len(mine), held_out + int(held.sum())
        train_bytes += int(mine["bytes"][~held].sum(dtype=np.int64))
        if len(mine):
            least = min(least, int(mine["digest"][:, 0].min()))
    if not documents:
        raise SourceEmpty(
            "no document is left",
            where=" ".join(options.sources),
            remedy="look at what was left out and why, and loosen that filter or name other sources",
        )
    if options.held_out and not held_out:
        threshold, held_out = least + 1, 1
    if held_out == documents:
        raise TextTooSmall(
            f"of {documents} document{'s' if documents > 1 else ''} none is left to train on: all are held out",
            where=" ".join(options.sources),
            remedy="give more documents (--split cuts a file into many), or --held-out 0",
        )
    size = min(max(train_bytes // _SHARDS, _LEAST_SHARD), _LARGEST_SHARD)
    return {
        "threshold": threshold,
        "starts": _shard_starts(work, threshold, size),
        "documents": documents,
        "train_bytes": train_bytes,
    }


def _shard_starts(work: Work, threshold: int, size: int) -> list[tuple[int, int]]:
    """A training document belongs to the shard that the bytes before it, divided by `size`, number."""
    starts = [(0, 0)]
    passed = shard = 0
    for piece, first, kept, records in kept_records(work):
        rows = np.flatnonzero(kept & ~is_held_out(records, threshold))
        ends = passed + np.cumsum(records["bytes"][rows], dtype=np.int64)
        shards = (ends - records["bytes"][rows]) // size
        starts += [(piece, first + row) for row in rows[np.diff(shards, prepend=shard) > 0].tolist()]
        if len(rows):
            passed, shard = int(ends[-1]), int(shards[-1])
    return starts


def learn(work: Work, options: BuildOptions, _number: int, _task: dict[str, Any], report: Report) -> Result:
    """Leaves the vocabulary, learned from a sample: training documents whose digest's second half is below a share.

    The share is what gives about `sample_bytes`, halved until the learner can hold the sample's different words.
    """
    train = options.train
    assert train is not None
    facts = work.finished("layout")
    share = min(train.sample_bytes / max(facts["train_bytes"], 1), 1.0)
    most = int(options.working_memory * _FOR_LEARNING) // _BYTES_A_SYMBOL
    while train.kind != "bytes" and _different_symbols(_sample(work, facts["threshold"], share), most) > most:
        share /= 2
    counts = {"documents": 0, "bytes": 0}
    texts = _pieces_of(_sample(work, facts["threshold"], share), counts, report)
    vocabulary = learn_vocabulary(VocabularySpec(kind=train.kind, size=train.size), train.objective, texts)
    write_atomic(work.given_vocabulary, vocabulary.to_json())
    return {"sample": counts | {"share": share}}


def _sample(work: Work, threshold: int, share: float) -> Iterator[bytes]:
    """Texts of training documents wherever they lie, in order."""
    limit = np.uint64(min(int(share * 2.0**64), 2**64 - 1))
    for piece, first, kept, records in kept_records(work):
        chosen = kept & ~is_held_out(records, threshold) & (records["digest"][:, 1] <= limit)
        reader = TextReader(piece_path(work.texts, piece))
        for _, texts in reader.in_blocks(chosen, first):
            yield from texts
        reader.close()


def _different_symbols(texts: Iterator[bytes], most: int) -> int:
    """Bytes of the different words between white space; counts no further than just beyond `most`."""
    different: set[int] = set()
    symbols = 0
    for text in texts:
        for word in set(text.split()):
            if (known := hash(word)) not in different:
                different.add(known)
                symbols += len(word)
        if symbols > most:
            break
    return symbols


def _pieces_of(texts: Iterator[bytes], counts: dict[str, int], report: Report) -> Iterator[str]:
    """The texts in pieces that end between words, since the learner holds 256 of them at once."""
    for text in texts:
        counts["documents"] += 1
        counts["bytes"] += len(text)
        report(len(text))
        while len(text) > _PIECE:
            end = cut_point(text, _PIECE)
            yield text[:end].decode()
            text = text[end:]
        yield text.decode()
