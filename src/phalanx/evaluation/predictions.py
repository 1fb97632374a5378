"""What a model predicted, example by example: files (CSV, TSV, Parquet, JSONL), rows of the store, or arrays.

Given in batches, never whole in memory, and as often as a metric needs passes. Which column is which is said, or found
by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from phalanx.evaluation import reading
from phalanx.evaluation.errors import UnusablePredictions
from phalanx.evaluation.reading import Turns, column_names, listed
from phalanx.foundation import nearest
from phalanx.metrics import arrays

NO_SLICE = "(no value)"

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
    """`columns`: of each role the name in the files. `table`: instead of files. Made by `open_predictions` or
    `predictions_of`."""

    files: tuple[Path, ...]
    columns: Mapping[str, str]
    shown: tuple[str, ...] = ()
    table: pa.Table | None = None
    part: int = 0
    parts: int = 1

    def share(self, batch: Batch) -> float:
        """How much of all has been read when `batch` has, roughly."""
        rows = [float(self.table.num_rows)] if self.table is not None else [_rows_of(file) for file in self.files]
        index = int(batch["file"][0])
        within = min(int(batch["row"][-1]) + 1, rows[index])
        return (sum(rows[:index]) + within) / max(sum(rows), 1)

    def has(self, role: str) -> bool:
        """Whether there is a column for it."""
        return role in self.columns

    def of(self, part: int, parts: int) -> Predictions:
        """Every `parts`th batch, beginning with number `part`."""
        return replace(self, part=part, parts=parts)

    def are_amounts(self) -> bool:
        """Whether the labels at the beginning are numbers, and not whole ones."""
        labels = self._first_labels()
        return labels.dtype.kind == "f" and bool((labels % 1 != 0).any())

    def are_needles(self) -> bool:
        """Whether the labels at the beginning are truths, or 0 (-1) and 1: which is the needle need not be said."""
        labels = self._first_labels()
        return labels.dtype.kind in "biuf" and set(np.unique(labels).tolist()) <= {-1, 0, 1}

    def _first_labels(self) -> NDArray[Any]:
        first = next(replace(self, part=0, parts=1).batches("label"), None)
        return first["label"] if first is not None else np.zeros(0)

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
        for index, row, batch in self._read(sorted({*wanted.values(), *(self.shown if shown else ())})):
            if not batch.num_rows:
                continue
            file = str(self.files[index])
            found = {role: _column(file, batch, name, row, role) for role, name in wanted.items()}
            if shown:
                found |= {f"shown {name}": np.asarray(batch.column(name).to_pylist(), object) for name in self.shown}
            found["row"] = np.arange(row, row + batch.num_rows)
            found["file"] = np.full(batch.num_rows, index)
            yield found

    def _read(self, names: list[str]) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """Batches that are this part's, each with the index of its file and its first row there."""
        turns = Turns(self.part, self.parts)
        if self.table is not None:
            row = 0
            for batch in self.table.select(names).to_batches(reading.ROWS):
                if turns.take():
                    yield 0, row, batch
                row += batch.num_rows
            return
        numbers = {self.columns[role] for role in ("score", "weight") if role in self.columns}
        for index, file in enumerate(self.files):
            for row, batch in reading.read(file, names, numbers, turns):
                yield index, row, batch


def open_predictions(files: Sequence[Path], columns: Columns) -> Predictions:
    """Of files that have the same columns. Raises UnusablePredictions, which names the columns that there are."""
    all_names = [column_names(file) for file in files]
    for file, names in zip(files[1:], all_names[1:], strict=True):
        if set(names) != set(all_names[0]):
            raise UnusablePredictions(
                f"its columns are {listed(names)}, those of {files[0]} {listed(all_names[0])}",
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
            f"no column says what the examples are: there are {listed(names)}",
            where=str(files[0]),
            remedy=f"name it with --label, or call it {' or '.join(NAMES['label'][:3])}",
        )
    if "score" not in found and "prediction" not in found:
        raise UnusablePredictions(
            f"no column says what was predicted: there are {listed(names)}",
            where=str(files[0]),
            remedy="name scores with --score, or classes with --prediction",
        )
    shown = tuple(_there(files[0], name, names, "--show") for name in columns.shown)
    return Predictions(tuple(files), found, shown)


def predictions_of(
    label: arrays.ArrayLike,
    score: arrays.ArrayLike | None = None,
    prediction: arrays.ArrayLike | None = None,
    *,
    weight: arrays.ArrayLike | None = None,
    slices: arrays.ArrayLike | None = None,
    **shown: arrays.ArrayLike,
) -> Predictions:
    """Of arrays [n], of whatever `metrics` takes; `shown`: columns to be seen beside the worst examples.

    Raises UnusablePredictions without a score or a prediction, BadInput for what is no array or another length.
    """
    if score is None and prediction is None:
        raise UnusablePredictions("nothing says what was predicted", remedy="give scores or predictions, or both")
    given = {"label": label, "score": score, "prediction": prediction, "weight": weight, "slice": slices}
    found = {role: arrays.column(role, data) for role, data in given.items() if data is not None}
    extra = {name: arrays.column(name, data) for name, data in shown.items()}
    arrays.same_length(**{name: len(column) for name, column in (found | extra).items()})
    columns = {f"shown {name}": column for name, column in extra.items()} | found
    table = pa.table({name.removeprefix("shown "): pa.array(column) for name, column in columns.items()})
    return Predictions((Path("arrays"),), {role: role for role in found}, tuple(extra), table)


@cache
def _rows_of(file: Path) -> float:
    return reading.rows_of(file)


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
            f"there is no column {name!r}; there are {listed(names)}",
            where=str(file),
            remedy=f"did you mean {option} {near}?" if near else f"name one of them with {option}",
        )
    return name


def _column(file: str, batch: pa.RecordBatch, name: str, row: int, role: str) -> NDArray[Any]:
    found = batch.column(name)
    if role == "slice":
        return _words(found)
    if found.null_count:
        first = row + int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))
        raise UnusablePredictions(
            f"{name} has no value in {found.null_count:,} rows of a batch, first in row {first:,} (counted from 0)",
            where=file,
            remedy="leave these examples out, or ask why they have none",
        )
    kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _words(found)
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if pa.types.is_decimal(found.type):
        found = found.cast(pa.float64())
    values: NDArray[Any] = found.to_numpy(zero_copy_only=False)
    return values


def _words(found: Any) -> NDArray[np.str_]:
    """Each different one is made once."""
    coded = found if pa.types.is_dictionary(found.type) else found.dictionary_encode()
    names = [NO_SLICE if each is None else str(each) for each in coded.dictionary.to_pylist()]
    words: NDArray[np.str_] = np.array([*names, NO_SLICE], np.str_)[coded.indices.fill_null(len(names)).to_numpy()]
    return words
