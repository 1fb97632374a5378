"""Metrics of scores, under scikit-learn's names. Areas of two classes come from `ranking`, without a sort."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.curve import Curve
from phalanx.metrics.errors import BadInput
from phalanx.metrics.functional.targets import (
    BINARY,
    MULTICLASS,
    MULTILABEL,
    consistent,
    dense,
    finite,
    flat,
    kind_of,
    labels_of,
    positive_label,
    sample_weights,
    undefined,
)
from phalanx.metrics.ranking import rank

Array = NDArray[Any]
_AVERAGES = (None, "micro", "macro", "weighted", "samples")


def auc(x: Any, y: Any) -> float:
    """Area below points of a curve, by trapezoids; `x` in order, either way."""
    across, up = arrays.column("x", x), arrays.column("y", y)
    consistent(x=across, y=up)
    if len(across) < 2:
        raise BadInput(f"At least 2 points are needed to compute area under curve, but x.shape = {across.shape}")
    steps = np.diff(across)
    if (steps < 0).any() and not (steps <= 0).all():
        raise BadInput(f"x is neither increasing nor decreasing : {across}.")
    area = float((steps * (up[1:] + up[:-1])).sum() / 2)
    return -area if (steps < 0).any() else area


def roc_curve(
    y_true: Any, y_score: Any, *, pos_label: Any = None, sample_weight: Any = None, drop_intermediate: bool = True
) -> tuple[Array, Array, Array]:
    """False- and true-positive rates, ascending, and the thresholds, from infinity down."""
    false, true, thresholds = _at_thresholds(y_true, y_score, pos_label, sample_weight)
    if drop_intermediate and len(false) > 2:
        # A point between two on a line with it says nothing.
        kept = np.r_[True, (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), True]
        false, true, thresholds = false[kept], true[kept], thresholds[kept]
    false, true, thresholds = np.r_[0, false], np.r_[0, true], np.r_[np.inf, thresholds]
    if false[-1] <= 0:
        undefined("No negative samples in y_true, false positive value should be meaningless")
    if true[-1] <= 0:
        undefined("No positive samples in y_true, true positive value should be meaningless")
    return _rates(false), _rates(true), thresholds


def det_curve(
    y_true: Any, y_score: Any, pos_label: Any = None, sample_weight: Any = None, drop_intermediate: bool = False
) -> tuple[Array, Array, Array]:
    """False-positive and false-negative rates by rising threshold: the detection error tradeoff."""
    false, true, thresholds = _at_thresholds(y_true, y_score, pos_label, sample_weight)
    if not (false[-1] > 0 and true[-1] > 0):
        raise BadInput(
            "Only one class is present in y_true. Detection error tradeoff curve is not defined in that case."
        )
    false, true, thresholds = np.r_[0, false], np.r_[0, true], np.r_[np.inf, thresholds]
    if drop_intermediate and len(false) > 2:
        kept = np.r_[True, (np.diff(true[:-1]) != 0) | (np.diff(true[1:]) != 0), True]
        false, true, thresholds = false[kept], true[kept], thresholds[kept]
    # From the last point without a false alarm to the first with every needle.
    first = int(np.searchsorted(false, false[0], "right")) - 1
    last = int(np.searchsorted(true, true[-1])) + 1
    inside = slice(max(first, 0), last)
    found = false[inside] / false[-1], (true[-1] - true[inside]) / true[-1], thresholds[inside]
    return found[0][::-1].copy(), found[1][::-1].copy(), found[2][::-1].copy()


def precision_recall_curve(
    y_true: Any, y_score: Any, *, pos_label: Any = None, sample_weight: Any = None, drop_intermediate: bool = False
) -> tuple[Array, Array, Array]:
    """Precision and recall by rising threshold, then 1 and 0; and the thresholds."""
    false, true, thresholds = _at_thresholds(y_true, y_score, pos_label, sample_weight)
    if drop_intermediate and len(false) > 2:
        kept = np.r_[True, (np.diff(true[:-1]) != 0) | (np.diff(true[1:]) != 0), True]
        false, true, thresholds = false[kept], true[kept], thresholds[kept]
    called = true + false
    precision = np.divide(true, called, out=np.zeros(len(true)), where=called != 0)
    if true[-1] == 0:
        warnings.warn("No positive class found in y_true, recall is set to one for all thresholds.", stacklevel=2)
        recall = np.ones(len(true))
    else:
        recall = true / true[-1]
    return np.r_[precision[::-1], 1.0], np.r_[recall[::-1], 0.0], thresholds[::-1].copy()


def average_precision_score(
    y_true: Any, y_score: Any, *, average: str | None = "macro", pos_label: Any = 1, sample_weight: Any = None
) -> Any:
    """Precision at each needle's score, averaged over needles; of several classes or labels, averaged again."""
    kind = kind_of("y_true", y_true)
    truth, scores = dense("y_true", y_true), _scores(y_score)
    if kind in (MULTILABEL, MULTICLASS) and pos_label != 1:
        raise BadInput(
            f"Parameter pos_label is fixed to 1 for {kind} y_true. Do not set pos_label or set pos_label to 1."
        )
    if kind == BINARY:
        truth = flat("y_true", truth)
        present = np.unique(truth)
        if len(present) == 2 and pos_label not in present.tolist():
            raise BadInput(f"pos_label={pos_label} is not a valid label. It should be one of {present}")
        truth = truth == pos_label
    elif kind == MULTICLASS:
        truth = flat("y_true", truth)
        classes = np.unique(truth)
        if scores.shape != (len(truth), len(classes)):
            raise BadInput(_SHAPE.format(scores.shape))
        truth = truth[:, None] == classes
    elif kind != MULTILABEL:
        raise BadInput(f"{kind} format is not supported")
    return _averaged(_average_precision, truth, scores, average, _weights(sample_weight, len(truth)))


