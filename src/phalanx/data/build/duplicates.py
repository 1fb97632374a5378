"""Equal and nearly equal documents, wherever they lie: five stages over sorted files on disk.

    exact        documents of one digest: all but the first are left out
    sketch       MinHash bands of the others, a piece a task
    candidates   documents that share a band: pairs to look at, each once
    verify       the true Jaccard similarity of each pair, from their texts; pairs in even portions
    near         one list of what is left out for it

A document is left out exactly when one *before* it in the order of the sources is as similar as the threshold, and
that pair was found: so no two similar ones remain, the first of a group always does, and nothing depends on how many
processes work. Lists of what is left out are sorted rows (document, the one before it, similarity in millionths). A
result names in `used` the files that nobody needs any more.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data.build.collecting import Report
from phalanx.data.build.external_sort import Rows, RunWriter, merged, open_rows, write_rows
from phalanx.data.build.options import BuildOptions
from phalanx.data.build.shingles import (
    Hashes,
    band_hashes,
    bands_and_rows,
    jaccard,
    shingle_set,
    shingles_of,
    signatures,
    words_of,
)
from phalanx.data.build.texts import TextReader, document_number, piece_and_row, piece_path
from phalanx.data.build.work import Result, Work

MILLION = 1_000_000
_LEFT_OUT_COLUMNS = 3
_NEIGHBOURS = 4
_PAIRS_A_TASK = 20_000
_ROWS_AT_ONCE = 1 << 20


def exact(work: Work, options: BuildOptions, _number: int, _task: dict[str, Any], _report: Report) -> Result:
    """Leaves `exact.left-out`."""
    runs = [work.sort / name for result in work.results("read") for name in result["runs"]]
    found = RunWriter(work.sort / "exact-found", _LEFT_OUT_COLUMNS, options.sort_memory)
    last = np.zeros((0, 3), np.uint64)  # the first row of the digest that the last block ended in
    for block in merged(runs, 3, options.sort_memory, work.sort):
        rows = np.concatenate([last, block])
        new = np.concatenate([[True], (rows[1:, :2] != rows[:-1, :2]).any(axis=1)])
        first = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
        again = np.flatnonzero(~new)
        found.add(_left_out(rows[again, 2], rows[first[again], 2], MILLION))
        last = rows[first[-1] :][:1]
    return _write_left_out(work, options, "exact", found.close(), runs)


def sketch(work: Work, options: BuildOptions, number: int, _task: dict[str, Any], report: Report) -> Result:
    """Leaves runs of (hash of a band, document) of piece `number`."""
    assert options.near is not None
    bands, rows = bands_and_rows(options.near)
    runs = RunWriter(work.sort / f"bands-{number:06d}", 2, options.sort_memory)
    reader = TextReader(piece_path(work.texts, number))
    for first in range(0, len(reader.records), _ROWS_AT_ONCE):
        kept = kept_rows(work, number, first, min(_ROWS_AT_ONCE, len(reader.records) - first))
        for places, texts in reader.in_blocks(kept, first):
            shingles = shingles_of(words_of([text.decode() for text in texts]))
            of_bands = band_hashes(signatures(shingles, len(texts), bands * rows), bands, rows)
            with_words = np.unique(shingles.document)
            documents = np.uint64(document_number(number, 0)) + places[with_words].astype(np.uint64)
            hashes = of_bands[with_words].ravel()
            runs.add(np.stack([hashes, np.repeat(documents, bands)], axis=1))
            report(sum(map(len, texts)))
    reader.close()
    return {"runs": [path.name for path in runs.close()]}


def candidates(work: Work, options: BuildOptions, _number: int, _task: dict[str, Any], _report: Report) -> Result:
    """Leaves `pairs`, rows of (document, one before it), sorted; the result says in which portions to verify them.

    In a band a document is paired with the first and with the four before it: a band of more than six is nearly
    always one group, of which any pair is enough.
    """
    runs = [work.sort / name for result in work.results("sketch") for name in result["runs"]]
    pairs = RunWriter(work.sort / "pairs-found", 2, options.sort_memory, distinct=True)
    for block in _with_whole_context(merged(runs, 2, options.sort_memory, work.sort)):
        pairs.add(block)
    found = pairs.close()
    path = work.sort / "pairs"
    count = write_rows(path, merged(found, 2, options.sort_memory, work.sort, distinct=True))
    rows = open_rows(path, 2)
    portions, start = [], 0
    while start < count:
        stop = min(start + _PAIRS_A_TASK, count)
        while stop < count and rows[stop, 0] == rows[stop - 1, 0]:  # a document's pairs stay together
            stop += 1
        portions.append([start, stop])
        start = stop
    return {"pairs": count, "portions": portions, "used": [path.name for path in (*found, *runs)]}


def _with_whole_context(blocks: Iterator[Rows]) -> Iterator[Rows]:
    """Pairs (later, earlier) of the documents in one band, from sorted rows (hash, document)."""
    head = np.zeros((0, 2), np.uint64)  # the first row of the band that the last block ended in
    tail = np.zeros((0, 2), np.uint64)  # and its last rows
    for block in blocks:
        rows = np.concatenate([tail, block])
        known = len(tail)
        for distance in range(1, _NEIGHBOURS + 1):
            later, earlier = rows[distance:], rows[:-distance]
            same = later[:, 0] == earlier[:, 0]
            same[: max(known - distance, 0)] = False  # paired when they came
            yield np.stack([later[same, 1], earlier[same, 1]], axis=1)
        with_head = np.concatenate([head, block])
        new = np.concatenate([[True], with_head[1:, 0] != with_head[:-1, 0]])
        first = np.maximum.accumulate(np.where(new, np.arange(len(with_head)), 0))
        again = np.flatnonzero(~new)
        yield np.stack([with_head[again, 1], with_head[first[again], 1]], axis=1)
        head = with_head[first[-1] :][:1]
        tail = rows[-_NEIGHBOURS:]


def verify(work: Work, options: BuildOptions, number: int, task: dict[str, Any], report: Report) -> Result:
    """Leaves `near-<number>`, what is left out of the pairs `start` to `stop` of the task."""
    assert options.near is not None
    start, stop = task["portion"]
    texts = _Sets(work)
    found: list[tuple[int, int, int]] = []
    decided = -1
    for document, earlier in open_rows(work.sort / "pairs", 2)[start:stop].tolist():
        if document == decided:
            continue
        similarity = _similarity(texts.get(document), texts.get(earlier), options.near)
        if similarity is not None:
            decided = document
            found.append((document, earlier, round(similarity * MILLION)))
    report(stop - start)
    path = work.sort / f"near-{number:06d}"
    write_rows(path, iter([np.array(found, np.uint64).reshape(-1, _LEFT_OUT_COLUMNS)]))
    return {"runs": [path.name]}


def near(work: Work, options: BuildOptions, _number: int, _task: dict[str, Any], _report: Report) -> Result:
    """Leaves `near.left-out`."""
    runs = [work.sort / name for result in work.results("verify") for name in result["runs"]]
    return _write_left_out(work, options, "near", runs, [work.sort / "pairs"])


def kept_rows(work: Work, piece: int, first: int, count: int) -> NDArray[np.bool_]:
    """bool [count]: whether rows `first` to `first + count` of a piece are in none of the lists that are there."""
    kept = np.ones(count, bool)
    begin = document_number(piece, first)
    for name in ("exact", "near"):
        if (listed := _list_of(work.sort / f"{name}.left-out")) is not None:
            low, high = (_place(listed, document) for document in (begin, begin + count))
            kept[(listed[low:high, 0] - np.uint64(begin)).astype(np.int64)] = False
    return kept


def left_out(work: Work, name: str) -> NDArray[Any]:
    """The list `exact` or `near`: uint64 [n, 3], mapped, empty when it was not made."""
    listed = _list_of(work.sort / f"{name}.left-out")
    return np.empty((0, _LEFT_OUT_COLUMNS), np.uint64) if listed is None else listed


def _list_of(path: Path) -> NDArray[Any] | None:
    return open_rows(path, _LEFT_OUT_COLUMNS) if path.exists() else None


def _place(listed: NDArray[Any], document: int) -> int:
    """Where `document` is or would be; touches few pages of the file."""
    return bisect.bisect_left(range(len(listed)), document, key=lambda row: int(listed[row, 0]))


def _left_out(documents: Rows, earlier: Rows, similarity: int) -> Rows:
    return np.stack([documents, earlier, np.full(len(documents), similarity, np.uint64)], axis=1)


def _write_left_out(work: Work, options: BuildOptions, name: str, runs: list[Path], used: list[Path]) -> Result:
    """Merge to `<name>.left-out` under a temporary name first: `kept_rows` asks whether the list is there."""
    path = work.sort / f"{name}.left-out"
    temporary = path.with_suffix(".tmp")
    count = write_rows(temporary, merged(runs, _LEFT_OUT_COLUMNS, options.sort_memory, work.sort))
    temporary.replace(path)
    return {"documents": count, "used": [path.name for path in (*runs, *used)]}


def _similarity(one: Hashes, other: Hashes, threshold: float) -> float | None:
    """When it is at least the threshold; sets of too different sizes need no look."""
    if min(len(one), len(other)) < threshold * max(len(one), len(other)):
        return None
    found = jaccard(one, other)
    return found if found >= threshold else None


class _Sets:
    """Shingles of documents, the last few kept."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._reader = functools.lru_cache(maxsize=8)(self._open)
        self.get = functools.lru_cache(maxsize=16)(self._read)

    def _open(self, piece: int) -> TextReader:
        return TextReader(piece_path(self._work.texts, piece))

    def _read(self, document: int) -> Hashes:
        piece, row = piece_and_row(document)
        return shingle_set(self._reader(piece).text(row).decode())
