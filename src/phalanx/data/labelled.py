"""Labelled examples, prepared: their texts as tokens, their labels as numbers, some held out.

An example is held out by the hash of its text, so that the same text never lies on both sides; or the job names a
file of its own to validate on. Where the examples stand in their file is kept as the name of each. Knows no rows and
no batches (`examples`), and no file formats (`table`).
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data.corpus import (
    MANIFEST,
    SCHEMA,
    SPLITS,
    VOCABULARY,
    CorpusManifest,
    SplitCounts,
    SplitWriter,
)
from phalanx.data.errors import BadTable, SourceMissing, TextTooSmall
from phalanx.data.learn import describe_vocabulary, learn_vocabulary
from phalanx.data.source import Progress, batches_of, text_hash
from phalanx.data.table import kind_of, read_examples, read_tagged
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import nearest, sha256_file, write_atomic
from phalanx.job import DataSpec
from phalanx.job.spec import Objective

OBJECTIVES: tuple[Objective, ...] = ("classify", "regress", "tag")
MOST_LABELS = 1000  # different ones: with more, the column is no label
_SHOWN = 12  # of them in a message
_MALFORMED = "lines with a wrong number of fields"
_RULES = "labelled-1"


class Examples:
    """How a corpus of labelled examples is made (`prepare.Recipe`)."""

    def __init__(self, spec: DataSpec, objective: Objective) -> None:
        """Raises SourceMissing, BadTable for a file of no known kind."""
        self._spec, self._objective = spec, objective
        self._excluded: dict[str, tuple[int, int]] = {}
        self._file = example_file(spec.source)
        self._held_out = None if spec.held_out_source is None else example_file(spec.held_out_source)
        parts = {
            "schema": SCHEMA,
            "rules": _RULES,
            "objective": objective,
            "files": [sha256_file(file) for file in (self._file, self._held_out) if file is not None],
            "columns": spec.columns.model_dump(),
            "labels": spec.labels,
            "held_out": spec.held_out if self._held_out is None else None,
            **describe_vocabulary(spec.vocabulary),
            "tokenizers": version("tokenizers"),
        }
        self.digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def make(self, directory: Path, report: Progress) -> None:
        """Leave the corpus in `directory`. Raises BadTable, NotText, SourceEmpty, TextTooSmall."""
        self._excluded.clear()
        labels = Labels(self._objective, self._spec.labels)
        report("reading", 0.0)
        spool = _Spool(directory / "train.texts").fill(self._read(self._file), labels)
        if self._held_out is None:
            held_out = _held_out(spool, self._spec.held_out, self._file)
            parts = {"train": (spool, ~held_out), "held_out": (spool, held_out)}
        else:
            labels.close()
            other = _Spool(directory / "held_out.texts").fill(self._read(self._held_out), labels)
            parts = {"train": (spool, spool.all), "held_out": (other, other.all)}
        report("reading", 1.0)
        names = labels.names(self._file)
        report("learning", 0.0)
        words = self._objective == "tag"  # with a space between them, as they stand in a sentence
        texts = spool.texts(parts["train"][1], spaced=words)
        vocabulary = learn_vocabulary(self._spec.vocabulary, self._objective, texts)
        report("learning", 1.0)
        counts = {}
        for place, split in enumerate(SPLITS):
            counts[split] = self._write(directory, split, *parts[split], labels, vocabulary)
            report("encoding", (place + 1) / len(SPLITS))
        manifest = CorpusManifest(
            digest=self.digest,
            source=self._spec.source,
            objective=self._objective,
            vocabulary_kind=vocabulary.kind,
            vocabulary_size=vocabulary.size,
            train=counts["train"],
            held_out=counts["held_out"],
            excluded=self._excluded,
            labels=names,
            texts=1 if self._objective == "tag" else spool.texts_of_example,
        )
        lines = {
            split: [str(spool.lines[i]) for i in np.flatnonzero(wanted)] for split, (spool, wanted) in parts.items()
        }
        write_atomic(directory / "documents.json", json.dumps(lines))
        write_atomic(directory / VOCABULARY, vocabulary.to_json())
        write_atomic(directory / MANIFEST, manifest.to_json())
        for file in directory.glob("*.texts"):
            file.unlink()

    def _read(self, file: Path) -> Iterator[_Read]:
        if self._objective == "tag":
            for tagged in read_tagged(file, self._spec.columns):
                yield _Read(tagged.words, tagged.tags, file, tagged.line)
            return
        leave_out = self._spec.columns.malformed == "leave-out"
        for example in read_examples(file, self._spec.columns, malformed=self._count if leave_out else None):
            assert example.label is not None, "read_examples was asked for labels"
            texts = (example.first,) if example.second is None else (example.first, example.second)
            yield _Read(texts, (example.label,), file, example.line)

    def _count(self, error: BadTable) -> None:
        """A line that is left out. Its bytes are not known any more."""
        lines, size = self._excluded.get(_MALFORMED, (0, 0))
        self._excluded[_MALFORMED] = (lines + 1, size)

    def _write(
        self,
        directory: Path,
        split: str,
        spool: _Spool,
        wanted: NDArray[np.bool_],
        labels: Labels,
        vocabulary: Vocabulary,
    ) -> SplitCounts:
        writer = SplitWriter(directory, split, vocabulary.dtype)
        numbers = labels.numbers(spool.labels_of(wanted))
        encoded = _encoded(spool.texts(wanted, spaced=self._objective == "tag"), vocabulary)
        documents = 0
        if self._objective == "tag":
            numbers = _tag_documents(encoded, spool.counts_of(wanted), numbers, writer, vocabulary)
            documents = int(wanted.sum())
        else:
            for tokens in encoded:
                writer.add([tokens])
                documents += 1
        np.save(directory / f"{split}.labels.npy", numbers, allow_pickle=False)
        return SplitCounts(1, documents, spool.bytes_of(wanted), writer.close())


def example_file(name: str) -> Path:
    """Raises SourceMissing for what is no file, BadTable for one of no known kind."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise SourceMissing(
            "is a directory" if path.is_dir() else "there is no such file",
            where=name,
            remedy="name a file of examples (.tsv, .csv, .jsonl, .conll), a row each",
        )
    kind_of(path)
    return path