def roc_auc_score(
    y_true: Any,
    y_score: Any,
    *,
    average: str | None = "macro",
    sample_weight: Any = None,
    max_fpr: float | None = None,
    multi_class: Literal["raise", "ovr", "ovo"] = "raise",
    labels: Any = None,
) -> Any:
    """The chance that a needle scores higher than a straw, ties counted half; up to `max_fpr` standardised.

    Of several classes one against the rest (`ovr`) or each pair (`ovo`, Hand and Till 2001), of labels each.
    """
    kind = kind_of("y_true", y_true)
    truth, scores = dense("y_true", y_true), _scores(y_score)
    if kind == MULTICLASS or (kind == BINARY and scores.ndim == 2 and scores.shape[1] > 2):
        if max_fpr is not None and max_fpr != 1:
            raise BadInput(
                "Partial AUC computation not available in multiclass setting, 'max_fpr' must be set to `None`, "
                f"received `max_fpr={max_fpr}` instead"
            )
        if multi_class == "raise":
            raise BadInput("multi_class must be in ('ovo', 'ovr')")
        return _roc_auc_of_classes(flat("y_true", truth), scores, labels, multi_class, average, sample_weight)
    weights = _weights(sample_weight, len(truth))
    if kind == BINARY:
        truth = flat("y_true", truth)
        classes = labels_of(truth)
        truth = truth == classes[-1] if len(classes) == 2 else truth == 1
    elif kind != MULTILABEL:
        raise BadInput(f"{kind} format is not supported")
    return _averaged(lambda one, found, heavy: _roc_auc(one, found, heavy, max_fpr), truth, scores, average, weights)


def top_k_accuracy_score(
    y_true: Any, y_score: Any, *, k: int = 2, normalize: bool = True, sample_weight: Any = None, labels: Any = None
) -> float:
    """Share, or number, of examples whose class is among the k that score highest; of ties the higher class counts."""
    truth = arrays.column("y_true", y_true)
    kind = BINARY if labels is not None and len(labels) <= 2 else kind_of("y_true", y_true)
    if kind == BINARY and labels is not None and len(labels) > 2:
        kind = MULTICLASS
    if kind not in (BINARY, MULTICLASS):
        raise BadInput(f"y type must be 'binary' or 'multiclass', got '{kind}' instead.")
    scores = _scores(y_score)
    if kind == BINARY and scores.ndim == 2 and scores.shape[1] != 1:
        raise BadInput(
            f"`y_true` is binary while y_score is 2d with {scores.shape[1]} classes. If `y_true` does not contain all "
            "the labels, `labels` must be provided."
        )
    if kind == MULTICLASS and scores.ndim != 2:
        raise BadInput(_SHAPE.format(scores.shape))
    scores = scores[:, 0] if scores.ndim == 2 and scores.shape[1] == 1 else scores
    consistent(y_true=truth, y_score=scores)
    weights = _weights(sample_weight, len(truth))
    columns = scores.shape[1] if scores.ndim == 2 else 2
    classes = _classes(truth, labels, columns)
    if k >= len(classes):
        undefined(
            f"'k' ({k}) greater than or equal to 'n_classes' ({len(classes)}) will result in a perfect score and is "
            "therefore meaningless."
        )
    codes = np.searchsorted(classes, truth)
    if scores.ndim == 1:
        called = (scores > (0.5 if scores.min() >= 0 and scores.max() <= 1 else 0)).astype(np.int64)
        hits = (called == codes) if k == 1 else np.ones(len(codes), np.bool_)
    else:
        best = np.argsort(scores, axis=1, kind="stable")[:, ::-1][:, :k]
        hits = (best == codes[:, None]).any(axis=1)
    if normalize:
        return float(np.average(hits, weights=weights))
    return float(hits.sum() if weights is None else hits @ weights)


