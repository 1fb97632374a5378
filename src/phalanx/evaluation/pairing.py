"""The same examples in two predictions: row by row, or by a column of names, whatever the order of the rows.

Row by row both are streamed. By names all of the second that is asked for is held in memory, to be looked up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.evaluation.errors import UnusablePredictions
from phalanx.evaluation.passes import Progress
from phalanx.evaluation.predictions import Batch, Predictions

Pair = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Labels, what the one says of them, and what the other does, [n] each."""


def pairs(a: Predictions, b: Predictions, role: str, stage: str, progress: Progress) -> Iterator[Pair]:
    """Of a column `role`, in the order of `a`. Raises UnusablePredictions where they are not of the same examples."""
    if a.has("id") and b.has("id"):
        yield from _by_name(a, b, role, stage, progress)
    else:
        yield from _by_row(a, b, role, stage, progress)


def _by_row(a: Predictions, b: Predictions, role: str, stage: str, progress: Progress) -> Iterator[Pair]:
    streams = [_Rows(each, ("label", role)) for each in (a, b)]
    row = 0
    while True:
        one, other = streams[0].peek(), streams[1].peek()
        if one is None or other is None:
            break
        length = min(len(one["label"]), len(other["label"]))
        one, other = streams[0].take(length), streams[1].take(length)
        apart = one["label"] != other["label"]
        if np.any(apart):
            first = int(np.argmax(apart))
            raise UnusablePredictions(
                f"row {row + first:,} (counted from 0) has the label {_quoted(one['label'], first)} in {a.files[0]}, "
                f"but {_quoted(other['label'], first)} in {b.files[0]}: these are not the same examples in the same "
                "order",
                remedy="name a column of names that both have: --id",
            )
        progress(stage, streams[0].share)
        yield one["label"], one[role], other[role]
        row += length
    if streams[0].peek() is not None or streams[1].peek() is not None:
        longer = a if streams[0].peek() is not None else b
        raise UnusablePredictions(
            f"it has more than the {row:,} rows of {(b if longer is a else a).files[0]}",
            where=str(longer.files[0]),
            remedy="compare predictions of the same examples",
        )


def _by_name(a: Predictions, b: Predictions, role: str, stage: str, progress: Progress) -> Iterator[Pair]:
    names, labels, values = _held(b, ("id", "label", role))
    twice = np.flatnonzero(names[1:] == names[:-1])
    if len(twice):
        raise UnusablePredictions(
            f"the id {_quoted(names, int(twice[0]))} occurs twice",
            where=str(b.files[0]),
            remedy="name one that does not",
        )
    met = np.zeros(len(names), np.bool_)
    for batch in a.batches("id", "label", role):
        if len(names) and (batch["id"].dtype.kind in "US") != (names.dtype.kind in "US"):
            raise UnusablePredictions(
                f"ids are words in one of {a.files[0]} and {b.files[0]}, and numbers in the other"
            )
        places = np.searchsorted(names, batch["id"]).clip(0, max(len(names) - 1, 0))
        there = names[places] == batch["id"] if len(names) else np.zeros(len(places), np.bool_)
        if not there.all():
            lacking = _quoted(batch["id"], int(np.argmin(there)))
            raise UnusablePredictions(
                f"the id {lacking} of {a.files[0]} is not there",
                where=str(b.files[0]),
                remedy="give both the same examples",
            )
        if met[places].any() or len(np.unique(places)) < len(places):
            counts = np.bincount(places, minlength=len(names)) + met
            raise UnusablePredictions(
                f"the id {_quoted(names, int(np.argmax(counts > 1)))} occurs twice",
                where=str(a.files[0]),
                remedy="name one that does not",
            )
        apart = batch["label"] != labels[places]
        if np.any(apart):
            first = int(np.argmax(apart))
            raise UnusablePredictions(
                f"the example {_quoted(batch['id'], first)} has the label {_quoted(batch['label'], first)} in "
                f"{a.files[0]}, but {_quoted(labels, int(places[first]))} in {b.files[0]}",
                remedy="find out which is right",
            )
        met[places] = True
        progress(stage, a.share(batch))
        yield batch["label"], batch[role], values[places]
    if not met.all():
        raise UnusablePredictions(
            f"the id {_quoted(names, int(np.argmin(met)))} of {b.files[0]} is not there",
            where=str(a.files[0]),
            remedy="give both the same examples",
        )


def _held(predictions: Predictions, roles: tuple[str, ...]) -> list[NDArray[Any]]:
    """Whole columns, in the order of the first of them."""
    batches = list(predictions.batches(*roles))
    columns = [np.concatenate([batch[role] for batch in batches]) if batches else np.zeros(0) for role in roles]
    order = np.argsort(columns[0], kind="stable")
    return [column[order] for column in columns]


def _quoted(column: NDArray[Any], at: int) -> str:
    return repr(column[at].item())


class _Rows:
    """Batches, taken by as many rows as are wanted."""

    def __init__(self, predictions: Predictions, roles: tuple[str, ...]) -> None:
        self._predictions = predictions
        self._batches = predictions.batches(*roles)
        self._left: Batch | None = None
        self.share = 0.0

    def peek(self) -> Batch | None:
        if self._left is None or not len(self._left["label"]):
            self._left = next(self._batches, None)
            if self._left is not None:
                self.share = self._predictions.share(self._left)
        return self._left

    def take(self, length: int) -> Batch:
        assert self._left is not None
        taken = {name: column[:length] for name, column in self._left.items()}
        self._left = {name: column[length:] for name, column in self._left.items()}
        return taken