class Labels:
    """Names of labels by number, and numbers as they are (regress). `given`: the only ones allowed, in their order."""

    def __init__(self, objective: Objective, given: Sequence[str] | None = None) -> None:
        self._numeric = objective == "regress"
        self._codes = {name: code for code, name in enumerate(given or ())}
        self._given, self._closed = given is not None, given is not None

    def close(self) -> None:
        """No more labels may appear."""
        self._closed = True

    def code(self, label: str, file: Path, line: int) -> float:
        """A number for it: itself (regress), or its place among those seen so far. Raises BadTable."""
        if self._numeric:
            return _number(label, file, line)
        code = self._codes.get(label)
        if code is not None:
            return code
        if not label.strip() and not self._given:
            raise BadTable(
                f"line {line:,}: there is no label",
                where=str(file),
                remedy="give it one, leave the line out, or name all labels in data.labels, '' among them",
            )
        if self._closed:
            guess = nearest(label, self._codes)
            whose = "data.labels" if self._given else "those of the training examples"
            raise BadTable(
                f"line {line:,}: the label {label!r} is none of {whose}: {_listed(self._codes)}",
                where=str(file),
                remedy=f"did you mean {guess!r}?" if guess else "correct it, or name all labels in data.labels",
            )
        if len(self._codes) == MOST_LABELS:
            raise BadTable(
                f"line {line:,}: there are more than {MOST_LABELS:,} different labels, such as {label[:40]!r}",
                where=str(file),
                remedy="name the right column in data.columns.label, or use objective: regress for numbers",
            )
        self._codes[label] = len(self._codes)
        return self._codes[label]

    def names(self, file: Path) -> tuple[str, ...]:
        """As given, else sorted (whole numbers by their size). Raises BadTable when there are not two to tell apart."""
        if self._numeric:
            return ()
        if len(self._codes) < 2:
            raise BadTable(
                f"all examples have the label {next(iter(self._codes), '')!r}: there is nothing to tell apart",
                where=str(file),
                remedy="name the right column in data.columns.label, or all labels in data.labels",
            )
        if self._given:
            return tuple(self._codes)
        whole = all(name.lstrip("-").isdecimal() for name in self._codes)
        return tuple(sorted(self._codes, key=lambda name: (int(name), name) if whole else (0, name)))

    def numbers(self, codes: NDArray[np.float64]) -> NDArray[Any]:
        """Of all codes the final labels: float32 (regress), or int64 places in `names`."""
        if self._numeric:
            return codes.astype(np.float32)
        rank = {name: place for place, name in enumerate(self.names(Path()))}
        return np.array([rank[name] for name in self._codes], np.int64)[codes.astype(np.int64)]