_SHAPE = (
    "`y_score` needs to be of shape `(n_samples, n_classes)`, since `y_true` contains multiple classes. Got "
    "`y_score.shape={}`."
)


def _weights(sample_weight: Any, length: int) -> Array | None:
    found = sample_weights(sample_weight, length)
    if found is not None and not found.any():
        raise BadInput("Sample weights must contain at least one non-zero number.")
    return found


def _scores(y_score: Any) -> Array:
    found = arrays.floats("y_score", dense("y_score", y_score))
    return finite("y_score", found)


def _at_thresholds(y_true: Any, y_score: Any, pos_label: Any, sample_weight: Any) -> tuple[Array, Array, Array]:
    """False and true positives when all from a score up are called positive, by falling distinct score."""
    kind = kind_of("y_true", y_true)
    if kind != BINARY and not (kind == MULTICLASS and pos_label is not None):
        raise BadInput(f"{kind} format is not supported")
    truth, scores = flat("y_true", dense("y_true", y_true)), flat("y_score", _scores(y_score))
    consistent(y_true=truth, y_score=scores, sample_weight=sample_weight)
    if scores.ndim != 1:
        raise BadInput(f"y should be a 1d array, got an array of shape {scores.shape} instead.")
    if not len(truth):
        raise BadInput("Found array with 0 sample(s) while a minimum of 1 is required.")
    weights = _weights(sample_weight, len(truth))
    positive = truth == positive_label(truth, pos_label)
    positive, scores, weights = _that_weigh(positive, scores, weights)
    order = np.argsort(scores, kind="stable")[::-1]
    scores, positive = scores[order], positive[order]
    ends = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]
    if weights is None:
        true = np.cumsum(positive, dtype=np.float64)[ends]
        return 1.0 + ends - true, true, scores[ends]
    weights = weights[order]
    true = np.cumsum(positive * weights, dtype=np.float64)[ends]
    return np.cumsum(~positive * weights, dtype=np.float64)[ends], true, scores[ends]


def _rates(counts: Array) -> Array:
    return counts / counts[-1] if counts[-1] > 0 else np.full(len(counts), math.nan)


def _curve(truth: Array, scores: Array, weights: Array | None) -> Curve:
    whole = (truth, scores) if weights is None else (truth, scores, weights)
    return rank(lambda: [whole])


def _roc_auc(truth: Array, scores: Array, weights: Array | None, max_fpr: float | None) -> float:
    truth = truth.astype(np.bool_)
    if max_fpr is not None and not 0 < max_fpr <= 1:
        raise BadInput(f"Expected max_fpr in range (0, 1], got: {max_fpr!r}")
    if truth.all() or not truth.any():
        undefined("Only one class is present in y_true. ROC AUC score is not defined in that case.")
        return math.nan
    truth, scores, weights = _that_weigh(truth, scores, weights)
    if truth.all() or not truth.any():
        which = "negative" if truth.all() else "positive"
        undefined(f"No {which} samples in y_true weigh anything. ROC AUC score is not defined in that case.")
        return math.nan
    found = _curve(truth, scores, weights)
    return found.roc_auc if max_fpr is None else found.partial_auc(max_fpr)


def _that_weigh(truth: Array, scores: Array, weights: Array | None) -> tuple[Array, Array, Array | None]:
    """Without the examples of weight 0, which say nothing."""
    if weights is None or weights.all():
        return truth, scores, weights
    there = weights != 0
    return truth[there], scores[there], weights[there]


def _average_precision(truth: Array, scores: Array, weights: Array | None) -> float:
    truth, scores, weights = _that_weigh(truth.astype(np.bool_), scores, weights)
    if not truth.any():
        warnings.warn("No positive class found in y_true, recall is set to one for all thresholds.", stacklevel=4)
        return 0.0
    return 1.0 if truth.all() else _curve(truth, scores, weights).average_precision


