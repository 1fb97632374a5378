"""A metric's state: the one definition that arrays, streams of batches and ranks of a job all feed.

    state.update(...)      with an array, or with each batch of a stream; returns itself
    state.merge(other)     what another rank has seen; returns itself
    state.compute()        the answer

The state of a whole equals the merged states of its parts bit by bit, however it was cut and in whatever order. For
another process it is bytes: numpy arrays and JSON, never a pickle. Knows neither ranks nor where the numbers go.
"""

from __future__ import annotations

import io
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics.errors import BadInput, DifferentDefinition

_MEANING = "definition"
_LARGEST = 1 << 31  # bytes of a state from elsewhere


class State(ABC):
    """What has been seen so far of one metric."""

    _kinds: ClassVar[dict[str, type[State]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        State._kinds[cls.__name__] = cls

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """The settings that make it this metric and no other, JSON-safe; states merge when they are equal."""

    @abstractmethod
    def parts(self) -> dict[str, NDArray[Any]]:
        """All that was seen, as arrays without objects, in the one form that the same data always has."""

    @classmethod
    @abstractmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        """The state that gave these. Raises BadInput, KeyError, TypeError or ValueError for what none can give."""

    @abstractmethod
    def _add(self, other: Self) -> None:
        """Take in what `other`, of the same definition, has seen."""

    @abstractmethod
    def compute(self) -> Any:
        """The answer; NaN where it is undefined, as of nothing."""

    def merge(self, other: Self) -> Self:
        """Take in what `other` has seen. Returns itself. Raises DifferentDefinition."""
        if type(other) is not type(self):
            raise DifferentDefinition(f"a {type(self).__name__} does not merge with a {type(other).__name__}")
        mine, theirs = self.definition(), other.definition()
        if mine != theirs:
            apart = [
                f"{name} is {mine.get(name)!r} here and {theirs.get(name)!r} there"
                for name in sorted(mine | theirs)
                if mine.get(name) != theirs.get(name)
            ]
            raise DifferentDefinition(
                f"two states of {type(self).__name__} are defined differently: {'; '.join(apart)}",
                remedy="make both with the same settings",
            )
        self._add(other)
        return self

    def __eq__(self, other: object) -> bool:
        """Whether all that was seen is the same, bit by bit."""
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, State)
        mine, theirs = self.parts(), other.parts()
        return (
            self.definition() == other.definition()
            and mine.keys() == theirs.keys()
            and all(_same_bits(mine[name], theirs[name]) for name in mine)
        )

    __hash__ = None  # type: ignore[assignment]

    def to_bytes(self) -> bytes:
        """For another process."""
        meaning = json.dumps({"metric": type(self).__name__, **self.definition()}, sort_keys=True).encode()
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **{_MEANING: np.frombuffer(meaning, np.uint8)}, **self.parts())
        return file.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> State:
        """What `to_bytes` gave. Raises BadInput for anything else; nothing in it is run."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(each.file_size for each in archive.infolist()) > _LARGEST:
                    raise BadInput("this state is larger than 2 GiB")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                parts = {name: arrays[name] for name in arrays.files}
            meaning = json.loads(parts.pop(_MEANING).tobytes())
            return kind_named(meaning.pop("metric")).of_parts(meaning, parts)
        except BadInput:
            raise
        except (
            ArithmeticError,
            AttributeError,
            EOFError,
            IndexError,
            KeyError,
            OSError,
            TypeError,
            ValueError,
            zipfile.BadZipFile,
        ) as error:
            raise BadInput(f"these {len(data):,} bytes are no state of a metric ({error})") from None


def kind_named(name: str) -> type[State]:
    """A state by its class's name; the public ones are loaded if they were not used here yet. Raises AttributeError
    or ValueError where there is none."""
    found = State._kinds.get(name) or getattr(import_module("phalanx.metrics"), name)
    if not (isinstance(found, type) and issubclass(found, State)):
        raise ValueError(f"{name} is no state")
    return found


def _same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
