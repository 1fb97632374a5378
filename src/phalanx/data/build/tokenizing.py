"""The last two stages: the tokens of each shard, and the dataset as a whole.

A task writes its shard of training documents where the dataset grows, and its held-out documents aside; as those are
few, `finish` puts them together. Knows nothing of how documents came to be kept.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import phalanx
from phalanx.data.build.collecting import EXAMPLES, Excluded, Report, name_of
from phalanx.data.build.duplicates import MILLION, kept_rows, left_out
from phalanx.data.build.encoding import Encode, encoder
from phalanx.data.build.learning import is_held_out
from phalanx.data.build.options import BuildOptions
from phalanx.data.build.texts import TextReader, piece_and_row, piece_path
from phalanx.data.build.work import Result, Work
from phalanx.data.dataset import DatasetWriter, OpenShard, Shard, ShardFile, SourceRecord, open_shard
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import writing

_ROWS_AT_ONCE = 1 << 20
_TOKENS_AT_ONCE = 1 << 20
NO_TOKENS = "no tokens"


@functools.cache
def _vocabulary(path: Path) -> Vocabulary:
    """Read once a process."""
    return Vocabulary.load(path)


@functools.cache
def _encoder(path: Path, memory: int) -> Encode:
    """Made once a process: it knows ever more words."""
    return encoder(_vocabulary(path), memory)


def tokenize(work: Work, options: BuildOptions, number: int, task: dict[str, Any], report: Report) -> Result:
    """Leaves `train-<number>` in the dataset and `held_out-<number>` aside, of documents `start` to `stop` (piece, row;
    stop None: to the end); a shard without documents is None."""
    vocabulary = _vocabulary(work.given_vocabulary)
    threshold = work.finished("layout")["threshold"]
    encode = _encoder(work.given_vocabulary, options.working_memory // 16)
    excluded = Excluded()
    names = {name: f"{name}-{number:05d}" for name in ("train", "held_out")}
    with writing(work.dataset):
        shards = {
            "train": ShardFile(work.dataset, names["train"], vocabulary.dtype),
            "held_out": ShardFile(work.held_out, names["held_out"], vocabulary.dtype),
        }
    try:
        for piece, first, stop in _ranges(work, task["start"], task["stop"]):
            reader = TextReader(piece_path(work.texts, piece))
            end = len(reader.records) if stop is None else stop
            for begin in range(first, end, _ROWS_AT_ONCE):
                kept = kept_rows(work, piece, begin, min(_ROWS_AT_ONCE, end - begin))
                for rows, texts in reader.in_blocks(kept, begin):
                    held = is_held_out(reader.records[rows], threshold)
                    for some in _portions(texts, options.longest_document):
                        _add(shards, encode, texts[some], held[some], excluded, work)
                    report(sum(map(len, texts)))
            reader.close()
        made: dict[str, dict[str, Any] | None] = {}
        with writing(work.dataset):
            for name, shard in shards.items():
                made[name] = None
                if shard.documents:
                    made[name] = vars(shard.close())
    finally:
        for shard in shards.values():
            shard.discard()
    return excluded.to_json() | made


def _portions(texts: list[bytes], most: int) -> Iterator[slice]:
    """Texts to encode at once: of `most` bytes together, for which the memory is reckoned."""
    begin = size = 0
    for place, text in enumerate(texts):
        if place > begin and size + len(text) > most:
            yield slice(begin, place)
            begin, size = place, 0
        size += len(text)
    yield slice(begin, len(texts))


def _add(
    shards: dict[str, ShardFile],
    encode: Encode,
    texts: list[bytes],
    held: Any,
    excluded: Excluded,
    work: Work,
) -> None:
    tokens = encode([text.decode() for text in texts])
    lengths = np.array([len(one) for one in tokens], np.int64)
    sizes = np.array([len(text) for text in texts], np.int64)
    for size in sizes[lengths == 0].tolist():
        excluded.add(NO_TOKENS, size, "")
    for name, chosen in (("train", ~held & (lengths > 0)), ("held_out", held & (lengths > 0))):
        if chosen.any():
            flat = np.concatenate([tokens[place] for place in np.flatnonzero(chosen)])
            with writing(work.dataset):
                shards[name].add(flat, lengths[chosen], int(sizes[chosen].sum()))


def _ranges(work: Work, start: tuple[int, int], stop: tuple[int, int] | None) -> Iterator[tuple[int, int, int | None]]:
    """(piece, first row, row to stop before or None) of each piece that holds some of the documents."""
    for piece in itertools.count(start[0]):
        result = work.result("read", piece)
        if result is None or (stop is not None and piece > stop[0]):
            return
        if result["kept"]:
            last = stop[1] if stop is not None and piece == stop[0] else None
            yield piece, start[1] if piece == start[0] else 0, last


def finish(work: Work, options: BuildOptions, _number: int, task: dict[str, Any], _report: Report) -> Result:
    """Leaves the dataset whole, under the work's directory."""
    vocabulary = _vocabulary(work.given_vocabulary)
    excluded, examples = _all_excluded(work)
    made = work.results("tokenize")
    trained: list[Shard] = []
    held: list[Shard] = []
    for result in made:
        trained += [Shard(**result["train"])] if result["train"] else []
        held += [Shard(**result["held_out"])] if result["held_out"] else []
    with DatasetWriter(work.dataset, vocabulary, finished={"train": trained}) as writer:
        for shard in held:
            _append(writer, open_shard(work.held_out, shard, vocabulary.dtype))
        writer.finish(
            sources=_source_records(work),
            licence=options.licence,
            excluded=excluded,
            made=_how(work, options, task) | {"examples": examples},
        )
    return {}


