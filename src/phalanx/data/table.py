"""Examples in files: one or two texts and a label a row (TSV, CSV, JSONL), or words and their tags (CoNLL, JSONL).

Read as a stream, also through gzip. TSV is what GLUE's files are: fields between tabs, never quoted, so that a quote
is text. Every error names the file and the line. Knows nothing of tokens, splits or what labels mean.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from phalanx.data.errors import BadTable, NotText, SourceEmpty, SourceMissing
from phalanx.foundation import nearest
from phalanx.job import ColumnsSpec

KINDS = {
    ".tsv": "tsv",
    ".txt": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
}
# Under which names a column is looked for when the job names none; GLUE's own are among them.
NAMES: dict[str, tuple[str, ...]] = {
    "text": ("sentence", "sentence1", "question1", "question", "premise", "#1 string", "text", "source"),
    "pair": ("sentence2", "question2", "hypothesis", "#2 string", "text2", "target"),
    "label": ("label", "gold_label", "labels", "quality", "is_duplicate", "score", "class"),
}
_QNLI = {"text": ("question",), "pair": ("sentence",)}  # its second text has the name that a single one has elsewhere
_WORDS, _TAGS = ("tokens", "words"), ("tags", "ner_tags", "labels")
_DOCUMENT_START = "-DOCSTART-"  # CoNLL-2003 begins its documents with a word of this name
_LONGEST_FIELD = 1 << 24
T = TypeVar("T")
Malformed = Callable[[BadTable], None]


@dataclass(frozen=True)
class Example:
    """`second`: of a pair; `label`: as it is written. `line` of the file, from 1."""

    first: str
    second: str | None
    label: str | None
    line: int


@dataclass(frozen=True)
class TaggedExample:
    """Words of a sentence, and as many tags. `line`: its first of the file, from 1."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


def read_examples(
    path: Path, columns: ColumnsSpec | None = None, *, labelled: bool = True, malformed: Malformed | None = None
) -> Iterator[Example]:
    """Examples of a TSV, CSV or JSONL file in the order of its rows; the ending of the name says which it is.

    `columns` None, or a column left out: found by the usual names (`NAMES`); of a table without names the first column
    is the text, and of two the second the label. `labelled` False: no label is looked for. `malformed` is told
    of a line with a wrong number of fields, which is then passed over; None: it is raised. Raises BadTable (no such
    column, a wrong number of fields, not JSON), NotText (not UTF-8), SourceMissing, SourceEmpty.
    """
    columns = columns or ColumnsSpec()
    kind = kind_of(path)
    if kind == "conll":
        raise BadTable("holds words and tags, not texts", where=str(path), remedy="use objective: tag")
    if kind == "jsonl":
        found = _of_objects(path, columns, labelled)
    else:
        rows = _fields_of_tsv(path) if kind == "tsv" else _fields_of_csv(path)
        found = _of_rows(path, rows, columns, labelled, malformed or _raise)
    yield from _not_empty(path, found)


def read_tagged(path: Path, columns: ColumnsSpec | None = None) -> Iterator[TaggedExample]:
    """Sentences of a file as CoNLL has them (a word and its tag a line, between spaces or tabs; an empty line ends a
    sentence), or JSONL with a list of words and one of tags. Columns and errors as for `read_examples`; of CoNLL the
    word is the first column and the tag the last."""
    columns = columns or ColumnsSpec()
    kind = kind_of(path)
    if kind == "csv":
        raise BadTable("words and tags are read from CoNLL-like text or JSONL", where=str(path), remedy="convert it")
    yield from _not_empty(path, _of_lists(path, columns) if kind == "jsonl" else _of_sentences(path, columns))


