"""What a person asks of a build, and the sizes that follow from the memory a process may hold.

Everything here that decides what the dataset holds is in `fingerprint`; the number of processes is not. Knows
nothing of files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from phalanx.data.errors import UnfitVocabulary
from phalanx.data.learn import check_vocabulary
from phalanx.foundation import UsageError, size_in_words
from phalanx.job import VocabularySpec
from phalanx.job.spec import Objective, VocabularyKind

Format = Literal["auto", "text", "jsonl", "parquet"]
Cut = Literal["file", "lines", "blank-lines"]

MEBI = 1 << 20
LEAST_MEMORY = 128 * MEBI
DEFAULT_MEMORY = 512 * MEBI
# What Python, numpy, pyarrow and tokenizers take before the first byte of text (measured: 82 MiB).
_LIBRARIES = 96 * MEBI
# A library's tokens take up to 250 bytes for each byte of hard text while a text is being encoded (measured).
_ENCODING_BYTES = 384
_LONGEST_DOCUMENT = MEBI
_RULES = 1


@dataclass(frozen=True)
class Filters:
    """Limits beyond which a document is left out; None: no limit. They know no language.

    `max_non_text`: share of characters that are no text (controls, unassigned, private use, U+FFFD). `max_word`:
    letters of the longest run of letters and digits (C4, Raffel 2020: 1,000). `max_repeated_lines`: share of lines
    that stood in the document before (Gopher, Rae 2021, table A1: 0.30). `max_repeated_ngrams`: share of words inside
    a sequence of five that stood in it before (Gopher: 0.15 of characters).
    """

    min_characters: int | None = None
    max_characters: int | None = None
    max_non_text: float | None = 0.25
    max_word: int | None = None
    max_repeated_lines: float | None = None
    max_repeated_ngrams: float | None = None


@dataclass(frozen=True)
class TrainTokenizer:
    """A vocabulary to be learned from a sample of the training text, of about `sample_bytes` bytes."""

    kind: VocabularyKind
    size: int
    objective: Objective
    sample_bytes: int

    def check(self) -> None:
        """Raises UnfitVocabulary as `learn.check_vocabulary` does, by the names of the command's options."""
        if self.size < 256:
            raise UnfitVocabulary(
                f"{self.size} entries are too few", where="--vocabulary-size", remedy="ask for at least 256"
            )
        try:
            check_vocabulary(VocabularySpec(kind=self.kind, size=self.size), self.objective)
        except UnfitVocabulary as error:
            option = "--vocabulary-size" if error.where.endswith("size") else "--train-tokenizer"
            raise UnfitVocabulary(error.message, where=option, remedy=error.remedy) from error


@dataclass(frozen=True)
class BuildOptions:
    """`sources`: files, directories and globs. `tokenizer_sha256`: of the vocabulary to use, or `train` says how to
    learn one. `near`: similarity from which a document is a near duplicate, None: not looked for."""

    sources: tuple[str, ...]
    tokenizer_sha256: str | None = None
    train: TrainTokenizer | None = None
    format: Format = "auto"
    text_field: str = "text"
    cut: Cut = "file"
    include: tuple[str, ...] = ()
    filters: Filters = field(default_factory=Filters)
    exact: bool = True
    near: float | None = 0.8
    held_out: float = 0.01
    skip_bad: bool = False
    licence: str = ""
    memory: int = DEFAULT_MEMORY

    def check(self) -> None:
        """Raises UsageError for what cannot be meant."""
        if self.memory < LEAST_MEMORY:
            raise UsageError(
                f"{size_in_words(self.memory)} are too little: Python and its libraries alone take about 85 MiB",
                where="--memory",
                remedy=f"give at least {size_in_words(LEAST_MEMORY)}",
            )
        if not 0 <= self.held_out < 1:
            raise UsageError(
                f"{self.held_out} is no share of documents to hold out", where="--held-out", remedy="0 to below 1"
            )
        if self.near is not None and not 0.3 <= self.near <= 1:
            raise UsageError(
                f"{self.near} is no threshold of similarity", where="--near-duplicates", remedy="from 0.3 to 1"
            )

        if self.train is not None:
            self.train.check()

    @property
    def working_memory(self) -> int:
        """Bytes for the work itself, beside the interpreter and its libraries."""
        return self.memory - _LIBRARIES

    @property
    def longest_document(self) -> int:
        """Bytes of UTF-8 from which a text is cut into several documents, so that its encoding fits the memory."""
        return min(_LONGEST_DOCUMENT, self.working_memory // _ENCODING_BYTES)

    @property
    def longest_line(self) -> int:
        """Bytes of a line that is read whole."""
        return self.working_memory // 16

    @property
    def sort_memory(self) -> int:
        """Bytes of records that are sorted at once; sorting needs about four times as much."""
        return self.working_memory // 8

    def deciding(self) -> dict[str, Any]:
        """All that decides the dataset's content, JSON-safe; memory only where it cuts long documents."""
        values = asdict(self)
        del values["memory"]
        return values | {
            "longest_document": self.longest_document,
            "longest_line": self.longest_line,
            "rules": _RULES,
        }

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> BuildOptions:
        """Of what `to_json` gave, after a way through JSON."""
        train = values["train"]
        return cls(
            **values
            | {
                "sources": tuple(values["sources"]),
                "include": tuple(values["include"]),
                "filters": Filters(**values["filters"]),
                "train": None if train is None else TrainTokenizer(**train),
            }
        )


def fingerprint(options: BuildOptions, sources_sha256: str) -> str:
    """SHA-256 (hexadecimal) of all that decides a dataset: the options, and the list of sources by its own hash."""
    parts = {"options": options.deciding(), "sources": sources_sha256}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
