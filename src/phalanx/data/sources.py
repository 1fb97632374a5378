"""From a job's `data.source` to a Source: one of the standard library's two, a file, or a directory of text.

`check_source` is the cheap look that admission takes: it lists and samples, and reads no file whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.data import stdlib
from phalanx.data.errors import DataError, NotText, SourceEmpty, SourceMissing
from phalanx.data.labelled import example_file
from phalanx.data.parallel import pair_files, read_pairs
from phalanx.data.source import NAME_TEXT, Document, Source, SourceFile, looks_binary, text_hash
from phalanx.data.table import read_examples, read_tagged
from phalanx.foundation import nearest
from phalanx.job import DataSpec, Finding
from phalanx.job.spec import Objective

BUILT_IN = (stdlib.SOURCE, stdlib.DOCS)

# With fewer files than this a split by file would be a matter of luck: files are cut into sections then.
_ENOUGH_FILES = 20
_SECTIONS = 100
_SECTION_BYTES = (2048, 1 << 20)
_RULES = "text-1"
_RULE_OF: dict[type[DataError], str] = {
    SourceEmpty: "data.empty",
    NotText: "data.not-text",
    SourceMissing: "data.missing",
}


@dataclass(frozen=True)
class SourceReport:
    """What a cheap look at a source shows. `bytes` counts what would be read, before duplicates are removed."""

    source: str
    files: int = 0
    bytes: int = 0
    excluded: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: tuple[Finding, ...] = ()


def open_source(spec: DataSpec) -> Source:
    """The source that the job names. Raises SourceMissing, SourceEmpty or NotText."""
    if spec.source == stdlib.SOURCE:
        return _non_empty(stdlib.stdlib_source())
    if spec.source == stdlib.DOCS:
        return _non_empty(stdlib.stdlib_docs())
    path = Path(spec.source).expanduser()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _missing(spec.source, error) from error
    except ValueError as error:  # a NUL character in the path
        raise SourceMissing(f"is not a path ({error})", where=repr(spec.source), remedy=NAME_TEXT) from error
    if stat.S_ISDIR(mode):
        return _directory(path)
    if not stat.S_ISREG(mode):
        raise SourceMissing("is neither a file nor a directory", where=str(path), remedy=NAME_TEXT)
    return _single_file(path)


def check_source(spec: DataSpec) -> SourceReport:
    """Whether the source can be opened and holds text: never raises DataError, but reports it as a finding."""
    try:
        source = open_source(spec)
        for file in source.files[:1]:
            with file.path.open("rb"):
                pass
    except DataError as error:
        return SourceReport(spec.source, problems=(problem(spec.source, error),))
    except OSError as error:
        return SourceReport(spec.source, problems=(problem(spec.source, _missing(spec.source, error)),))
    return SourceReport(
        spec.source,
        len(source.files),
        sum(file.bytes for file in source.files),
        source.excluded,
        tuple(_left_out(spec.source, source.excluded)),
    )


def check_pairs(spec: DataSpec) -> SourceReport:
    """As `check_source`, of parallel text: whether its files are there, and the first of them are pairs."""
    names = [spec.source] if spec.held_out_source is None else [spec.source, spec.held_out_source]
    files: list[Path] = []
    try:
        for name in names:
            files += pair_files(name)
            next(read_pairs(name, spec.columns), None)
    except DataError as error:
        return SourceReport(spec.source, problems=(problem(error.where or spec.source, error),))
    return SourceReport(spec.source, len(files), sum(file.stat().st_size for file in files))


def check_examples(spec: DataSpec, objective: Objective) -> SourceReport:
    """As `check_source`, of labelled examples: whether the files are there, and the first rows fit the columns."""
    names = [spec.source] if spec.held_out_source is None else [spec.source, spec.held_out_source]
    try:
        files = [example_file(name) for name in names]
        for file in files:
            next(read_tagged(file, spec.columns) if objective == "tag" else read_examples(file, spec.columns), None)
    except DataError as error:
        return SourceReport(spec.source, problems=(problem(error.where or spec.source, error),))
    return SourceReport(spec.source, len(files), sum(file.stat().st_size for file in files))


def _non_empty(source: Source) -> Source:
    if not sum(file.bytes for file in source.files):
        left_out = ", ".join(f"{files} {reason}" for reason, (files, _) in sorted(source.excluded.items()))
        raise SourceEmpty(
            "holds no text" + (f" (left out: {left_out})" if left_out else " (it is empty)"),
            where=source.name,
            remedy=f"{NAME_TEXT}, or {' or '.join(BUILT_IN)}",
        )
    return source


def _missing(name: str, error: OSError) -> SourceMissing:
    guess = nearest(Path(name).name, BUILT_IN)
    remedy = f"did you mean {guess}?" if guess else f"{NAME_TEXT} that this user may read, or {' or '.join(BUILT_IN)}"
    return SourceMissing(f"cannot be read ({error.strerror})", where=name, remedy=remedy)


def problem(subject: str, error: DataError) -> Finding:
    """What is wrong with the data, as admission says it."""
    rule = _RULE_OF.get(type(error), "data.unusable")
    return Finding(
        id=f"{rule}:{subject}",
        rule=rule,
        severity="high",
        subject=subject,
        location=error.where,
        evidence=error.message,
        remedy=error.remedy,
        source="data",
    )


def _left_out(subject: str, excluded: dict[str, tuple[int, int]]) -> Iterator[Finding]:
    for reason, (files, size) in sorted(excluded.items()):
        rule = f"data.left-out.{reason.split()[0]}"
        yield Finding(
            id=f"{rule}:{subject}",
            rule=rule,
            severity="info",
            subject=subject,
            evidence=f"{files:,} files of {size:,} bytes are left out: {reason}",
            remedy="nothing, if this is meant",
            source="data",
        )


def _single_file(path: Path) -> Source:
    file = SourceFile(path.name, path, path.stat().st_size)
    try:
        binary = looks_binary(path)
    except OSError as error:
        raise _missing(str(path), error) from error
    if binary:
        raise NotText("is a binary file, not text", where=str(path), remedy=NAME_TEXT)
    return _non_empty(_in_sections(str(path), (file,), {}, strict=True))


def _directory(root: Path) -> Source:
    excluded: dict[str, tuple[int, int]] = {}
    files = tuple(sorted(_walk(root, excluded), key=lambda file: file.name))
    if len(files) < _ENOUGH_FILES:
        return _non_empty(_in_sections(str(root), files, excluded, strict=False))
    return _non_empty(Source(str(root), files, _RULES, excluded=excluded))


def _walk(root: Path, excluded: dict[str, tuple[int, int]]) -> Iterator[SourceFile]:
    """Regular files with text below `root`, links followed, every directory once (so a loop of links ends)."""

    def refuse(error: OSError) -> None:
        raise _missing(str(error.filename), error) from error

    def exclude(reason: str, size: int) -> None:
        files, total = excluded.get(reason, (0, 0))
        excluded[reason] = (files + 1, total + size)

    visited: set[tuple[int, int]] = set()
    for directory, subdirectories, names in os.walk(root, onerror=refuse, followlinks=True):
        here = os.stat(directory)
        if (here.st_dev, here.st_ino) in visited:
            subdirectories.clear()
            continue
        visited.add((here.st_dev, here.st_ino))
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        for name in sorted(names):
            path = Path(directory, name)
            if name.startswith("."):
                exclude("hidden", path.lstat().st_size)
            elif not path.is_file():  # a broken link, a pipe, a socket
                exclude("not a file", 0)
            else:
                size = path.stat().st_size
                try:
                    binary = looks_binary(path)
                except OSError as error:
                    raise _missing(str(path), error) from error
                if binary or not size:
                    exclude("binary" if binary else "empty", size)
                else:
                    yield SourceFile(path.relative_to(root).as_posix(), path, size)


def _in_sections(
    name: str, files: tuple[SourceFile, ...], excluded: dict[str, tuple[int, int]], *, strict: bool
) -> Source:
    """A source of few files: about a hundred sections, each kept for training or held out on its own."""
    total = sum(file.bytes for file in files)
    size = min(max(total // _SECTIONS, _SECTION_BYTES[0]), _SECTION_BYTES[1])

    def sections(file: SourceFile, text: str) -> Iterator[Document]:
        start = 0
        while start < len(text):
            line_end = text.find("\n", start + size, start + 2 * size)
            end = line_end + 1 if line_end >= 0 else start + size  # a line longer than a section is cut in the middle
            section = text[start:end]
            if section.strip():
                yield Document(f"{file.name}@{start}", section, text_hash(section))
            start = end

    return Source(name, files, f"{_RULES} sections of {size}", extract=sections, strict=strict, excluded=excluded)
