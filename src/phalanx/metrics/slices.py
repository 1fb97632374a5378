"""Any metric, slice by slice of the data: by language, source, length; told apart by a column of names.

A number over all examples hides slices that go badly; every slice has a state of its own here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.errors import BadInput
from phalanx.metrics.state import State, kind_named

Kept = TypeVar("Kept", bound=State)
Name = str | int | bool

_EMPTY = "empty"


class Slices(State, Generic[Kept]):
    """`empty`: a state of the metric that has seen nothing yet; each slice begins with a copy of it. `states`: what was
    seen of each slice, by its name. Raises BadInput for a state that has seen something."""

    def __init__(self, empty: Kept) -> None:
        self._empty = _copy(empty)
        if _copy(empty).merge(empty) != empty:
            raise BadInput(f"this {type(empty).__name__} has seen something already", remedy="give a new one")
        self.states: dict[Name, Kept] = {}

    def update(self, slice_of_each: arrays.ArrayLike, *columns: arrays.ArrayLike | None) -> Self:
        """Names [n], words or whole numbers; `columns`, each [n, ...]: what the metric's own `update` takes, in its
        order. Raises BadInput, and then has seen nothing of it."""
        names = arrays.labels("slice_of_each", slice_of_each)
        if not len(names):
            names = names.astype(np.int64)
        if names.dtype.kind == "f":
            raise BadInput(
                "slice_of_each holds floats, not names", remedy="give words or whole numbers: ranges, rounded"
            )
        given = [_rows(f"column {at}", each) for at, each in enumerate(columns)]
        lengths = {f"column {at}": len(each) for at, each in enumerate(given) if each is not None}
        arrays.same_length(slice_of_each=len(names), **lengths)
        found, codes = np.unique(names, return_inverse=True)
        self._refuse_other_kind(found.tolist())
        small = codes.astype(np.uint16 if len(found) <= 1 << 16 else np.int64)  # numpy sorts 16 bits in one go
        together = np.argsort(small, kind="stable")
        edges = np.cumsum(np.bincount(codes, minlength=len(found)))[:-1]
        batch = {}
        for name, rows in zip(found.tolist(), np.split(together, edges) if len(found) else [], strict=True):
            fresh: Any = _copy(self._empty)
            try:
                batch[name] = fresh.update(*(_chosen(each, rows) for each in given))
            except BadInput as error:
                raise BadInput(
                    f"in the slice {name!r}, whose examples are counted from 0: {error.message}", remedy=error.remedy
                ) from None
        self._take(batch)
        return self

    def _take(self, batch: Mapping[Name, Kept]) -> None:
        for name, state in batch.items():
            if name not in self.states:
                self.states[name] = _copy(self._empty)
            self.states[name].merge(state)

    def _refuse_other_kind(self, names: list[Name]) -> None:
        kinds = {type(name).__name__ for name in (*self.states, *names)}
        if len(kinds) > 1:
            raise BadInput(f"slices are named by {' and '.join(sorted(kinds))}", remedy="use one kind of names")

    def compute(self) -> dict[Name, Any]:
        """The metric of each slice, by ascending names. Raises BadInput where one slice's does."""
        answers = {}
        for name in sorted(self.states):
            try:
                answers[name] = self.states[name].compute()
            except BadInput as error:
                raise BadInput(f"in the slice {name!r}: {error.message}", remedy=error.remedy) from None
        return answers

    def together(self) -> Kept:
        """The state of all slices as one."""
        whole = _copy(self._empty)
        for name in sorted(self.states):
            whole.merge(self.states[name])
        return whole

    def definition(self) -> dict[str, Any]:
        return {"of": type(self._empty).__name__, "settings": self._empty.definition()}

    def parts(self) -> dict[str, NDArray[Any]]:
        names = sorted(self.states)
        found: dict[str, NDArray[Any]] = {"slices": np.array(names, None if names else np.int64)}
        for place, state in ((_EMPTY, self._empty), *((str(at), self.states[name]) for at, name in enumerate(names))):
            found |= {f"{place}_{part}": value for part, value in state.parts().items()}
        return found

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        kind, settings = kind_named(definition["of"]), definition["settings"]

        def state(place: str) -> Any:
            start = f"{place}_"
            own = {name.removeprefix(start): value for name, value in parts.items() if name.startswith(start)}
            return kind.of_parts(settings, own)

        made = cls(state(_EMPTY))
        names = arrays.labels("slices", parts["slices"]).tolist()
        if sorted(set(names)) != names:
            raise BadInput("no names of slices")
        made.states = {name: state(str(at)) for at, name in enumerate(names)}
        return made

    def _add(self, other: Self) -> None:
        self._refuse_other_kind(list(other.states))
        self._take(other.states)


def _rows(name: str, given: arrays.ArrayLike | None) -> Any:
    """Lists stay what they are: of texts an array is as wide as the longest."""
    return given if given is None or isinstance(given, list | tuple) else arrays.array(name, given)


def _chosen(given: Any, rows: NDArray[np.int64]) -> Any:
    return (
        [given[row] for row in rows.tolist()]
        if isinstance(given, list | tuple)
        else None
        if given is None
        else given[rows]
    )


def _copy(state: Kept) -> Kept:
    return type(state).of_parts(state.definition(), {name: part.copy() for name, part in state.parts().items()})
