"""Prepares a corpus: reads the source, splits it by file, learns the vocabulary, writes the tokens.

The split of a file is decided by the hash of its content alone. The vocabulary sees training
text only. Work happens in a temporary directory under a lock, and one rename publishes it, so
processes may prepare at once and be killed at any moment. What is made of plain text is said here, what of examples
with labels in `labelled`, of sentences and their translations in `parallel`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from phalanx.data import labelled, parallel
from phalanx.data.corpus import (
    MANIFEST,
    SCHEMA,
    SPLITS,
    VOCABULARY,
    Corpus,
    CorpusDamaged,
    CorpusManifest,
    SplitCounts,
    SplitWriter,
)
from phalanx.data.errors import DataChanged, TextTooSmall
from phalanx.data.learn import check_vocabulary, describe_vocabulary, learn_vocabulary
from phalanx.data.source import Progress, Source, batches_of, is_held_out
from phalanx.data.sources import open_source
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import ensure_private_directory, sync_directory, write_atomic, writing
from phalanx.job import DataSpec
from phalanx.job.spec import Objective


class Recipe(Protocol):
    """How a corpus is made. `digest`: SHA-256 (hexadecimal) of all that decides its content."""

    @property
    def digest(self) -> str: ...

    def make(self, directory: Path, report: Progress) -> None:
        """Leave all files of a corpus in `directory`."""
        ...


def recipe_of(spec: DataSpec, objective: Objective) -> Recipe:
    """Opens the source. Raises the errors of `prepare`."""
    check_vocabulary(spec.vocabulary, objective)
    if objective in labelled.OBJECTIVES:
        return labelled.Examples(spec, objective)
    if objective == "translate":
        return parallel.Pairs(spec)
    return _PlainText(spec, objective)


def corpus_digest(source: Source, spec: DataSpec, objective: Objective) -> str:
    """SHA-256 (hexadecimal) of all that decides the content of a corpus of plain text."""
    parts = {
        "schema": SCHEMA,
        "source": source.fingerprint(),
        "objective": objective,
        **describe_vocabulary(spec.vocabulary),
        "held_out": spec.held_out,
        "tokenizers": version("tokenizers"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def prepare(spec: DataSpec, objective: Objective, cache_dir: Path, progress: Progress | None = None) -> Corpus:
    """The corpus of `spec` for `objective`, made or found in `cache_dir`.

    Raises the errors of `open_source`, UnfitVocabulary, TextTooSmall when a split would be empty,
    and StorageError when the cache cannot be written. A damaged corpus in the cache is made anew.
    """
    report = progress or (lambda stage, share: None)
    recipe = recipe_of(spec, objective)
    entry = ensure_private_directory(cache_dir) / recipe.digest[:32]
    corpus = _try_open(entry)
    if corpus is None:
        with _locked(cache_dir / f"{entry.name}.lock"):
            corpus = _try_open(entry)
            if corpus is None:
                _remove(entry, cache_dir)
                _make(entry, recipe, report)
                corpus = Corpus.open(entry)
    report("ready", 1.0)
    return corpus


def reopen(
    record: Path, spec: DataSpec, objective: Objective, cache_dir: Path, progress: Progress | None = None
) -> Corpus:
    """The very corpus whose manifest a run keeps in the directory `record` (as `Corpus.describe_into` left it).

    Found in the cache even when the source has changed since; otherwise prepared again. Without a
    record, as `prepare`. Raises DataChanged when the source now gives another corpus: its held-out
    part may hold text that the run was trained on, and its vocabulary other numbers.
    """
    try:
        recorded = CorpusManifest.from_json((record / MANIFEST).read_text("utf-8")).digest
    except FileNotFoundError:
        return prepare(spec, objective, cache_dir, progress)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusDamaged(
            f"the record of the run's data is damaged ({error})",
            where=str(record / MANIFEST),
            remedy="run the job again",
        ) from error
    cached = _try_open(cache_dir / recorded[:32])
    if cached is not None:
        return cached
    corpus = prepare(spec, objective, cache_dir, progress)
    if corpus.digest != recorded:
        raise DataChanged(
            "the text has changed since the run began, and the prepared corpus is no longer in the cache",
            where=spec.source,
            remedy="bring the text back as it was, or start a new run on the text of today",
        )
    return corpus


def _try_open(entry: Path) -> Corpus | None:
    if not entry.exists():
        return None
    try:
        return Corpus.open(entry)
    except CorpusDamaged:
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel lets go of the lock when its holder dies."""
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove(entry: Path, cache_dir: Path) -> None:
    """Drop a damaged corpus and what killed processes left; only the lock's holder may."""
    for leftover in [entry, *cache_dir.glob(f".{entry.name}.*.tmp")]:
        if leftover.exists():
            shutil.rmtree(leftover)


