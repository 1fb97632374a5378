"""Metrics of probabilities, under scikit-learn's names. Sums are exact, as in `phalanx.metrics.probability`.

`y_true` [n] is what happened; `y_proba` the chance of the positive class [n], or of each class [n, classes], these in
ascending order.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays, products
from phalanx.metrics.errors import BadInput
from phalanx.metrics.functional.targets import (
    BINARY,
    MULTILABEL,
    consistent,
    dense,
    finite,
    flat,
    kind_of,
    positive_label,
    sample_weights,
    warn,
)
from phalanx.metrics.probability import Calibration
from phalanx.metrics.products import Floats
from phalanx.metrics.sums import ExactSums

Array = NDArray[Any]


def log_loss(
    y_true: Any,
    y_proba: Any = None,
    *,
    normalize: bool = True,
    sample_weight: Any = None,
    labels: Any = None,
    y_pred: Any = "deprecated",
) -> float:
    """Mean, or sum, of -log(chance given to what happened). Chances are kept off 0 and 1 by the rounding error of
    their type, so it is finite; `LogLoss` says infinite."""
    if not (isinstance(y_pred, str) and y_pred == "deprecated"):
        if y_proba is not None:
            raise BadInput("Cannot use both `y_pred` and `y_proba`. `y_pred` is deprecated, use `y_proba` instead.")
        warn(
            "`y_pred` was renamed to `y_proba` in version 1.9 and will be removed in 1.11. Use `y_proba` instead.",
            FutureWarning,
        )
        y_proba = y_pred
    chances = _chances(y_proba)
    weights = _weights(y_true, chances, sample_weight)
    happened, chances = _of_classes(y_true, chances, labels)
    least = np.finfo(chances.dtype).eps
    given = np.clip(chances[happened], least, 1 - least).astype(np.float64)
    each = None if weights is None else np.repeat(weights, happened.sum(axis=1))
    nats = products.total(each, -np.log(given))
    return float(nats / _weight(weights, len(chances)) if normalize else nats)


def brier_score_loss(
    y_true: Any,
    y_proba: Any,
    *,
    sample_weight: Any = None,
    pos_label: Any = None,
    labels: Any = None,
    scale_by_half: bool | Literal["auto"] = "auto",
) -> float:
    """Mean over examples of squared differences between chances and what happened, added over classes; half of it
    where `scale_by_half`, or where there are two classes."""
    chances = _chances(y_proba)
    binary = chances.ndim == 1 or chances.shape[1] == 1
    weights = _weights(y_true, chances, sample_weight)
    if binary:
        happened, chances = _of_event(y_true, chances, pos_label)
    else:
        happened, chances = _of_classes(y_true, chances, labels)
    missed: Floats = np.subtract(happened, chances, dtype=np.float64).reshape(-1)
    each = None if weights is None else np.repeat(weights, chances.shape[1])
    score = products.total(each, missed, missed) / _weight(weights, len(chances))
    if binary:
        score *= 2  # of both classes: the other is missed as much
    if scale_by_half is True or (scale_by_half == "auto" and (binary or chances.shape[1] < 3)):
        score /= 2
    return float(score)


def calibration_curve(
    y_true: Any,
    y_prob: Any,
    *,
    pos_label: Any = None,
    n_bins: int = 5,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> tuple[Floats, Floats]:
    """By bin of chances that is not empty: the share of events that happened, and their mean chance. Bins are of equal
    width, or hold equally many (`quantile`)."""
    truth, chances = arrays.column("y_true", y_true), arrays.column("y_prob", y_prob)
    consistent(y_true=truth, y_prob=chances)
    chances = finite("y_prob", arrays.floats("y_prob", chances)).astype(np.float64)
    if not len(chances):
        raise BadInput("Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required.")
    positive = positive_label(truth, pos_label)
    if chances.min() < 0 or chances.max() > 1:
        raise BadInput("y_prob has values outside [0, 1].")
    labels = np.unique(truth)
    if len(labels) > 2:
        raise BadInput(f"Only binary classification is supported. Provided labels {labels}.")
    if strategy not in ("uniform", "quantile"):
        raise BadInput("Invalid entry to 'strategy' input. Strategy must be either 'quantile' or 'uniform'.")
    bins: int | Floats = n_bins
    if strategy == "quantile":
        bins = np.maximum.accumulate(np.percentile(chances, np.linspace(0, 1, n_bins + 1) * 100))
    found = Calibration(bins).update(truth == positive, chances).compute()
    some = found.weight > 0
    return found.happened[some], found.confidence[some]


def _chances(y_proba: Any) -> Array:
    """Float32 or float64 [n] or [n, classes], from 0 to 1."""
    if y_proba is None:
        raise BadInput("Expected 2D array, got None instead: y_proba is missing")
    found = finite("y_proba", arrays.floats("y_proba", dense("y_proba", y_proba)))
    if found.ndim not in (1, 2):
        raise BadInput(
            f"Found array with dim {found.ndim}, while dim <= 2 is required: y_proba is [n] or [n, classes]."
        )
    if not found.size:
        raise BadInput(f"Found array with 0 sample(s) (shape={found.shape}) while a minimum of 1 is required.")
    return found


def _in_range(chances: Array, below: str) -> None:
    if chances.max() > 1:
        raise BadInput(f"y_prob contains values greater than 1: {chances.max()}")
    if chances.min() < 0:
        raise BadInput(f"y_prob contains values {below} than 0: {chances.min()}")


def _weights(y_true: Any, chances: Array, sample_weight: Any) -> Floats | None:
    consistent(
        y_proba=chances,
        y_true=y_true if hasattr(y_true, "__len__") else dense("y_true", y_true),
        sample_weight=sample_weight if hasattr(sample_weight, "__len__") else None,
    )
    weights = sample_weights(sample_weight, len(chances))
    if weights is None:
        return None
    if not weights.any():
        raise BadInput("Sample weights must contain at least one non-zero number.")
    return products.bounded("sample_weight", weights.astype(np.float64))


def _weight(weights: Floats | None, count: int) -> Fraction:
    return Fraction(count) if weights is None else ExactSums.of(weights).fractions()[0]


def _of_event(y_true: Any, chances: Array, pos_label: Any) -> tuple[NDArray[np.bool_], Array]:
    """Whether it happened, and its chance, [n, 1] each."""
    truth = arrays.column("y_true", y_true)
    kind = kind_of("y_true", truth)
    if kind != BINARY:
        raise BadInput(
            f"The type of the target inferred from y_true is {kind} but should be binary according to the shape of "
            "y_prob."
        )
    _in_range(chances, "less")
    if pos_label is None and truth.dtype.kind != "U":
        present = set(truth.tolist())
        pos_label = 1 if present <= {0, 1} or present <= {-1, 1} else max(present)
    return (truth == positive_label(truth, pos_label))[:, None], chances.reshape(-1, 1)


def _of_classes(y_true: Any, chances: Array, labels: Any) -> tuple[NDArray[np.bool_], Array]:
    """Which class happened, and the chance of each, [n, classes] each."""
    _in_range(chances, "lower")
    happened, classes = _happened(y_true, labels)
    columns = flat("y_proba", chances)
    if columns.ndim == 1:
        columns = np.stack([1 - columns, columns], axis=1)
    if not np.isclose(columns.sum(axis=1), 1, rtol=math.sqrt(np.finfo(columns.dtype).eps), atol=0).all():
        warn("The y_prob values do not sum to one. Make sure to pass probabilities.")
    if len(classes) != columns.shape[1]:
        if labels is not None:
            raise BadInput(
                f"The number of classes in labels is different from that in y_prob. Classes found in labels: {classes}"
            )
        raise BadInput(
            f"y_true and y_prob contain different number of classes: {len(classes)} vs {columns.shape[1]}. Please "
            f"provide the true labels explicitly through the labels argument. Classes found in y_true: {classes}"
        )
    return happened, columns


def _happened(y_true: Any, labels: Any) -> tuple[NDArray[np.bool_], Array]:
    """[n, classes], and the classes ascending."""
    truth = dense("y_true", y_true)
    if labels is None and truth.ndim == 2 and truth.shape[1] > 1 and kind_of("y_true", y_true) == MULTILABEL:
        return truth == 1, np.arange(truth.shape[1])
    truth = arrays.labels("y_true", flat("y_true", truth))
    if labels is None:
        classes = np.unique(truth)
        if len(classes) == 1:
            raise BadInput(
                f"y_true contains only one label ({classes[0]}). Please provide the list of all expected class labels "
                "explicitly through the labels argument."
            )
        return truth[:, None] == classes, classes
    given = arrays.labels("labels", labels)
    classes = np.unique(given)
    if not np.array_equal(classes, given):
        warn(
            f"Labels passed were {labels}. But this function assumes labels are ordered lexicographically. Pass the "
            f"ordered labels={classes.tolist()} and ensure that the columns of y_prob correspond to this ordering."
        )
    undeclared = set(truth.tolist()) - set(given.tolist())
    if undeclared:
        raise BadInput(f"y_true contains values {undeclared} not belonging to the passed labels {labels}.")
    if len(classes) == 1:
        raise BadInput(f"The labels array needs to contain at least two labels, got {classes}.")
    return truth[:, None] == classes, classes
