"""Parallel text, prepared: sentences and their translations as tokens of one vocabulary, some pairs held out.

The pairs are the rows of a table with two columns of text, or the lines of two files that go together, named at once
as in a shell: `train.{de,en}.gz` is train.de.gz, which is read, and train.en.gz, which is to be written. A pair is held
out by the hash of both texts, or the job names files of its own to validate on; what is held out is not trained on.
The vocabulary is learned from both sides of the training pairs. Knows no rows and no batches (`pairs`).
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phalanx.data.corpus import MANIFEST, SCHEMA, SPLITS, VOCABULARY, CorpusManifest, SplitCounts, SplitWriter
from phalanx.data.errors import BadTable, DataChanged, SourceMissing, TextTooSmall
from phalanx.data.learn import describe_vocabulary, learn_vocabulary
from phalanx.data.source import Progress, batches_of, is_held_out, text_hash
from phalanx.data.table import Malformed, kind_of, lines_of, read_examples
from phalanx.data.vocabulary import Vocabulary
from phalanx.foundation import sha256_file, write_atomic
from phalanx.job import ColumnsSpec, DataSpec

NAME_PAIRS = "name two files at once, as train.{de,en}.gz, or a table (.tsv, .csv, .jsonl) with two columns of text"
_RULES = "parallel-1"
_TWO = re.compile(r"(?P<before>.*)\{(?P<first>[^{},]*),(?P<second>[^{},]*)\}(?P<after>.*)", re.DOTALL)
_BLANK, _HELD_OUT_TOO = "with an empty side", "that are held out too"
_MALFORMED = "with another number of fields"
_LEFT_OUT, _TRAIN, _HELD_OUT = 0, 1, 2


@dataclass(frozen=True)
class Pair:
    """`line` of the file, from 1. Space around the texts is taken away."""

    source: str
    target: str
    line: int

    @property
    def key(self) -> str:
        """SHA-256 (hexadecimal) of both texts."""
        return text_hash(f"{self.source}\0{self.target}")

    @property
    def bytes(self) -> int:
        return len(self.source.encode()) + len(self.target.encode())


def pair_files(name: str) -> tuple[Path, ...]:
    """The one or two files that `name` stands for. Raises SourceMissing, BadTable for one of no known kind."""
    found = _TWO.fullmatch(name)
    files: tuple[Path, ...]
    if found is None:
        files = (Path(name).expanduser(),)
    else:
        before, after = found["before"], found["after"]
        files = tuple(Path(before + found[side] + after).expanduser() for side in ("first", "second"))
    for file in files:
        if not file.is_file():
            why = "is a directory" if file.is_dir() else "there is no such file"
            raise SourceMissing(why, where=str(file), remedy=NAME_PAIRS)
    if len(files) == 1:
        kind_of(files[0])
    return files


def read_pairs(name: str, columns: ColumnsSpec | None = None, *, malformed: Malformed | None = None) -> Iterator[Pair]:
    """Pairs in the order of their lines, with empty sides too. `columns` text and pair: of a table; `malformed`: as
    for `read_examples`.

    Raises SourceMissing, BadTable (not one translation for each line, no second column), NotText, SourceEmpty.
    """
    files = pair_files(name)
    if len(files) == 1:
        for example in read_examples(files[0], columns, labelled=False, malformed=malformed):
            if example.second is None:
                raise BadTable(
                    "has one column of text, and no translations of it",
                    where=str(files[0]),
                    remedy="set data.columns.pair to the column of the translation",
                )
            yield Pair(example.first.strip(), example.second.strip(), example.line)
        return
    for first, second in zip_longest(lines_of(files[0]), lines_of(files[1])):
        if first is None or second is None:
            longer, shorter = (files[1], files[0]) if first is None else files
            line = (second or first or (0, ""))[0]
            raise BadTable(
                f"has a line {line:,}, and {shorter.name} ends before it: they are not translations line by line",
                where=str(longer),
                remedy="give both files as many lines",
            )
        yield Pair(first[1].strip(), second[1].strip(), first[0])


class Pairs:
    """How a corpus of parallel text is made (`prepare.Recipe`)."""

    def __init__(self, spec: DataSpec) -> None:
        """Raises SourceMissing, BadTable."""
        self._spec = spec
        names = [spec.source] if spec.held_out_source is None else [spec.source, spec.held_out_source]
        parts = {
            "schema": SCHEMA,
            "rules": _RULES,
            "files": [[sha256_file(file) for file in pair_files(name)] for name in names],
            "columns": spec.columns.model_dump(),
            "held_out": spec.held_out if spec.held_out_source is None else None,
            **describe_vocabulary(spec.vocabulary),
            "tokenizers": version("tokenizers"),
        }
        self.digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def make(self, directory: Path, report: Progress) -> None:
        """Leave the corpus in `directory`. The files are read three times: to divide them, for the vocabulary and for
        the tokens, and never held. Raises what `read_pairs` does, TextTooSmall, DataChanged."""
        report("reading", 0.0)
        division = _Division.of(self._spec)
        report("reading", 1.0)
        report("learning", 0.0)
        sides = (side for pair in division.pairs(_TRAIN) for side in (pair.source, pair.target))
        vocabulary = learn_vocabulary(self._spec.vocabulary, "translate", sides)
        report("learning", 1.0)
        counts, lines = {}, {}
        for place, (split, part) in enumerate(zip(SPLITS, (_TRAIN, _HELD_OUT), strict=True)):
            counts[split], lines[split] = _written(directory, split, division.pairs(part), vocabulary)
            report("encoding", (place + 1) / len(SPLITS))
        manifest = CorpusManifest(
            digest=self.digest,
            source=self._spec.source,
            objective="translate",
            vocabulary_kind=vocabulary.kind,
            vocabulary_size=vocabulary.size,
            train=counts["train"],
            held_out=counts["held_out"],
            excluded=division.excluded,
            texts=2,
        )
        write_atomic(directory / "documents.json", json.dumps(lines))
        write_atomic(directory / VOCABULARY, vocabulary.to_json())
        write_atomic(directory / MANIFEST, manifest.to_json())


def _written(
    directory: Path, split: str, pairs: Iterator[Pair], vocabulary: Vocabulary
) -> tuple[SplitCounts, list[str]]:
    """Source and target of each pair, one document after the other."""
    writer = SplitWriter(directory, split, vocabulary.dtype)
    lines: list[str] = []
    size = 0

    def sides() -> Iterator[str]:
        nonlocal size
        for pair in pairs:
            lines.append(str(pair.line))
            size += pair.bytes
            yield from (pair.source, pair.target)

    for batch in batches_of(sides()):
        writer.add(vocabulary.encode_all(batch))
    return SplitCounts(1, 2 * len(lines), size, writer.close()), lines


class _Division:
    """Which pair goes where: a byte for each, in the order in which they are read."""

    def __init__(self, spec: DataSpec, places: NDArray[np.uint8], excluded: dict[str, tuple[int, int]]) -> None:
        self._spec, self._places, self.excluded = spec, places, excluded

    @classmethod
    def of(cls, spec: DataSpec) -> _Division:
        """Raises TextTooSmall when nothing is left to train or to validate on."""
        named = spec.held_out_source is not None
        keys, sizes, places = array("Q"), array("q"), bytearray()
        malformed: list[BadTable] = []
        for pair, held_out in _read(spec, malformed.append):
            key = pair.key
            keys.append(int(key[:16], 16))
            sizes.append(pair.bytes)
            if not (pair.source and pair.target):
                places.append(_LEFT_OUT)
            else:
                places.append(_HELD_OUT if held_out or (not named and is_held_out(key, spec.held_out)) else _TRAIN)
        at, key_of, size_of = np.array(places, np.uint8), np.array(keys, np.uint64), np.array(sizes, np.int64)
        excluded = {}
        if malformed:
            excluded[_MALFORMED] = (len(malformed), 0)  # their bytes are not known any more
        if blank := int((at == _LEFT_OUT).sum()):
            excluded[_BLANK] = (blank, int(size_of[at == _LEFT_OUT].sum()))
        if not named and not (at == _HELD_OUT).any() and (at == _TRAIN).any():  # chance gave none: the least hash
            least = key_of[at == _TRAIN].min()
            at[(key_of == least) & (at == _TRAIN)] = _HELD_OUT
        both = (at == _TRAIN) & np.isin(key_of, key_of[at == _HELD_OUT])
        if both.any():
            excluded[_HELD_OUT_TOO] = (int(both.sum()), int(size_of[both].sum()))
            at[both] = _LEFT_OUT
        for part, purpose, name in (
            (_TRAIN, "train", spec.source),
            (_HELD_OUT, "validate", spec.held_out_source or spec.source),
        ):
            if not (at == part).any():
                raise TextTooSmall(
                    f"there are no pairs to {purpose} on", where=name, remedy="use more text; pairs have two sides"
                )
        return cls(spec, at, excluded)

    def pairs(self, part: int) -> Iterator[Pair]:
        """Raises DataChanged when there are not as many as before."""
        number = 0
        for number, (pair, _) in enumerate(_read(self._spec, lambda error: None), start=1):
            if number <= len(self._places) and self._places[number - 1] == part:
                yield pair
        if number != len(self._places):
            raise DataChanged(
                "the text changed while it was read", where=self._spec.source, remedy="run again when it is at rest"
            )


def _read(spec: DataSpec, malformed: Malformed) -> Iterator[tuple[Pair, bool]]:
    """All pairs, and whether they come from the files to validate on. `malformed` is told of lines that the job leaves
    out."""
    told = malformed if spec.columns.malformed == "leave-out" else None
    for pair in read_pairs(spec.source, spec.columns, malformed=told):
        yield pair, False
    if spec.held_out_source is not None:
        for pair in read_pairs(spec.held_out_source, spec.columns, malformed=told):
            yield pair, True
