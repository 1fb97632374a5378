"""Numbers to comparable sizes, in the field's words: normalisation and standardisation.

    MinMax        normalisation of each feature (column) into a range: (x - least) / (greatest - least)
    Standardize   standardisation of each feature: (x - mean) / standard deviation, so mean 0 and variance 1
    UnitNorm      normalisation of each example (row) to length 1; it learns nothing, so it needs no fitting

The first two are made of what training data showed, `MinMax.fitted(moments)`, and never change after: there is none
before it was fitted, and held-out data cannot leak into one. `moments` is anything with `mean`, `variance`, `minimum`
and `maximum`: `phalanx.metrics.Moments`, which batches of a stream feed and ranks merge, or what else has them. (`data`
and `metrics` do not know each other: who trains hands the one to the other.)

A scaler belongs to a model: `save` writes one file, which goes into a checkpoint as a companion
(`training.checkpoint.write`) and is covered by its checksums then. The catalogue's models read tokens, which have no
size, so a job writes none.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phalanx.data.errors import Unscalable
from phalanx.foundation import write_atomic

SCHEMA = 1
Floats = NDArray[np.float64]
_NOISE = 4 * np.finfo(np.float64).eps  # of its size: what varies by no more varies by rounding
_LEAST_VARIANCE = 1e-290  # below, a double loses digits


class FeatureMoments(Protocol):
    """Of each feature, float64 [features]; `variance` is divided by the number of rows, not by one less."""

    @property
    def mean(self) -> Floats: ...
    @property
    def variance(self) -> Floats: ...
    @property
    def minimum(self) -> Floats: ...
    @property
    def maximum(self) -> Floats: ...


class Scaler(ABC):
    """What examples go through before a model, in training and ever after."""

    kind: ClassVar[str]
    _kinds: ClassVar[dict[str, type[Scaler]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in vars(cls):
            Scaler._kinds[cls.kind] = cls

    @abstractmethod
    def transform(self, rows: ArrayLike) -> Floats:
        """Numbers [n, features] to float64 of the same shape. Raises Unscalable for other shapes, for what is not
        finite, and where the result is not."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]: ...

    @classmethod
    @abstractmethod
    def _of(cls, settings: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what `_settings` cannot have given."""

    def to_json(self) -> dict[str, Any]:
        """JSON-safe; floats keep every bit."""
        return {"schema": SCHEMA, "kind": self.kind, **self._settings()}

    @staticmethod
    def from_json(document: Any, where: str = "") -> Scaler:
        """What `to_json` gave. Raises Unscalable for anything else."""
        try:
            if document["schema"] != SCHEMA:
                raise ValueError(f"it has schema {document['schema']}, this version reads {SCHEMA}")
            return Scaler._kinds[document["kind"]]._of(document)
        except (KeyError, TypeError, ValueError) as error:
            why = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
            raise Unscalable(f"this is no scaler: {why}", where=where, remedy="fit and save it again") from None

    def save(self, path: Path) -> None:
        """Whole or not at all. Raises StorageError."""
        write_atomic(path, json.dumps(self.to_json(), allow_nan=False) + "\n")

    @staticmethod
    def load(path: Path) -> Scaler:
        """What `save` wrote. Raises Unscalable when it is missing or damaged."""
        try:
            document = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise Unscalable(
                f"the scaler cannot be read ({error})", where=str(path), remedy="fit and save it again"
            ) from None
        return Scaler.from_json(document, str(path))

    def __eq__(self, other: object) -> bool:
        return self.to_json() == other.to_json() if isinstance(other, Scaler) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Standardize(Scaler):
    """(x - mean) / scale. A feature that was constant in training has scale 1: what differs later is not blown up."""

    kind: ClassVar[str] = "standardize"
    mean: Floats
    scale: Floats

    @classmethod
    def fitted(cls, moments: FeatureMoments) -> Self:
        """With the standard deviation of the rows themselves (not n - 1), as scikit-learn's StandardScaler.

        Raises Unscalable for moments of nothing, and for a variance that no double holds.
        """
        constant = _constant(moments)
        variance = np.asarray(moments.variance, np.float64)
        if (lost := ~constant & (variance < _LEAST_VARIANCE)).any():
            raise Unscalable(
                f"feature {int(lost.argmax())} varies by so little that its variance is lost in a double",
                remedy="multiply it by a power of ten first",
            )
        return cls(np.asarray(moments.mean, np.float64), np.where(constant, 1.0, np.sqrt(variance)))

    def transform(self, rows: ArrayLike) -> Floats:
        with np.errstate(over="ignore"):
            return _finite("what it becomes", (_rows(rows, len(self.mean)) - self.mean) / self.scale)

    def inverse(self, rows: ArrayLike) -> Floats:
        """What `transform` gave back to what it was given, but for rounding."""
        with np.errstate(over="ignore"):
            return _finite("what it was", _rows(rows, len(self.mean)) * self.scale + self.mean)

    def _settings(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def _of(cls, settings: Mapping[str, Any]) -> Self:
        mean, scale = _features(settings["mean"], settings["scale"])
        if not (scale > 0).all():
            raise ValueError("a scale is not positive")
        return cls(mean, scale)


@dataclass(frozen=True, eq=False)
class MinMax(Scaler):
    """The range from `least` to `greatest` of each feature in training becomes that from `low` to `high`.

    What lies outside of it later lies outside `low` and `high`, unless `clip`. A feature that was constant in training
    becomes `low`, and one more is `high` - `low` more.
    """

    kind: ClassVar[str] = "min-max"
    least: Floats
    greatest: Floats
    low: float = 0.0
    high: float = 1.0
    clip: bool = False

    @classmethod
    def fitted(cls, moments: FeatureMoments, low: float = 0.0, high: float = 1.0, *, clip: bool = False) -> Self:
        """Raises Unscalable for moments of nothing, and when `low` is not below `high`."""
        if not (np.isfinite([low, high]).all() and low < high):
            raise Unscalable(f"the range from {low} to {high} has no width", remedy="give low below high")
        constant = _constant(moments)
        least = np.asarray(moments.minimum, np.float64)
        greatest = np.where(constant, least, np.asarray(moments.maximum, np.float64))
        with np.errstate(over="ignore"):
            _finite("the widths of the features", (greatest - least)[None])
        return cls(least, greatest, float(low), float(high), clip)

    def transform(self, rows: ArrayLike) -> Floats:
        with np.errstate(over="ignore"):
            found = (_rows(rows, len(self.least)) - self.least) / self._width * (self.high - self.low) + self.low
        return np.clip(found, self.low, self.high) if self.clip else _finite("what it becomes", found)

    def inverse(self, rows: ArrayLike) -> Floats:
        """What `transform` gave back to what it was given, but for rounding and what was clipped."""
        with np.errstate(over="ignore"):
            share = (_rows(rows, len(self.least)) - self.low) / (self.high - self.low)
            return _finite("what it was", share * self._width + self.least)

    @property
    def _width(self) -> Floats:
        return np.where(self.greatest > self.least, self.greatest - self.least, 1.0)

    def _settings(self) -> dict[str, Any]:
        range_ = {"low": self.low, "high": self.high, "clip": self.clip}
        return {"least": self.least.tolist(), "greatest": self.greatest.tolist(), **range_}

    @classmethod
    def _of(cls, settings: Mapping[str, Any]) -> Self:
        least, greatest = _features(settings["least"], settings["greatest"])
        low, high = float(settings["low"]), float(settings["high"])
        if not ((least <= greatest).all() and np.isfinite([low, high]).all() and low < high):
            raise ValueError("a range ends before it begins")
        if not isinstance(settings["clip"], bool):
            raise TypeError("clip is true or false")
        return cls(least, greatest, low, high, settings["clip"])


@dataclass(frozen=True, eq=False)
class UnitNorm(Scaler):
    """Each row divided by its norm: l1 the sum of absolute values, l2 the Euclidean length, max the largest absolute
    value. A row of zeros stays. There is no inverse: the length is gone."""

    kind: ClassVar[str] = "unit-norm"
    norm: Literal["l1", "l2", "max"] = "l2"

    def __post_init__(self) -> None:
        if self.norm not in ("l1", "l2", "max"):
            raise Unscalable(f"there is no norm {self.norm!r}", remedy="choose l1, l2 or max")

    def transform(self, rows: ArrayLike) -> Floats:
        found = _rows(rows)
        largest = np.abs(found).max(axis=1, initial=0.0, keepdims=True)
        shares = found / np.where(largest > 0, largest, 1.0)  # first by the largest: no square over- or underflows
        if self.norm == "max":
            return shares
        norm = np.abs(shares).sum(1) if self.norm == "l1" else np.sqrt((shares**2).sum(1))
        return shares / np.where(norm > 0, norm, 1.0)[:, None]

    def _settings(self) -> dict[str, Any]:
        return {"norm": self.norm}

    @classmethod
    def _of(cls, settings: Mapping[str, Any]) -> Self:
        return cls(settings["norm"])


def _constant(moments: FeatureMoments) -> NDArray[np.bool_]:
    """Which features did not vary but for rounding. Raises Unscalable for moments of nothing."""
    least, most = np.asarray(moments.minimum, np.float64), np.asarray(moments.maximum, np.float64)
    if not np.isfinite([least, most]).all():
        raise Unscalable(
            "nothing was seen to scale by", remedy="feed the moments with the training data first (Moments.update)"
        )
    with np.errstate(over="ignore"):
        found: NDArray[np.bool_] = most - least <= _NOISE * np.maximum(np.abs(least), np.abs(most))
    return found


def _rows(rows: ArrayLike, features: int | None = None) -> Floats:
    """float64 [n, features], finite. Raises Unscalable."""
    found = np.asarray(rows)
    if found.dtype.kind not in "buif":
        raise Unscalable(f"rows of {found.dtype} are no numbers", remedy="give numbers [n, features]")
    if found.ndim != 2 or (features is not None and found.shape[1] != features):
        wanted = "features" if features is None else features
        raise Unscalable(
            f"rows have the shape {found.shape}, not [n, {wanted}]",
            remedy="give the features that it was fitted on, in their order",
        )
    return _finite("rows", found.astype(np.float64))


def _finite(what: str, rows: Floats) -> Floats:
    if not (good := np.isfinite(rows)).all():
        at = np.unravel_index(int((~good).argmax()), rows.shape)
        raise Unscalable(
            f"{what} must be finite, and {int((~good).sum()):,} of {rows.size:,} numbers are not; the first is "
            f"{rows[at]} in row {at[0]}, feature {at[1]}",
            remedy="leave these examples out, or put known numbers in their place",
        )
    return rows


def _features(*columns: Any) -> tuple[Floats, ...]:
    """From JSON: finite numbers, equally many, at least one. Raises TypeError or ValueError."""
    found = tuple(np.array(column, np.float64) for column in columns)
    if any(each.ndim != 1 or not len(each) or len(each) != len(found[0]) for each in found):
        raise ValueError("its features are not equally many")
    if not np.isfinite(found).all():
        raise ValueError("a number is not finite")
    return found