def _append(writer: DatasetWriter, shard: OpenShard) -> None:
    """The held-out documents of one task. Their bytes of text are known for all of them together only: the first has
    them all, which a shard's sum does not show."""
    sizes = np.zeros(shard.facts.documents, np.int64)
    sizes[0] = shard.facts.bytes
    first = 0
    while first < shard.facts.documents:
        begin = int(shard.offsets[first])
        after = int(np.searchsorted(shard.offsets, begin + _TOKENS_AT_ONCE, side="right")) - 1
        stop = min(max(after, first + 1), shard.facts.documents)
        lengths = np.diff(shard.offsets[first : stop + 1])
        writer.add_all("held_out", shard.tokens[begin : int(shard.offsets[stop])], lengths, sizes[first:stop])
        first = stop


def _source_records(work: Work) -> list[SourceRecord]:
    hashes: dict[int, str] = {}
    for result in work.results("read"):
        hashes |= {int(number): digest for number, digest in result["hashes"].items()}
    return [SourceRecord(file.name, file.bytes, file.mtime_ns, hashes[file.number]) for file in work.sources()]


def _all_excluded(work: Work) -> tuple[dict[str, tuple[int, int]], dict[str, list[str]]]:
    found: dict[str, tuple[int, int]] = {}
    examples: dict[str, list[str]] = {}
    for stage in ("read", "tokenize"):
        for result in work.results(stage):
            for reason, (documents, size) in result["excluded"].items():
                before = found.get(reason, (0, 0))
                found[reason] = (before[0] + documents, before[1] + size)
            for reason, names in result["examples"].items():
                examples[reason] = [*examples.get(reason, ()), *filter(None, names)][:EXAMPLES]
    finder = _Names(work)
    for name, reason in (("exact", "equal to one before"), ("near", "nearly equal to one before")):
        listed = left_out(work, name)
        if len(listed):
            found[reason] = (len(listed), finder.bytes_of(listed))
            examples[reason] = [
                f"{finder.name(document)} as {finder.name(earlier)}"
                + (f" ({similarity / MILLION:.2f})" if name == "near" else "")
                for document, earlier, similarity in listed[:EXAMPLES].tolist()
            ]
    return found, {reason: names for reason, names in examples.items() if names}


class _Names:
    """Names and sizes of documents by their numbers."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._reader = functools.lru_cache(maxsize=8)(lambda piece: TextReader(piece_path(work.texts, piece)))

    def name(self, document: int) -> str:
        piece, row = piece_and_row(document)
        record = self._reader(piece).records[row]
        wanted = int(record["source"])
        source = next(file.name for file in self._work.sources() if file.number == wanted)
        return name_of(source, int(record["place"]), int(record["part"]))

    def bytes_of(self, listed: Any) -> int:
        """Of all listed documents, which ascend."""
        total = 0
        for first in range(0, len(listed), _ROWS_AT_ONCE):
            documents = listed[first : first + _ROWS_AT_ONCE, 0]
            pieces = documents >> np.uint64(32)
            for piece in np.unique(pieces).tolist():
                rows = (documents[pieces == piece] & np.uint64(0xFFFFFFFF)).astype(np.int64)
                records = self._reader(piece).records
                total += int(records["bytes"][rows].sum(dtype=np.int64))
        return total


def _how(work: Work, options: BuildOptions, task: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of the making; the same for the same sources and options."""
    read: dict[str, int] = {}
    for result in work.results("read"):
        for name, count in result["counts"].items():
            read[name] = read.get(name, 0) + count
    learned = work.result("learn")
    looked = work.result("candidates")
    return {
        "by": f"phalanx {phalanx.__version__}, tokenizers {version('tokenizers')}",
        "fingerprint": task["fingerprint"],
        "options": options.deciding(),
        "read": read,
        "not_read": task["left_out"],
        "sample": learned["sample"] if learned else None,
        "pairs_compared": looked["pairs"] if looked else None,
        "held_out_below": work.finished("layout")["threshold"],
    }
