"""What a model predicted, example by example: files (CSV, TSV, Parquet, JSONL) or rows of the store, in batches.

Never whole in memory, and opened as often as a metric needs passes. Which column is which is said, or found by its
name. Of several readers each takes the batches whose turn it is, so that ranks share one file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray

from phalanx.evaluation.errors import UnusablePredictions
from phalanx.foundation import nearest

BLOCK_BYTES = 1 << 22
ROWS = 1 << 17  # of a batch of Parquet
MANY_COLUMNS = 20  # named in a message
FORMATS = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}

# For each role the names that it is looked for under, first come, first served.
NAMES: Mapping[str, tuple[str, ...]] = {
    "label": ("label", "labels", "y_true", "target", "truth", "class"),
    "score": ("score", "y_score", "probability", "prob", "p", "logit"),
    "prediction": ("prediction", "predicted", "y_pred", "pred", "predicted_label"),
    "weight": (),  # only where it is named
}

Batch = dict[str, NDArray[Any]]
"""A column for each role; "row": the number of each example in its file, from 0, and "file": its index."""


@dataclass(frozen=True)
class Columns:
    """Names that a person gave; None: to be found. `slice`, `id` and `shown` are only there when they are named."""

    label: str | None = None
    score: str | None = None
    prediction: str | None = None
    weight: str | None = None
    slice: str | None = None
    id: str | None = None
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predictions:
    """`columns`: of each role the name in the files. Made by `open_predictions`."""

    files: tuple[Path, ...]
    columns: Mapping[str, str]
    shown: tuple[str, ...] = ()
    part: int = 0
    parts: int = 1

    def share(self, batch: Batch) -> float:
        """How much of all files has been read when `batch` has, roughly: rows are as long as at the beginning."""
        sizes = [file.stat().st_size for file in self.files]
        index = int(batch["file"][0])
        within = min((int(batch["row"][-1]) + 1) * _bytes_a_row(self.files[index]), sizes[index])
        return (sum(sizes[:index]) + within) / max(sum(sizes), 1)

    def has(self, role: str) -> bool:
        """Whether there is a column for it."""
        return role in self.columns

    def of(self, part: int, parts: int) -> Predictions:
        """Every `parts`th batch, beginning with number `part`."""
        return replace(self, part=part, parts=parts)

    def like_label(self, text: str) -> str | int:
        """A label that a person typed, as those of the file are. Raises UnusablePredictions for one that none is."""
        for batch in replace(self, part=0, parts=1).batches("label"):
            kind = batch["label"].dtype.kind
            if kind == "U":
                return text
            words = {"true": 1, "false": 0}
            if text.lower() in words or text.lstrip("-").isdigit():
                return words.get(text.lower(), int(text) if text.lstrip("-").isdigit() else 0)
            raise UnusablePredictions(
                f"{text!r} is no label: those of {self.columns['label']} are numbers",
                where=str(self.files[0]),
                remedy="name one of them with --positive",
            )
        return text

    def batches(self, *roles: str, shown: bool = False) -> Iterator[Batch]:
        """Of these roles, and of the columns to be `shown` under their own names. Raises UnusablePredictions."""
        wanted = {role: self.columns[role] for role in roles}
        number = 0
        for index, file in enumerate(self.files):
            row = 0
            for batch in _open(file, sorted({*wanted.values(), *(self.shown if shown else ())})):
                if number % self.parts == self.part and batch.num_rows:
                    found = {role: _column(file, batch, name, row) for role, name in wanted.items()}
                    if shown:
                        found |= {
                            f"shown {name}": np.asarray(batch.column(name).to_pylist(), object) for name in self.shown
                        }
                    found["row"] = np.arange(row, row + batch.num_rows)
                    found["file"] = np.full(batch.num_rows, index)
                    yield found
                row += batch.num_rows
                number += 1


def open_predictions(files: Sequence[Path], columns: Columns) -> Predictions:
    """Of files that have the same columns. Raises UnusablePredictions, which names the columns that there are."""
    all_names = [_names(file) for file in files]
    for file, names in zip(files[1:], all_names[1:], strict=True):
        if set(names) != set(all_names[0]):
            raise UnusablePredictions(
                f"its columns are {_listed(names)}, those of {files[0]} {_listed(all_names[0])}",
                where=str(file),
                remedy="evaluate files of one kind together",
            )
    names = all_names[0]
    found = {}
    for role, usual in NAMES.items():
        said = getattr(columns, role)
        if said is not None:
            found[role] = _there(files[0], said, names, f"--{role}")
        elif name := next((each for each in usual if each in names), None):
            found[role] = name
    for role in ("slice", "id"):
        if (said := getattr(columns, role)) is not None:
            found[role] = _there(files[0], said, names, f"--{role}")
    if "label" not in found:
        raise UnusablePredictions(
            f"no column says what the examples are: there are {_listed(names)}",
            where=str(files[0]),
            remedy=f"name it with --label, or call it {' or '.join(NAMES['label'][:3])}",
        )
    if "score" not in found and "prediction" not in found:
        raise UnusablePredictions(
            f"no column says what was predicted: there are {_listed(names)}",
            where=str(files[0]),
            remedy="name scores with --score, or classes with --prediction",
        )
    shown = tuple(_there(files[0], name, names, "--show") for name in columns.shown)
    return Predictions(tuple(files), found, shown)


@cache
def _bytes_a_row(file: Path) -> float:
    """Of Parquet exactly, on the whole; of text those of its beginning."""
    if _format(file) == "parquet":
        return file.stat().st_size / max(int(pa.parquet.read_metadata(file).num_rows), 1)
    with file.open("rb") as opened:
        beginning = opened.read(BLOCK_BYTES)
    return len(beginning) / max(beginning.count(b"\n"), 1)


def write_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], file: Path, source: str) -> Path:
    """Rows of a query as a file of predictions. Raises UnusablePredictions when there are none."""
    if not rows:
        raise UnusablePredictions("gives no rows", where=source, remedy="`phalanx events tables` shows what there is")
    each = {name: [row[index] for row in rows] for index, name in enumerate(columns)}
    try:
        pa.parquet.write_table(pa.table(each), file)
    except pa.ArrowException as error:
        raise UnusablePredictions(f"gives a column of mixed types: {error}", where=source, remedy="CAST it") from None
    return file


def _there(file: Path, name: str, names: Sequence[str], option: str) -> str:
    if name not in names:
        near = nearest(name, list(names))
        raise UnusablePredictions(
            f"there is no column {name!r}; there are {_listed(names)}",
            where=str(file),
            remedy=f"did you mean {option} {near}?" if near else f"name one of them with {option}",
        )
    return name


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MANY_COLUMNS} more" if len(names) > MANY_COLUMNS else ""
    return ", ".join(map(repr, names[:MANY_COLUMNS])) + more


def _format(file: Path) -> str:
    if not file.is_file():
        raise UnusablePredictions(
            "is a directory" if file.is_dir() else "there is no such file",
            where=str(file),
            remedy="name a file of predictions",
        )
    if file.suffix.lower() not in FORMATS:
        raise UnusablePredictions(
            f"is of no known kind ({file.suffix or 'no ending'})", where=str(file), remedy=f"give {', '.join(FORMATS)}"
        )
    if not file.stat().st_size:
        raise UnusablePredictions("is empty", where=str(file), remedy="write the predictions again")
    return FORMATS[file.suffix.lower()]


def _names(file: Path) -> list[str]:
    kind = _format(file)
    try:
        if kind == "parquet":
            with pa.parquet.ParquetFile(file) as opened:
                return list(opened.schema_arrow.names)
        if kind == "jsonl":
            with pa.json.open_json(file, _json_options()) as reader:
                return list(reader.schema.names)
        with pa.csv.open_csv(file, *_csv_options(kind)) as reader:
            names = list(reader.schema.names)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, kind, error) from None
    if len(set(names)) != len(names):
        raise UnusablePredictions(f"two columns have one name: {_listed(names)}", where=str(file), remedy="rename one")
    return names


def _open(file: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    kind = _format(file)
    try:
        if kind == "parquet":
            with pa.parquet.ParquetFile(file) as opened:
                yield from opened.iter_batches(ROWS, columns=names)
            return
        if kind == "jsonl":
            with pa.json.open_json(file, _json_options()) as reader:
                for batch in reader:
                    yield batch.select(names)
            return
        read, parse, convert = _csv_options(kind)
        convert.include_columns = names
        with pa.csv.open_csv(file, read, parse, convert) as reader:
            yield from reader
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, kind, error) from None


def _csv_options(kind: str) -> tuple[Any, Any, Any]:
    return (
        pa.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        pa.csv.ParseOptions(delimiter="\t" if kind == "tsv" else ",", newlines_in_values=True),
        pa.csv.ConvertOptions(),
    )


def _json_options() -> Any:
    return pa.json.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)


def _unreadable(file: Path, kind: str, error: Exception) -> UnusablePredictions:
    words = " ".join(str(error).split())
    return UnusablePredictions(
        f"cannot be read as {kind.upper()}: {words}", where=str(file), remedy="write it again, whole"
    )


def _column(file: Path, batch: pa.RecordBatch, name: str, row: int) -> NDArray[Any]:
    found = batch.column(name)
    if found.null_count:
        first = row + int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))
        raise UnusablePredictions(
            f"{name} has no value in {found.null_count:,} rows of a batch, first in row {first:,} (counted from 0)",
            where=str(file),
            remedy="leave these examples out, or ask why they have none",
        )
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if pa.types.is_string(found.type) or pa.types.is_large_string(found.type):
        return np.asarray(found.to_pylist(), np.str_)
    values: NDArray[Any] = found.to_numpy(zero_copy_only=False)
    return values