def kind_of(path: Path) -> str:
    """`tsv`, `csv`, `jsonl` or `conll`, by the ending before `.gz`. Raises BadTable for any other."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in KINDS:
        raise BadTable(
            f"the ending {suffix or '(none)'} says not what the file is",
            where=str(path),
            remedy=f"give it one of {', '.join(KINDS)}, also with .gz",
        )
    return KINDS[suffix]


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line, without its end (LF or CRLF); a byte order mark is left out.

    Raises NotText with the line and the byte, SourceMissing, and BadTable for gzip that is cut or altered.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, _decoded(line, path, number)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadTable(
            f"the compressed file is cut or altered after line {number:,} ({error})",
            where=str(path),
            remedy="fetch it again",
        ) from error
    except OSError as error:
        raise SourceMissing(
            f"cannot be read ({error.strerror})", where=str(path), remedy="name a file that this user may read"
        ) from error


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise NotText(
            f"line {number:,} is not UTF-8: byte {line[error.start]:#04x} at place {error.start + 1:,} of the line",
            where=str(path),
            remedy=f"convert it, for example: iconv -f latin1 -t utf-8 {path.name}",
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


def _not_empty(path: Path, found: Iterable[T]) -> Iterator[T]:
    empty = True
    for example in found:
        empty = False
        yield example
    if empty:
        raise SourceEmpty("there are no examples in it", where=str(path), remedy="name a file with a row an example")


def _fields_of_tsv(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines_of(path):
        if line:
            yield number, line.split("\t")


def _fields_of_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader((text + "\n" for _, text in lines_of(path)), strict=True)
    start = 1
    try:
        for fields in rows:
            if fields:
                yield start, fields
            start = rows.line_num + 1
    except csv.Error as error:
        raise BadTable(
            f"the row from line {start:,} on is not CSV ({error})",
            where=str(path),
            remedy='write a quote inside a quoted field twice: "" ; or name the file .tsv if it is not quoted',
        ) from error


def _of_rows(
    path: Path,
    rows: Iterator[tuple[int, list[str]]],
    columns: ColumnsSpec,
    labelled: bool,
    malformed: Malformed,
) -> Iterator[Example]:
    first = next(rows, None)
    if first is None:
        return
    width = len(first[1])
    places = _Places.of(path, columns, first[1], labelled)
    if not places.header:
        yield places.example(*first)
    for number, fields in rows:
        if len(fields) == width:
            yield places.example(number, fields)
        else:
            malformed(_wrong_width(path, number, fields, width))


def _raise(error: BadTable) -> None:
    raise error


def _wrong_width(path: Path, number: int, fields: Sequence[str], width: int) -> BadTable:
    quoted = kind_of(path) == "tsv" and len(fields) > width and any('"' in field for field in fields)
    return BadTable(
        f"line {number:,} has {len(fields)} fields, the first line {width}",
        where=str(path),
        remedy="a tab inside quotes still ends a field of TSV: save the table as .csv or .jsonl"
        if quoted
        else "give every line as many fields",
    )


@dataclass(frozen=True)
class _Places:
    """Which field is which. `header`: whether the first line holds names."""

    first: int
    second: int | None
    label: int | None
    header: bool

    def example(self, line: int, fields: list[str]) -> Example:
        second = None if self.second is None else fields[self.second]
        return Example(fields[self.first], second, None if self.label is None else fields[self.label], line)

    @classmethod
    def of(cls, path: Path, columns: ColumnsSpec, fields: list[str], labelled: bool) -> _Places:
        """From the first line."""
        header = columns.header if columns.header is not None else _is_header(columns, fields)
        names = fields if header else []
        text = _place(path, "text", columns.text, names, len(fields))
        first = 0 if text is None and not header else text
        if first is None:
            raise _unfound(path, "text", names)
        second = _place(path, "pair", columns.pair, names, len(fields))
        label = None
        if labelled:
            label = _place(path, "label", columns.label, names, len(fields))
            if label is None and not header and len(fields) == 2:
                label = 1
            if label is None:
                raise _unfound(path, "label", names or [str(place) for place in range(1, len(fields) + 1)])
        return cls(first, second, label, header)


def _is_header(columns: ColumnsSpec, fields: list[str]) -> bool:
    asked = {name for name in (columns.text, columns.pair, columns.label) if isinstance(name, str)}
    usual = {name for names in NAMES.values() for name in names}
    return any(field in asked or field.lower() in usual for field in fields)


def _place(path: Path, role: str, asked: str | int | None, names: list[str], width: int) -> int | None:
    """Of the column for `role`, from 0; None: nobody asked for it, and no usual name is there."""
    if isinstance(asked, int):
        if asked > width:
            raise BadTable(
                f"there is no column {asked}: the first line has {width}",
                where=str(path),
                remedy=f"correct data.columns.{role}; columns are counted from 1",
            )
        return asked - 1
    if asked is not None:
        if asked not in names:
            raise _unfound(path, role, names, asked)
        return names.index(asked)
    lower = [name.lower() for name in names]
    usual = _QNLI.get(role, ()) if {"question", "sentence"} <= set(lower) else NAMES[role]
    return next((lower.index(name) for name in usual or NAMES[role] if name in lower), None)


def _unfound(path: Path, role: str, names: Sequence[str], asked: str = "") -> BadTable:
    guess = nearest(asked, names) if asked else None
    there = ", ".join(names) if names else "the first line holds no names"
    return BadTable(
        f"there is no column {asked!r}: {there}" if asked else f"which column is the {role}? There are: {there}",
        where=str(path),
        remedy=f"did you mean {guess!r}?" if guess else f"set data.columns.{role} to a name, or a number from 1",
    )


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines_of(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise BadTable(
                f"line {number:,} is not JSON ({error})", where=str(path), remedy="write one JSON object a line"
            ) from error
        if "\\ud" in line or "\\uD" in line:  # only so can JSON hold half of a surrogate pair, which is no text
            _check_characters(path, number, json.dumps(value, ensure_ascii=False))
        if not isinstance(value, dict):
            raise BadTable(f"line {number:,} is no object", where=str(path), remedy='write {"text": ..., "label": ...}')
        yield number, value


def _check_characters(path: Path, number: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadTable(
            f"line {number:,} holds half of a surrogate pair, U+{ord(text[error.start]):04X}, which is no character",
            where=str(path),
            remedy="write the whole pair, or the character itself",
        ) from error


def _of_objects(path: Path, columns: ColumnsSpec, labelled: bool) -> Iterator[Example]:
    keys: tuple[str, str | None, str | None] | None = None
    for number, value in _objects(path):
        if keys is None:
            keys = _keys(path, columns, list(value), labelled)
        first, second, label = keys
        yield Example(
            _text_at(path, number, value, first),
            None if second is None else _text_at(path, number, value, second),
            None if label is None else _label_at(path, number, value, label),
            number,
        )


def _keys(path: Path, columns: ColumnsSpec, names: list[str], labelled: bool) -> tuple[str, str | None, str | None]:
    for role, asked in (("text", columns.text), ("pair", columns.pair), ("label", columns.label)):
        if isinstance(asked, int):
            raise BadTable(
                f"data.columns.{role} is a number, and JSON's fields have names", where=str(path), remedy="name it"
            )
    places = _Places.of(path, columns.model_copy(update={"header": True}), names, labelled)
    second, label = (None if place is None else names[place] for place in (places.second, places.label))
    return names[places.first], second, label


def _text_at(path: Path, number: int, value: dict[str, Any], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str):
        raise _no_value(path, number, key, "a text", value)
    return text


def _label_at(path: Path, number: int, value: dict[str, Any], key: str) -> str:
    label = value.get(key)
    if isinstance(label, bool) or not isinstance(label, str | int | float):
        raise _no_value(path, number, key, "a text or a number", value)
    return str(label)


def _no_value(path: Path, number: int, key: str, wanted: str, value: dict[str, Any]) -> BadTable:
    there = f"is {json.dumps(value[key])[:40]}, not {wanted}" if key in value else "is not there"
    return BadTable(f"line {number:,}: {key!r} {there}", where=str(path), remedy=f"give every line {wanted} for {key}")


def _of_lists(path: Path, columns: ColumnsSpec) -> Iterator[TaggedExample]:
    for number, value in _objects(path):
        words = _list_at(path, number, value, columns.text, _WORDS, "text")
        tags = _list_at(path, number, value, columns.label, _TAGS, "label")
        if len(words) != len(tags):
            raise BadTable(
                f"line {number:,} has {len(words)} words and {len(tags)} tags",
                where=str(path),
                remedy="give every word one tag",
            )
        yield TaggedExample(words, tags, number)


def _list_at(
    path: Path, number: int, value: dict[str, Any], asked: str | int | None, usual: tuple[str, ...], role: str
) -> tuple[str, ...]:
    key = str(asked) if asked is not None else next((name for name in usual if name in value), usual[0])
    items = value.get(key)
    fits = isinstance(items, list) and all(isinstance(i, str | int) and not isinstance(i, bool) for i in items)
    if not fits or not isinstance(items, list):
        wanted = f"a list of {'words' if role == 'text' else 'tags'}"
        raise _no_value(path, number, key, wanted, value)
    return tuple(str(item) for item in items)


def _of_sentences(path: Path, columns: ColumnsSpec) -> Iterator[TaggedExample]:
    for role, asked in (("text", columns.text), ("label", columns.label)):
        if isinstance(asked, str):
            raise BadTable(f"data.columns.{role} is a name, and the columns of CoNLL have numbers", where=str(path))
    words: list[str] = []
    tags: list[str] = []
    start = width = 0
    for number, line in lines_of(path):
        fields = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or fields[0] == _DOCUMENT_START:
            if words:
                yield TaggedExample(tuple(words), tuple(tags), start)
            words, tags = [], []
            continue
        width = width or len(fields)
        if len(fields) != width or width < 2:
            wanted = f"the lines before {width}" if width >= 2 else "a word and its tag are two"
            raise BadTable(
                f"line {number:,} has {len(fields)} fields, {wanted}",
                where=str(path),
                remedy="write a word and its tag a line, and an empty line after each sentence",
            )
        start = start if words else number
        for list_, asked, usual in ((words, columns.text, 1), (tags, columns.label, width)):
            place = usual if asked is None else int(asked)
            if place > width:
                raise BadTable(f"there is no column {place}: line {number:,} has {width}", where=str(path))
            list_.append(fields[place - 1])
    if words:
        yield TaggedExample(tuple(words), tuple(tags), start)
