"""The text that every machine with Python has: the standard library's source, and its documentation.

Which files count, which are tables that a program wrote, and how documentation is taken out of
source. Knows nothing of splits or tokens.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from phalanx.data.source import Document, Source, SourceFile, text_hash

SOURCE, DOCS = "stdlib-source", "stdlib-docs"
_RULES = "stdlib-1"
_TESTS = frozenset({"test", "tests", "idle_test"})
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "__pycache__", "_bundled", "lib-dynload"})
_TOPICS = "pydoc_data/topics.py"

# A line that holds a literal, or a few, and nothing else: `0x1f: 'x',  # comment`, `'\ue000'  # ...`, `"a", "b",`.
_DATA_LINE = re.compile(
    r"""\s*[\[({]*\s*(?:[bru]{0,2}(?:'[^']*'|"[^"]*")|-?0?x?[0-9a-fA-F]+)
        \s*(?:[:,]\s*(?:[bru]{0,2}(?:'[^']*'|"[^"]*")|-?0?x?[0-9a-fA-F]+|None)\s*)*[\])}]*,?\s*(?:\#.*)?""",
    re.VERBOSE,
)
_WRITTEN_BY_PROGRAM = re.compile(
    r"""\s*(?: \#.*\b(?:auto-?generated|generated\ (?:by|from|and\ used))\b
              | \"{3}.*\b(?:auto-?generated|generated\ from)\b )""",
    re.IGNORECASE | re.VERBOSE,
)
_NOTICE_LINES = 10
_UNDERLINE = re.compile(r"^[ \t]*([*=\-~^\"#+.])\1{3,}[ \t]*\n?", re.MULTILINE)
_PARAGRAPHS = re.compile(r"\n[ \t]*\n+")
_REPEATABLE_CHARACTERS = 80
_LEAST_WORDS = 3


def stdlib_root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def is_generated(text: str) -> bool:
    """Whether a program wrote it: it says so in its first lines, or more than half of its lines are bare literals."""
    lines = [line for line in text.splitlines() if line.strip()]
    if any(_WRITTEN_BY_PROGRAM.match(line) for line in lines[:_NOTICE_LINES]):
        return True
    return 2 * sum(_DATA_LINE.fullmatch(line) is not None for line in lines) > len(lines)


def stdlib_files(root: Path) -> tuple[tuple[SourceFile, ...], dict[str, tuple[int, int]]]:
    """Python files below `root` in order of name, and how many (files, bytes) tests were left out."""
    files: list[SourceFile] = []
    tests, test_bytes = 0, 0
    for directory, subdirectories, names in os.walk(root):
        subdirectories[:] = sorted(set(subdirectories) - _NOT_LIBRARY)
        relative = Path(directory).relative_to(root)
        for name in sorted(names):
            path = Path(directory, name)
            if not name.endswith(".py") or not path.is_file():
                continue
            size = path.stat().st_size
            if _TESTS.intersection(relative.parts):
                tests, test_bytes = tests + 1, test_bytes + size
            else:
                files.append(SourceFile((relative / name).as_posix(), path, size))
    files.sort(key=lambda file: file.name)
    return tuple(files), {"test": (tests, test_bytes)} if tests else {}


def stdlib_source(root: Path | None = None) -> Source:
    """`*.py` of the standard library without tests, generated tables and duplicates; a file is a document."""
    files, excluded = stdlib_files(root or stdlib_root())
    return Source(
        SOURCE,
        files,
        f"{_RULES} source",
        reject=lambda _, text: "generated" if is_generated(text) else None,
        excluded=excluded,
    )


def stdlib_docs(root: Path | None = None) -> Source:
    """Docstrings of the same files, one document a module, class (with its methods) or function; and the
    language reference that `help()` shows, one document a topic. Repeated paragraphs are kept once, because
    the reference repeats whole sections, which would put held-out text into the training part.
    """
    files, excluded = stdlib_files(root or stdlib_root())
    extractor = _Documentation()
    return Source(DOCS, files, f"{_RULES} docs", extract=extractor, reject=extractor.reject, excluded=excluded)


class _Documentation:
    """Takes documents out of files, remembering the paragraphs already seen; starts anew with the first file."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._first = ""

    def reject(self, file: SourceFile, text: str) -> str | None:
        if file.name == _TOPICS:
            return None
        return "generated" if is_generated(text) else None

    def __call__(self, file: SourceFile, text: str) -> Iterator[Document]:
        if not self._first or self._first == file.name:
            self._first = file.name
            self._seen.clear()
        if file.name == _TOPICS:
            for topic, body in _topics(text):
                yield from self._document(f"{file.name}:{topic}", body, text_hash(body))
            return
        group = text_hash(text)
        for name, body in docstrings(text):
            yield from self._document(f"{file.name}:{name}", body, group)

    def _document(self, name: str, body: str, group: str) -> Iterator[Document]:
        kept = []
        for paragraph in _PARAGRAPHS.split(_UNDERLINE.sub("", body)):
            words = paragraph.split()
            if len(paragraph) >= _REPEATABLE_CHARACTERS:
                key = hash_of_words(words)
                if key in self._seen:
                    continue
                self._seen.add(key)
            kept.append(paragraph.rstrip())
        text = "\n\n".join(kept).strip()
        if len(text.split()) >= _LEAST_WORDS:
            yield Document(name, text, group)


def hash_of_words(words: list[str]) -> int:
    """64 bits of a hash that is the same in every process (unlike `hash`)."""
    return int(text_hash(" ".join(words))[:16], 16)


def docstrings(text: str) -> Iterator[tuple[str, str]]:
    """(name, docstrings) of the module and of each class or function at its top level, inner ones included.

    Nothing for source that this Python cannot parse.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    if own := ast.get_docstring(tree, clean=False):
        yield "(module)", inspect.cleandoc(own)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            parts = list(_inner_docstrings(node))
            if parts:
                yield node.name, "\n\n".join(parts)


def _inner_docstrings(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    if own := ast.get_docstring(node, clean=False):
        yield inspect.cleandoc(own)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _inner_docstrings(child)


def _topics(text: str) -> Iterator[tuple[str, str]]:
    """The entries of the dictionary literal in pydoc's topics, longest first, so that a section that is also a
    topic of its own is kept where its context is."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            entries: dict[str, str] = ast.literal_eval(node.value)
            yield from sorted(entries.items(), key=lambda item: (-len(item[1]), item[0]))
