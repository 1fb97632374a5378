"""What kind of answers two columns hold, as scikit-learn tells kinds apart, and that they belong together."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.errors import BadInput

BINARY, MULTICLASS, MULTILABEL = "binary", "multiclass", "multilabel-indicator"
_CHUNK = 1 << 16
_HOME = "phalanx.metrics."


class UndefinedMetricWarning(UserWarning):
    """A metric was asked of data that it is not defined on; the number given is a convention."""


def undefined(message: str) -> None:
    """Warn of a number that is a convention."""
    warn(message, UndefinedMetricWarning)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """At the line that called the public function, from however deep inside."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(_HOME):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@dataclass(frozen=True)
class Targets:
    """`truth`, `called`: [n], or [n, labels] of 0 and 1 where `kind` is multilabel-indicator; `labels`: ascending."""

    kind: str
    labels: NDArray[Any]
    truth: NDArray[Any]
    called: NDArray[Any]
    weights: NDArray[Any] | None


def check_targets(y_true: Any, y_pred: Any, sample_weight: Any = None) -> Targets:
    """Both as numpy, of one kind. Raises BadInput when they are not of one, or are no classes."""
    kinds = kind_of("y_true", y_true), kind_of("y_pred", y_pred)
    truth, called = dense("y_true", y_true), dense("y_pred", y_pred)
    consistent(y_true=truth, y_pred=called, sample_weight=sample_weight if hasattr(sample_weight, "__len__") else None)
    if not len(truth):
        raise BadInput("Found empty input array (e.g., `y_true` or `y_pred`) while a minimum of 1 sample is required.")
    weights = sample_weights(sample_weight, len(truth))
    if weights is not None and not weights.any():
        raise BadInput("Sample weights must contain at least one non-zero number.")
    kind = MULTICLASS if set(kinds) == {BINARY, MULTICLASS} else kinds[0]
    if kinds[0] != kinds[1] and set(kinds) != {BINARY, MULTICLASS}:
        raise BadInput(f"Classification metrics can't handle a mix of {kinds[0]} and {kinds[1]} targets")
    if kind not in (BINARY, MULTICLASS, MULTILABEL):
        raise BadInput(f"{kind} is not supported")
    if kind == MULTILABEL:
        if truth.shape[1] != called.shape[1]:
            raise BadInput(
                "Multi-label binary indicator input with different numbers of labels: "
                f"{truth.shape[1]} in y_true, {called.shape[1]} in y_pred"
            )
        return Targets(kind, np.arange(truth.shape[1]), truth.astype(np.int64), called.astype(np.int64), weights)
    for y in (y_true, y_pred):
        if hasattr(y, "toarray"):
            raise TypeError("Sparse input is only supported when targets are of multilabel type")
    truth, called = flat("y_true", truth), flat("y_pred", called)
    labels = labels_of(truth, called)
    if kind == BINARY and len(labels) > 2:
        kind = MULTICLASS
    return Targets(kind, labels, truth, called, weights)


def dense(name: str, y: Any) -> NDArray[Any]:
    """As numpy; sparse matrices are filled up."""
    return np.asarray(y.toarray()) if hasattr(y, "toarray") else arrays.array(name, y)