def _averaged(
    metric: Callable[[Array, Array, Array | None], float],
    truth: Array,
    scores: Array,
    average: str | None,
    weights: Array | None,
) -> Any:
    """Of one class; or of the columns of several, averaged."""
    if average not in _AVERAGES:
        raise BadInput(f"average has to be one of {_AVERAGES}")
    if truth.ndim == 1:
        scores = flat("y_score", scores)
        if scores.ndim != 1:
            raise BadInput(f"y should be a 1d array, got an array of shape {scores.shape} instead.")
        consistent(y_true=truth, y_score=scores)
        return metric(truth, scores, weights)
    consistent(y_true=truth, y_score=scores)
    if truth.shape != scores.shape:
        raise BadInput(f"y_true and y_score have different shapes: {truth.shape} and {scores.shape}")
    if average == "micro":
        return metric(truth.ravel(), scores.ravel(), None if weights is None else np.repeat(weights, truth.shape[1]))
    importance = None
    if average == "weighted":
        importance = (truth if weights is None else truth * weights[:, None]).sum(axis=0)
        if not importance.any():
            return 0
    if average == "samples":
        truth, scores, importance, weights = truth.T, scores.T, weights, None
    each = np.array([metric(truth[:, column], scores[:, column], weights) for column in range(truth.shape[1])])
    if average is None:
        return each
    if importance is not None:
        each[importance == 0] = 0
    return float(np.average(each, weights=importance))


def _roc_auc_of_classes(
    truth: Array, scores: Array, labels: Any, multi_class: str, average: str | None, sample_weight: Any
) -> Any:
    if scores.ndim == 1:
        raise BadInput(_SHAPE.format(scores.shape))
    if not np.allclose(1, scores.sum(axis=1)):
        raise BadInput(
            "Target scores need to be probabilities for multiclass roc_auc, i.e. they should sum up to 1.0 over classes"
        )
    options = (*(("micro",) if multi_class == "ovr" else ()), "macro", "weighted", None)
    if average not in options:
        raise BadInput(f"average must be one of {options} for multiclass problems")
    if average is None and multi_class == "ovo":
        # A pair of classes is no class: scikit-learn has no answer either, and this is how it says so.
        raise NotImplementedError("average=None is not implemented for multi_class='ovo'.")
    if multi_class not in ("ovo", "ovr"):
        raise BadInput(
            f"multi_class='{multi_class}' is not supported for multiclass ROC AUC, multi_class must be in "
            "('ovo', 'ovr')"
        )
    classes = _classes(truth, labels, scores.shape[1], of_roc=True)
    if multi_class == "ovr":
        weights = _weights(sample_weight, len(truth))
        one_against_rest = truth[:, None] == classes
        return _averaged(
            lambda one, found, heavy: _roc_auc(one, found, heavy, None), one_against_rest, scores, average, weights
        )
    if sample_weight is not None:
        raise BadInput(
            "sample_weight is not supported for multiclass one-vs-one ROC AUC, 'sample_weight' must be None in this "
            "case."
        )
    found, prevalence = [], []
    codes = np.searchsorted(classes, truth)
    for first, second in itertools.combinations(np.unique(codes).tolist(), 2):
        both = (codes == first) | (codes == second)
        areas = [_roc_auc(codes[both] == one, scores[both, one], None, None) for one in (first, second)]
        found.append(sum(areas) / 2)
        prevalence.append(both.mean())
    return float(np.average(found, weights=prevalence if average == "weighted" else None))


def _classes(truth: Array, labels: Any, columns: int, *, of_roc: bool = False) -> Array:
    """Ascending. Raises BadInput when they are not as many as there are columns of scores."""
    stop = "" if of_roc else "."
    if labels is None:
        classes = np.unique(truth)
        if len(classes) != columns:
            raise BadInput(
                "Number of classes in y_true not equal to the number of columns in 'y_score'"
                if of_roc
                else f"Number of classes in 'y_true' ({len(classes)}) not equal to the number of classes in 'y_score' "
                f"({columns}).You can provide a list of all known classes by assigning it to the `labels` parameter."
            )
        return classes
    given = arrays.column("labels", labels)
    classes = np.unique(given)
    if len(classes) != len(given):
        raise BadInput("Parameter 'labels' must be unique" + stop)
    if not np.array_equal(classes, given):
        raise BadInput("Parameter 'labels' must be ordered" + stop)
    if len(classes) != columns:
        raise BadInput(
            f"Number of given labels, {len(classes)}, not equal to the number of columns in 'y_score', {columns}"
            if of_roc
            else f"Number of given labels ({len(classes)}) not equal to the number of classes in 'y_score' ({columns})."
        )
    if not np.isin(truth, classes).all():
        raise BadInput("'y_true' contains labels not in parameter 'labels'" + stop)
    return classes
