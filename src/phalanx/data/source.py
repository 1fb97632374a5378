"""A source of text: an ordered list of files, the rules that leave some out, and the documents in the rest.

Knows how to read text safely (regular files only, strict UTF-8, duplicates once) and to say what
it left out and why. Knows nothing of tokens; which files there are is said by `data.sources`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.data.errors import NotText, SourceEmpty, SourceMissing

NAME_TEXT = "name a file of UTF-8 text, or a directory of them"
_SNIFF_BYTES = 8192
_BATCH_CHARACTERS = 1 << 20

Progress = Callable[[str, float], None]
"""Called with the stage ("reading", "learning", "encoding", "ready") and its share done, 0 to 1."""


@dataclass(frozen=True)
class Document:
    """One piece of text that is read on its own.

    `group` is the SHA-256 (hexadecimal) of the file or section it comes from: all documents of a
    group go to the same split.
    """

    name: str
    text: str
    group: str


@dataclass(frozen=True)
class SourceFile:
    """`name` is relative to the source's root with '/', so that order and names agree on every machine."""

    name: str
    path: Path
    bytes: int


@dataclass
class Tally:
    """What one pass over a source read, and what it left out: reason -> (files, bytes)."""

    files: int = 0
    bytes: int = 0
    excluded: dict[str, tuple[int, int]] = field(default_factory=dict)

    def exclude(self, reason: str, size: int) -> None:
        files, total = self.excluded.get(reason, (0, 0))
        self.excluded[reason] = (files + 1, total + size)


Extract = Callable[[SourceFile, str], Iterable[Document]]
Reject = Callable[[SourceFile, str], str | None]


def whole_file(file: SourceFile, text: str) -> Iterator[Document]:
    """The file as one document."""
    yield Document(file.name, text, text_hash(text))


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def is_held_out(group: str, share: float) -> bool:
    """Whether the file with this SHA-256 (hexadecimal) is held out: its first 64 bits, as a fraction, below `share`."""
    return int(group[:16], 16) < share * 2**64


def batches_of(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists of about a million characters: enough for a tokenizer to be fast, little to hold."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def looks_binary(path: Path) -> bool:
    """Whether a NUL byte is among the first 8 KiB, as git judges it."""
    with path.open("rb") as file:
        return b"\0" in file.read(_SNIFF_BYTES)


def decode(data: bytes, where: Path) -> str:
    """`data` as text. Raises NotText with the position of the first bad byte."""
    if b"\0" in data[:_SNIFF_BYTES]:
        raise NotText("is a binary file, not text", where=str(where), remedy=NAME_TEXT)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotText(
            f"is not UTF-8 text: byte {data[error.start]:#04x} at offset {error.start:,}",
            where=str(where),
            remedy=f"convert it, for example: iconv -f latin1 -t utf-8 {where.name} > {where.stem}.utf8.txt",
        ) from error


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises SourceMissing, saying why, when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceMissing(
            f"cannot be read ({error.strerror})",
            where=str(path),
            remedy="make it readable for this user, or take it out of the data",
        ) from error


@dataclass
class Source:
    """Files in a fixed order, and how documents are got out of them.

    `strict`: a file that is not text is an error (the person named this very file); otherwise it
    is left out and counted. `excluded` counts what was left out when the files were listed;
    `rules` names the version of everything that decides what the documents are.
    """

    name: str
    files: tuple[SourceFile, ...]
    rules: str
    extract: Extract = whole_file
    reject: Reject | None = None
    strict: bool = False
    excluded: dict[str, tuple[int, int]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) over rules, names and contents: equal fingerprints mean equal documents."""
        digest = hashlib.sha256(self.rules.encode())
        for file in self.files:
            digest.update(f"\0{file.name}\0".encode())
            digest.update(hashlib.sha256(read_bytes(file.path)).digest())
        return digest.hexdigest()

    def documents(self) -> Iterator[Document]:
        """Documents in a fixed order; each exact duplicate of a file is read once.

        Fills `tally` anew. Raises NotText (strict sources), SourceMissing, and SourceEmpty when
        there was no text at all.
        """
        self.tally = Tally(excluded=dict(self.excluded))
        seen: set[bytes] = set()
        found = False
        for file in self.files:
            for document in self._documents_of(file, seen):
                found = True
                yield document
        if not found:
            reasons = ", ".join(f"{files:,} {reason}" for reason, (files, _) in sorted(self.tally.excluded.items()))
            left_out = f" (left out: {reasons})" if reasons else ""
            raise SourceEmpty(f"there is no text in it{left_out}", where=self.name, remedy=NAME_TEXT)

    def _documents_of(self, file: SourceFile, seen: set[bytes]) -> Iterator[Document]:
        data = read_bytes(file.path)
        digest = hashlib.sha256(data).digest()
        if digest in seen:
            self.tally.exclude("duplicate", len(data))
            return
        seen.add(digest)
        try:
            text = decode(data, file.path)
        except NotText:
            if self.strict:
                raise
            self.tally.exclude("not UTF-8 text", len(data))
            return
        reason = "empty" if not text.strip() else self.reject(file, text) if self.reject else None
        if reason is not None:
            self.tally.exclude(reason, len(data))
            return
        self.tally.files += 1
        self.tally.bytes += len(data)
        yield from self.extract(file, text)