def _make(entry: Path, recipe: Recipe, report: Progress) -> None:
    with writing(entry):
        temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}.", suffix=".tmp"))
        try:
            recipe.make(temporary, report)
            for file in temporary.iterdir():
                _sync(file)
            sync_directory(temporary)
            os.rename(temporary, entry)
            sync_directory(entry.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


class _PlainText:
    """Files of text, whole or in sections."""

    def __init__(self, spec: DataSpec, objective: Objective) -> None:
        self._spec, self._objective = spec, objective
        self._source = open_source(spec)
        self.digest = corpus_digest(self._source, spec, objective)

    def make(self, directory: Path, report: Progress) -> None:
        texts = _read(directory / "documents.txt", self._source, self._spec.held_out, report)
        report("learning", 0.0)
        vocabulary = learn_vocabulary(self._spec.vocabulary, self._objective, texts.read("train"))
        report("learning", 1.0)
        counts = _encode(directory, texts, vocabulary, self._objective, report)
        manifest = CorpusManifest(
            digest=self.digest,
            source=self._spec.source,
            objective=self._objective,
            vocabulary_kind=vocabulary.kind,
            vocabulary_size=vocabulary.size,
            train=counts["train"],
            held_out=counts["held_out"],
            excluded=self._source.tally.excluded,
        )
        names = {split: texts.names_of(split) for split in SPLITS}
        write_atomic(directory / "documents.json", json.dumps(names))
        write_atomic(directory / VOCABULARY, vocabulary.to_json())
        write_atomic(directory / MANIFEST, manifest.to_json())
        texts.path.unlink()


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass
class _Texts:
    """The documents in one file, since they are read twice: for the vocabulary and for the tokens."""

    path: Path
    sizes: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)

    def read(self, split: str) -> Iterator[str]:
        with self.path.open("rb") as file:
            for size, own in zip(self.sizes, self.splits, strict=True):
                data = file.read(size)
                if own == split:
                    yield data.decode()

    def names_of(self, split: str) -> list[str]:
        return [name for name, own in zip(self.names, self.splits, strict=True) if own == split]

    def counts(self, split: str, tokens: int) -> SplitCounts:
        mine = [place for place, own in enumerate(self.splits) if own == split]
        return SplitCounts(
            len({self.groups[place] for place in mine}), len(mine), sum(self.sizes[place] for place in mine), tokens
        )


def _read(path: Path, source: Source, share: float, report: Progress) -> _Texts:
    """Documents and their splits. At least one group is held out: if chance gave none, the one with the least hash."""
    total = max(sum(file.bytes for file in source.files), 1)
    texts = _Texts(path)
    with path.open("wb") as file:
        for document in source.documents():
            data = document.text.encode()
            file.write(data)
            texts.sizes.append(len(data))
            texts.names.append(document.name)
            texts.groups.append(document.group)
            report("reading", min(source.tally.bytes / total, 1.0))
    report("reading", 1.0)
    held_out = {group for group in texts.groups if is_held_out(group, share)} or {min(texts.groups)}
    texts.splits = ["held_out" if group in held_out else "train" for group in texts.groups]
    if "train" not in texts.splits:
        raise TextTooSmall(
            "there is too little text to keep a part of it for validation",
            where=source.name,
            remedy="use more text: a few kilobytes at the very least",
        )
    return texts


def _encode(
    directory: Path, texts: _Texts, vocabulary: Vocabulary, objective: Objective, report: Progress
) -> dict[str, SplitCounts]:
    total, done = max(sum(texts.sizes), 1), 0
    ends = [vocabulary.eos_id] if objective == "causal-lm" else []
    end = np.array(ends, vocabulary.dtype)
    counts = {}
    for split in SPLITS:
        writer = SplitWriter(directory, split, vocabulary.dtype)
        for batch in batches_of(texts.read(split)):
            writer.add([np.concatenate([tokens, end]) for tokens in vocabulary.encode_all(batch)])
            done += sum(len(text.encode()) for text in batch)
            report("encoding", done / total)
        counts[split] = texts.counts(split, writer.close())
    return counts