def flat(name: str, y: NDArray[Any]) -> NDArray[Any]:
    """[n]; one column of [n, 1]."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def consistent(**columns: Any) -> None:
    """Raises BadInput when they are not equally long."""
    lengths = [len(column) for column in columns.values() if column is not None]
    if len(set(lengths)) > 1:
        raise BadInput(f"Found input variables with inconsistent numbers of samples: {lengths}")


def sample_weights(given: Any, length: int) -> NDArray[Any] | None:
    """Float64 [length], or int64 for whole numbers, or None. Raises BadInput."""
    if given is None:
        return None
    found = arrays.array("sample_weight", given)
    if found.ndim == 0:
        found = np.full(length, float(found))
    if found.ndim != 1:
        raise BadInput(
            f"Sample weights must be 1D array or scalar, got {found.ndim}D array. Expected either a scalar value or a "
            f"1D array of length {length}."
        )
    if len(found) != length:
        raise BadInput(
            f"Found input variables with inconsistent numbers of samples: [{length}, {length}, {len(found)}]"
        )
    if found.dtype.kind == "c":
        raise BadInput("Complex data not supported: sample_weight", remedy="give one number for each example")
    if found.dtype.kind in "biu":
        return found.astype(np.int64)
    return finite("sample_weight", arrays.floats("sample_weight", found)).astype(np.float64)


def finite(name: str, found: NDArray[Any]) -> NDArray[Any]:
    """Itself. Raises BadInput, which begins with scikit-learn's words, with the count of what is no number and the
    first of it."""
    try:
        return arrays.finite(name, found)
    except BadInput as error:
        what = "NaN" if np.isnan(found).any() else "infinity or a value too large for its type"
        raise BadInput(f"Input {name} contains {what}. {error.message}", remedy=error.remedy) from None


def kind_of(name: str, y: Any) -> str:
    """binary, multiclass, continuous, the last two with -multioutput, multilabel-indicator or unknown."""
    if hasattr(y, "toarray"):
        found = np.asarray(y.toarray())
        return MULTILABEL if _is_indicator(found) else _kind_of_values(found)
    if isinstance(y, str) or not (isinstance(y, Sequence) or hasattr(y, "__array__") or hasattr(y, "to_numpy")):
        raise BadInput(f"Expected array-like (array or non-string sequence), got {y!r}")
    rows = (
        [row for row in y if isinstance(row, Sequence) and not isinstance(row, str | bytes)]
        if isinstance(y, Sequence)
        else []
    )
    if len({len(row) for row in rows}) > 1:
        raise BadInput(
            "You appear to be using a legacy multi-label data representation. Sequence of sequences are no longer "
            "supported; use a binary array or sparse matrix instead - the MultiLabelBinarizer transformer can convert "
            "to this format."
        )
    return _kind_of_values(arrays.array(name, y), name)


def _kind_of_values(found: NDArray[Any], name: str = "data") -> str:
    if found.dtype.kind == "S" or (found.dtype == object and found.size and isinstance(found.flat[0], bytes)):
        raise TypeError(
            "Support for labels represented as bytes is not supported. Convert the labels to a string or integer "
            "format."
        )
    if found.ndim not in (1, 2) or (found.ndim == 2 and not min(found.shape)):
        return "unknown"
    if not found.size:
        return BINARY
    if found.dtype == object:
        return "unknown"
    if _is_indicator(found):
        return MULTILABEL
    suffix = "-multioutput" if found.ndim == 2 and found.shape[1] > 1 else ""
    if found.dtype.kind == "f":
        finite(name, found)
        if (found != np.floor(found)).any():
            return "continuous" + suffix
    if suffix or not _at_most_two(found):
        return MULTICLASS + suffix
    return BINARY


def _is_indicator(found: NDArray[Any]) -> bool:
    """Two columns or more of no more than two whole numbers."""
    if found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "biuf":
        return False
    different = np.unique(found)
    return len(different) < 3 and (found.dtype.kind != "f" or bool((different == np.floor(different)).all()))


def _at_most_two(found: NDArray[Any]) -> bool:
    if found.dtype.kind in "iub":
        low, high = found.min(), found.max()
        if int(high) - int(low) < 2:
            return True
        parts = (found[start : start + _CHUNK] for start in range(0, len(found), _CHUNK))  # seldom more than one
        return all(bool(((part == low) | (part == high)).all()) for part in parts)
    return len(np.unique(found)) <= 2


def labels_of(*columns: NDArray[Any]) -> NDArray[Any]:
    """All that occur, ascending. Raises BadInput for words among numbers."""
    words = [column.dtype.kind == "U" for column in columns]
    if len(set(words)) > 1:
        got = " and ".join(str(np.unique(column)) for column in columns)
        raise BadInput(f"Mix of label input types (string and number); Got {got}.")
    return np.unique(np.concatenate([_unique(column) for column in columns]))


def positive_label(truth: NDArray[Any], pos_label: Any) -> Any:
    """1 where it says itself which class is the positive one."""
    if pos_label is not None:
        return pos_label
    classes = np.unique(truth)
    if truth.dtype.kind == "U" or classes.tolist() not in ([0, 1], [-1, 1], [0], [-1], [1]):
        raise BadInput(
            f"y_true takes value in {{{', '.join(map(repr, classes.tolist()))}}} and pos_label is not specified: "
            "either make y_true take value in {0, 1} or {-1, 1} or pass pos_label explicitly."
        )
    return 1


def _unique(column: NDArray[Any]) -> NDArray[Any]:
    """Faster than numpy's for integers close together, as classes are."""
    if column.dtype.kind in "iu" and len(column):
        low, high = int(column.min()), int(column.max())
        if high - low < 2:
            return np.arange(low, high + 1)
        if high - low < _CHUNK and high < 1 << 63:
            counts = np.zeros(high - low + 1, np.int64)
            step = max(_CHUNK, 8 * len(counts))
            for start in range(0, len(column), step):
                counts += np.bincount(column[start : start + step].astype(np.int64) - low, minlength=len(counts))
            return np.flatnonzero(counts) + low
    return np.unique(column)
