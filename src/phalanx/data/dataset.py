"""A dataset on disk: tokens of any number of documents in shards, their vocabulary, and a manifest.

    DIR/dataset.json            the manifest, written last: without it there is no dataset
    DIR/tokenizer.json          the vocabulary
    DIR/train-00000.tokens      tokens, little-endian uint16 (uint32 from 65,537 entries on), documents one after
                                the other without end marks or special tokens: whoever reads adds what it needs
    DIR/train-00000.index       where each begins, little-endian int64 [documents + 1]: token offsets in the shard
    DIR/held_out-00000.*        the same for validation

The reader maps files into memory and looks at sizes and ends only, so a terabyte opens as fast as a page;
`verify` compares checksums. The writer holds one batch of documents at a time. Knows nothing of text, rows or
batches.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phalanx.data.errors import DataError, DatasetDamaged
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import sha256_file, sync_directory, write_atomic, writing

SCHEMA = 1
SPLITS = ("train", "held_out")
MANIFEST, VOCABULARY = "dataset.json", "tokenizer.json"
SHARD_BYTES = 1 << 30
_NAME = re.compile(r"(train|held_out)-\d{5,}")
_OFFSET = np.dtype("<i8")
_REBUILD = "build the dataset again, or bring the file back as it was"
_MORE_FILES = "let a process have more files open (ulimit -n): two for each shard, and some more"


@dataclass(frozen=True)
class Shard:
    """One pair of files, `<name>.tokens` and `<name>.index`. `bytes`: of UTF-8 text that its documents were."""

    name: str
    documents: int
    tokens: int
    bytes: int
    tokens_sha256: str
    index_sha256: str


@dataclass(frozen=True)
class SourceRecord:
    """A file that documents came from, as it was then. `sha256`: of its bytes, hexadecimal."""

    name: str
    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class DatasetManifest:
    """What a dataset is and how it came about. `excluded`: reason -> (documents, bytes of text) left out; `made`:
    whatever the builder wants to have known, JSON-safe."""

    tokenizer_sha256: str
    vocabulary_kind: str
    vocabulary_size: int
    splits: dict[str, tuple[Shard, ...]]
    sources: tuple[SourceRecord, ...] = ()
    licence: str = ""
    excluded: dict[str, tuple[int, int]] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def documents(self, split: str) -> int:
        return sum(shard.documents for shard in self.splits[split])

    def tokens(self, split: str) -> int:
        return sum(shard.tokens for shard in self.splits[split])

    def bytes(self, split: str) -> int:
        """Of text."""
        return sum(shard.bytes for shard in self.splits[split])

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> DatasetManifest:
        """Raises ValueError, KeyError or TypeError for anything that is not a manifest of this schema."""
        values: dict[str, Any] = json.loads(text)
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']}, this version reads {SCHEMA}")
        if set(values["splits"]) != set(SPLITS):
            raise ValueError(f"the splits are not {' and '.join(SPLITS)}")
        values["splits"] = {
            split: tuple(Shard(**shard) for shard in values["splits"][split])
            for split in SPLITS  # in this order
        }
        for split, shards in values["splits"].items():
            for shard in shards:
                if not _NAME.fullmatch(shard.name) or not shard.name.startswith(split):
                    raise ValueError(f"{shard.name!r} is not the name of a shard of {split}")
                if not 0 < shard.documents <= shard.tokens:
                    raise ValueError(f"{shard.name}: {shard.documents} documents of {shard.tokens} tokens")
        values["sources"] = tuple(SourceRecord(**source) for source in values["sources"])
        values["excluded"] = {reason: (int(n), int(size)) for reason, (n, size) in values["excluded"].items()}
        return cls(**values)


def is_dataset(directory: Path) -> bool:
    """Whether a dataset was finished at `directory`."""
    return (directory / MANIFEST).is_file()


@dataclass(frozen=True)
class OpenShard:
    """`tokens`: uint16 or uint32 [n]; `offsets`: int64 [documents + 1]; both mapped, read-only. Document i is
    `tokens[offsets[i]:offsets[i + 1]]`."""

    path: Path
    facts: Shard
    tokens: NDArray[Any]
    offsets: NDArray[np.int64]
    mapped: mmap.mmap

    def announce(self, begin: int, end: int) -> None:
        """Have the kernel fetch these tokens from the disk meanwhile."""
        size = self.tokens.itemsize
        start = begin * size // mmap.PAGESIZE * mmap.PAGESIZE
        self.mapped.madvise(mmap.MADV_WILLNEED, start, end * size - start)


class Documents:
    """The documents of a split, numbered from 0 across all its shards; each has at least one token."""

    def __init__(self, shards: Sequence[OpenShard], vocabulary_size: int) -> None:
        self.shards = tuple(shards)
        self._first = np.cumsum([0, *(shard.facts.documents for shard in shards)])
        self._vocabulary_size = vocabulary_size

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def tokens(self) -> int:
        return sum(shard.facts.tokens for shard in self.shards)

    def lengths(self, documents: ArrayLike) -> NDArray[np.int64]:
        """int64 [m]: tokens of each of `documents`, integers [m] in any order. Raises DatasetDamaged."""
        _, begins, ends = self._find(np.asarray(documents, np.int64))
        return ends - begins

    def read(self, document: int, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Tokens `start` to `stop` (None: its end) of a document, int64 [n]. Raises DatasetDamaged."""
        length = int(self.lengths([document])[0])
        stop = length if stop is None else min(stop, length)
        found = np.empty(max(stop - start, 0), np.int64)
        self.read_into(found, [document], [start], [stop], [0])
        return found

    def read_into(
        self, target: NDArray[np.int64], documents: ArrayLike, starts: ArrayLike, stops: ArrayLike, places: ArrayLike
    ) -> None:
        """Put tokens `starts[i]` to `stops[i]` of `documents[i]` into `target` from `places[i]` on.

        All are integers [m]; a document is at least as long as is asked of it, and what `target` holds already are
        tokens of the vocabulary. Raises DatasetDamaged.
        """
        skipped, until = np.asarray(starts, np.int64), np.asarray(stops, np.int64)
        owners, begins, _ = self._find(np.asarray(documents, np.int64))
        first, last = (begins + skipped).tolist(), (begins + until).tolist()
        asked = zip(owners.tolist(), first, last, np.asarray(places).tolist(), strict=True)
        spans = [span for span in asked if span[2] > span[1]]
        for owner, begin, end, _ in spans:  # a disk gives many at once about as fast as one
            self.shards[owner].announce(begin, end)
        for owner, begin, end, place in spans:
            target[place : place + end - begin] = self.shards[owner].tokens[begin:end]
        if target.size and int(target.max()) >= self._vocabulary_size:
            self._name_strange_token(owners, begins + skipped, begins + until)

    def _find(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Of each document its shard, and where it begins and ends there."""
        owners = np.searchsorted(self._first, numbers, side="right") - 1
        order = np.argsort(owners, kind="stable")
        bounds = np.searchsorted(owners[order], np.arange(len(self.shards) + 1))
        begins, ends = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
        for owner in np.flatnonzero(np.diff(bounds)).tolist():
            shard, mine = self.shards[owner], order[bounds[owner] : bounds[owner + 1]]
            places = numbers[mine] - self._first[owner]
            begins[mine], ends[mine] = shard.offsets[places], shard.offsets[places + 1]
            wrong = (begins[mine] < 0) | (begins[mine] >= ends[mine]) | (ends[mine] > shard.facts.tokens)
            if wrong.any():
                place = int(places[wrong][0])
                raise _damaged(shard.path, "index", f"was altered: document {place} does not lie where it says")
        return owners, begins, ends

    def _name_strange_token(
        self, owners: NDArray[np.int64], begins: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NoReturn:
        """Raises DatasetDamaged for the first of these spans that holds a token beyond the vocabulary."""
        for owner, begin, end in zip(owners.tolist(), begins.tolist(), ends.tolist(), strict=True):
            tokens = self.shards[owner].tokens[begin:end]
            if tokens.max(initial=0) >= self._vocabulary_size:
                raise _damaged(
                    self.shards[owner].path,
                    "tokens",
                    f"holds token {tokens.max()}, but the vocabulary has {self._vocabulary_size:,} entries: "
                    "it was altered, or made with another tokenizer",
                )
        raise ValueError("the target held tokens beyond the vocabulary before anything was read into it")


@dataclass(frozen=True)
class Dataset:
    """A dataset, opened. `digest`: SHA-256 (hexadecimal) of its manifest, which holds those of all its files."""

    directory: Path
    digest: str
    manifest: DatasetManifest
    vocabulary: Vocabulary
    train: Documents
    held_out: Documents

    @classmethod
    def open(cls, directory: Path) -> Dataset:
        """Open what a DatasetWriter left at `directory`.

        Compares the tokenizer's checksum, the files' sizes and their indexes' ends. Raises DatasetDamaged, naming the
        file, when one is missing, cut, or of another dataset.
        """
        path = directory / MANIFEST
        try:
            data = path.read_bytes()
            manifest = DatasetManifest.from_json(data.decode())
        except OSError as error:
            raise DatasetDamaged(
                f"the manifest cannot be read ({error.strerror})",
                where=str(path),
                remedy="name a directory that `phalanx data build` finished; an unfinished one goes on when the same "
                "command is run again",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetDamaged(f"is no manifest of a dataset ({error})", where=str(path), remedy=_REBUILD) from error
        vocabulary = _vocabulary(directory / VOCABULARY, manifest)
        train, held_out = (
            Documents(
                [open_shard(directory, shard, vocabulary.dtype) for shard in manifest.splits[split]], vocabulary.size
            )
            for split in SPLITS
        )
        return cls(directory, hashlib.sha256(data).hexdigest(), manifest, vocabulary, train, held_out)

    def split(self, name: str) -> Documents:
        """`train` or `held_out`."""
        return {"train": self.train, "held_out": self.held_out}[name]

    def verify(self, progress: Callable[[str, float], None] = lambda file, share: None) -> None:
        """Read every file whole and compare its checksum. `progress`: the file's name and the share of bytes done.

        Raises DatasetDamaged for the first one that was altered.
        """
        files = [
            (shard, kind, array.nbytes, digest)
            for split in (self.train, self.held_out)
            for shard in split.shards
            for kind, array, digest in (
                ("tokens", shard.tokens, shard.facts.tokens_sha256),
                ("index", shard.offsets, shard.facts.index_sha256),
            )
        ]
        total, done = sum(size for _, _, size, _ in files), 0
        for shard, kind, size, digest in files:
            progress(f"{shard.facts.name}.{kind}", done / total)
            if sha256_file(shard.path.with_suffix(f".{kind}")) != digest:
                raise _damaged(shard.path, kind, "was altered after it was written (its checksum differs)")
            done += size
        progress("", 1.0)


def _damaged(path: Path, kind: str, what: str) -> DatasetDamaged:
    return DatasetDamaged(what, where=str(path.with_suffix(f".{kind}")), remedy=_REBUILD)


def _vocabulary(path: Path, manifest: DatasetManifest) -> Vocabulary:
    try:
        digest = sha256_file(path)
        if digest != manifest.tokenizer_sha256:
            raise DatasetDamaged(
                "is not the vocabulary that the shards were made with (its checksum differs)",
                where=str(path),
                remedy="bring the dataset's own tokenizer.json back: tokens mean nothing without it",
            )
        vocabulary = Vocabulary.load(path)
    except OSError as error:
        raise DatasetDamaged(f"cannot be read ({error.strerror})", where=str(path), remedy=_REBUILD) from error
    except DatasetDamaged:
        raise
    except DataError as error:
        raise DatasetDamaged(error.message, where=str(path), remedy=_REBUILD) from error
    if vocabulary.size != manifest.vocabulary_size:
        raise DatasetDamaged(
            f"has {vocabulary.size:,} entries, the manifest says {manifest.vocabulary_size:,}",
            where=str(path),
            remedy=_REBUILD,
        )
    return vocabulary


def open_shard(directory: Path, shard: Shard, dtype: np.dtype[Any]) -> OpenShard:
    """A shard of tokens of `dtype`, alone. Raises DatasetDamaged."""
    path = directory / shard.name
    mapped, tokens = _map(path.with_suffix(".tokens"), dtype.newbyteorder("<"), shard.tokens)
    mapped.madvise(mmap.MADV_RANDOM)  # of an index, what lies beside is wanted soon; of the tokens it is not
    _, offsets = _map(path.with_suffix(".index"), _OFFSET, shard.documents + 1)
    if offsets[0] != 0 or offsets[-1] != shard.tokens:
        raise _damaged(path, "index", f"does not fit its shard: it reaches from token {offsets[0]} to {offsets[-1]}")
    return OpenShard(path, shard, tokens, offsets, mapped)


def _map(path: Path, dtype: np.dtype[Any], count: int) -> tuple[mmap.mmap, NDArray[Any]]:
    """`count` numbers of a file of just so many."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size != count * dtype.itemsize:
                what = "cut" if size < count * dtype.itemsize else "altered"
                raise DatasetDamaged(
                    f"was {what}: it has {size:,} bytes, the manifest says {count * dtype.itemsize:,}",
                    where=str(path),
                    remedy=_REBUILD,
                )
            mapped = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
    except OSError as error:
        remedy = _MORE_FILES if error.errno == errno.EMFILE else _REBUILD
        raise DatasetDamaged(f"cannot be read ({error.strerror})", where=str(path), remedy=remedy) from error
    return mapped, np.frombuffer(mapped, dtype)


class ShardFile:
    """A shard while it is written, under temporary names until `close`; processes may write different ones at once."""

    def __init__(self, directory: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._path, self._name, self._dtype = directory / name, name, dtype.newbyteorder("<")
        self._files = {kind: (directory / f".{name}.{kind}.tmp").open("wb") for kind in ("tokens", "index")}
        self._hashes = {kind: hashlib.sha256() for kind in self._files}
        self.documents = self.tokens = self.bytes = 0
        self._put("index", np.zeros(1, _OFFSET))

    @property
    def size(self) -> int:
        """Bytes of the tokens."""
        return self.tokens * self._dtype.itemsize

    def add(self, tokens: NDArray[Any], lengths: NDArray[np.int64], text_bytes: int) -> None:
        self._put("tokens", tokens.astype(self._dtype, copy=False))
        self._put("index", (self.tokens + np.cumsum(lengths)).astype(_OFFSET, copy=False))
        self.documents += len(lengths)
        self.tokens += len(tokens)
        self.bytes += text_bytes

    def close(self) -> Shard:
        """Durable under its name when this returns."""
        for kind, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(file.name, self._path.with_suffix(f".{kind}"))
        sync_directory(self._path.parent)
        digests = {kind: digest.hexdigest() for kind, digest in self._hashes.items()}
        return Shard(self._name, self.documents, self.tokens, self.bytes, digests["tokens"], digests["index"])

    def discard(self) -> None:
        for file in self._files.values():
            file.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)

    def _put(self, kind: str, array: NDArray[Any]) -> None:
        data = np.ascontiguousarray(array).data
        self._files[kind].write(data)
        self._hashes[kind].update(data)


class DatasetWriter:
    """Writes a dataset document by document, in bounded memory; a context manager.

    Where a shard ends depends on the documents alone, not on how they are batched: after the first one with which its
    tokens take `shard_bytes`. Whole shards are durable under their names; what was begun is deleted when the block
    is left without `finish`. `finished`: whole shards of an earlier writer that was killed, by split: they are kept
    and the numbering goes on (`closed`, called with split and shard when one is durable, is the time to note them).
    Raises StorageError (DiskFull, ReadOnly).
    """

    def __init__(
        self,
        directory: Path,
        vocabulary: Vocabulary,
        *,
        shard_bytes: int = SHARD_BYTES,
        finished: Mapping[str, Sequence[Shard]] | None = None,
        closed: Callable[[str, Shard], None] = lambda split, shard: None,
    ) -> None:
        self.directory = directory
        self.shards: dict[str, list[Shard]] = {split: list((finished or {}).get(split, ())) for split in SPLITS}
        self._vocabulary = vocabulary
        self._shard_bytes = shard_bytes
        self._closed = closed
        self._open: dict[str, ShardFile] = {}
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in self._open.values():
            shard.discard()
        self._open.clear()

    def add(self, split: str, tokens: ArrayLike, text_bytes: int) -> None:
        """One document: `tokens` integers [n], n > 0, without special tokens, of `text_bytes` bytes of UTF-8."""
        whole = np.asarray(tokens)
        self.add_all(split, whole, [len(whole)], [text_bytes])

    def add_all(self, split: str, tokens: ArrayLike, lengths: ArrayLike, text_bytes: ArrayLike) -> None:
        """Documents one after the other: `tokens` integers [sum of lengths], `lengths` and `text_bytes` integers [m].

        Raises ValueError for a document without tokens, or tokens that are not the vocabulary's.
        """
        flat, sizes, texts = np.asarray(tokens), np.asarray(lengths, np.int64), np.asarray(text_bytes, np.int64)
        if (sizes <= 0).any() or sizes.sum() != len(flat) or len(texts) != len(sizes):
            raise ValueError("lengths are positive, one a document, and add up to the number of tokens")
        if len(flat) and not 0 <= flat.min() <= flat.max() < self._vocabulary.size:
            raise ValueError(f"a token is not among the vocabulary's {self._vocabulary.size}")
        ends = np.cumsum(sizes)
        begun, taken = 0, 0
        with writing(self.directory):
            while begun < len(sizes):
                shard = self._shard(split)
                room = -(
                    -(self._shard_bytes - shard.size) // self._vocabulary.dtype.itemsize
                )  # tokens until it is full
                until = min(int(np.searchsorted(ends, taken + room)) + 1, len(sizes))
                shard.add(flat[taken : ends[until - 1]], sizes[begun:until], int(texts[begun:until].sum()))
                begun, taken = until, int(ends[until - 1])
                if shard.size >= self._shard_bytes:
                    self._close(split)

    def finish(
        self,
        *,
        sources: Sequence[SourceRecord] = (),
        licence: str = "",
        excluded: Mapping[str, tuple[int, int]] | None = None,
        made: Mapping[str, Any] | None = None,
    ) -> DatasetManifest:
        """Close the last shards, then write the vocabulary, then the manifest: the dataset is there, or it is not."""
        with writing(self.directory):
            for split in list(self._open):
                self._close(split)
        tokenizer = self._vocabulary.to_json().encode()
        manifest = DatasetManifest(
            tokenizer_sha256=hashlib.sha256(tokenizer).hexdigest(),
            vocabulary_kind=self._vocabulary.kind,
            vocabulary_size=self._vocabulary.size,
            splits={split: tuple(shards) for split, shards in self.shards.items()},
            sources=tuple(sources),
            licence=licence,
            excluded=dict(excluded or {}),
            made=dict(made or {}),
        )
        write_atomic(self.directory / VOCABULARY, tokenizer, mode=0o644)
        write_atomic(self.directory / MANIFEST, manifest.to_json(), mode=0o644)
        return manifest

    def _shard(self, split: str) -> ShardFile:
        if split not in self._open:
            name = f"{split}-{len(self.shards[split]):05d}"
            self._open[split] = ShardFile(self.directory, name, self._vocabulary.dtype)
        return self._open[split]

    def _close(self, split: str) -> None:
        shard = self._open.pop(split).close()
        self.shards[split].append(shard)
        self._closed(split, shard)