@dataclass(frozen=True)
class _Read:
    """An example of `table` for all objectives alike: one or two texts, or all words; one label, or one for each."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    file: Path
    line: int


@dataclass
class _Spool:
    """Examples of one file: their texts on disk, since they are read twice (for the vocabulary, and for the tokens)."""

    path: Path
    lines: array[int] = field(default_factory=lambda: array("q"))
    _sizes: array[int] = field(default_factory=lambda: array("q"))
    _counts: array[int] = field(default_factory=lambda: array("q"))
    _codes: array[float] = field(default_factory=lambda: array("d"))
    _keys: array[int] = field(default_factory=lambda: array("Q"))

    def fill(self, examples: Iterable[_Read], labels: Labels) -> _Spool:
        """Itself."""
        with self.path.open("wb") as file:
            for example in examples:
                for text in example.texts:
                    data = text.encode()
                    file.write(data)
                    self._sizes.append(len(data))
                self._codes.extend(labels.code(label, example.file, example.line) for label in example.labels)
                self._counts.append(len(example.texts))
                self._keys.append(int(text_hash("\0".join(example.texts))[:16], 16))
                self.lines.append(example.line)
        return self

    @property
    def all(self) -> NDArray[np.bool_]:
        return np.ones(len(self.lines), bool)

    @property
    def texts_of_example(self) -> int:
        return int(self._counts[0])

    @property
    def keys(self) -> NDArray[np.uint64]:
        """The first 64 bits of the SHA-256 of each example's texts."""
        return np.array(self._keys, np.uint64)

    def texts(self, wanted: NDArray[np.bool_], *, spaced: bool = False) -> Iterator[str]:
        """Of the wanted examples; `spaced`: with a space before each that is not its example's first."""
        place = 0
        with self.path.open("rb") as file:
            for count, own in zip(self._counts, wanted, strict=True):
                for number, size in enumerate(self._sizes[place : place + count]):
                    data = file.read(size)
                    if own:
                        yield (" " if spaced and number else "") + data.decode()
                place += count

    def counts_of(self, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Texts of each wanted example."""
        return np.array(self._counts, np.int64)[wanted]

    def labels_of(self, wanted: NDArray[np.bool_]) -> NDArray[np.float64]:
        """One of each wanted example, or of each of its words."""
        each = len(self._codes) == len(self._counts)
        return np.array(self._codes)[wanted if each else np.repeat(wanted, self._counts)]

    def bytes_of(self, wanted: NDArray[np.bool_]) -> int:
        return int(np.array(self._sizes, np.int64)[np.repeat(wanted, self._counts)].sum())


def _held_out(spool: _Spool, share: float, file: Path) -> NDArray[np.bool_]:
    """At least one example is held out: if chance gave none, the one of the least hash."""
    keys = spool.keys
    chosen: NDArray[np.bool_] = keys < np.uint64(share * 2**64)
    chosen |= (not chosen.any()) & (keys == keys.min())
    if chosen.all():
        raise TextTooSmall(
            "there are too few examples to keep a part of them for validation",
            where=str(file),
            remedy="use more, or name a file in data.heldOutSource",
        )
    return chosen


def _encoded(texts: Iterable[str], vocabulary: Vocabulary) -> Iterator[NDArray[Any]]:
    for batch in batches_of(texts):
        yield from vocabulary.encode_all(batch)


def _tag_documents(
    words: Iterator[NDArray[Any]],
    counts: NDArray[np.int64],
    numbers: NDArray[np.int64],
    writer: SplitWriter,
    vocabulary: Vocabulary,
) -> NDArray[np.int64]:
    """Write each sentence as one document; gives the label of each token, -1 where no word begins.

    A word of which the vocabulary keeps nothing (a lone accent, for BERT) becomes [UNK]: it has its tag too.
    """
    nothing = np.array([vocabulary.pad_id if vocabulary.unk_id is None else vocabulary.unk_id], vocabulary.dtype)
    labels = []
    ends = np.cumsum(counts)
    for start, end in pairwise([0, *ends.tolist()]):
        pieces = [piece if len(piece) else nothing for piece in (next(words) for _ in range(end - start))]
        writer.add([np.concatenate(pieces)])
        sizes = [len(piece) for piece in pieces]
        of_tokens = np.full(sum(sizes), -1, np.int64)
        of_tokens[np.cumsum([0, *sizes[:-1]])] = numbers[start:end]
        labels.append(of_tokens)
    return np.concatenate(labels)


def _number(label: str, file: Path, line: int) -> float:
    try:
        number = float(label)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) > float(np.finfo(np.float32).max):
        raise BadTable(
            f"line {line:,}: the label {label[:40]!r} is no number",
            where=str(file),
            remedy="give a number to learn, or use objective: classify for names",
        )
    return number


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(map(repr, every[:_SHOWN])) + more
