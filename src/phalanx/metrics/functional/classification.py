"""Metrics of classes, under scikit-learn's names. Counts are those of `confusion`; 0/0 is answered by convention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phalanx.metrics.confusion import Confusion, ConfusionMatrix
from phalanx.metrics.errors import BadInput
from phalanx.metrics.functional.targets import BINARY, MULTILABEL, Targets, check_targets, undefined, warn

ZeroDivision = Literal["warn"] | float
_MATRIX = 1 << 10  # of more classes no matrix is made where its margins do
_AVERAGES = (None, "micro", "macro", "weighted", "samples")
Array = NDArray[Any]


def confusion_matrix(
    y_true: Any, y_pred: Any, *, labels: Any = None, sample_weight: Any = None, normalize: str | None = None
) -> Array:
    """Rows are the truth, columns what was called; only of pairs that are both in `labels`, in its order.

    `normalize`: "true" (rows add up to 1), "pred" (columns) or "all". int64, or float64 where weighted or normalised.
    """
    matrix = matrix_of(check_targets(y_true, y_pred, sample_weight), labels)
    if normalize is not None:
        if normalize not in ("true", "pred", "all"):
            raise BadInput(f"normalize must be one of {{'true', 'pred', 'all', None}}, not {normalize!r}")
        whole = {"true": matrix.sum(axis=1, keepdims=True), "pred": matrix.sum(axis=0, keepdims=True)}
        with np.errstate(all="ignore"):
            matrix = np.nan_to_num(matrix / whole.get(normalize, matrix.sum()))
    if matrix.shape == (1, 1):
        warn(
            "A single label was found in 'y_true' and 'y_pred'. For the confusion matrix to have the correct shape, "
            "use the 'labels' parameter to pass all known labels."
        )
    return matrix


def matrix_of(targets: Targets, labels: Any) -> Array:
    """What `confusion_matrix` gives, of columns that were looked at."""
    if targets.kind == MULTILABEL:
        raise BadInput(f"{targets.kind} is not supported")
    found = _confusion(targets)
    if labels is None:
        return found.counts
    wanted = np.asarray(labels)
    if not wanted.size:
        raise BadInput("'labels' should contain at least one label.")
    if not np.isin(wanted, targets.truth).any():
        raise BadInput("At least one label specified must be in y_true")
    return _of_labels(found, wanted)


def multilabel_confusion_matrix(
    y_true: Any, y_pred: Any, *, sample_weight: Any = None, labels: Any = None, samplewise: bool = False
) -> Array:
    """[labels, 2, 2] of (true negatives, false positives; false negatives, true positives) of each label, or sample."""
    right, called, true, total = _counts(check_targets(y_true, y_pred, sample_weight), labels, samplewise)
    false_positives, false_negatives = called - right, true - right
    true_negatives = total - right - false_positives - false_negatives
    return np.array([true_negatives, false_positives, false_negatives, right]).T.reshape(-1, 2, 2)


def accuracy_score(y_true: Any, y_pred: Any, *, normalize: bool = True, sample_weight: Any = None) -> float:
    """Share of examples called exactly what they are, of multi-label ones in every label; or how many."""
    targets = check_targets(y_true, y_pred, sample_weight)
    right = targets.truth == targets.called
    if targets.kind == MULTILABEL:
        right = right.all(axis=1)
    if normalize:
        return _mean(right, targets.weights)
    return float(right.sum() if targets.weights is None else right @ targets.weights)


def zero_one_loss(y_true: Any, y_pred: Any, *, normalize: bool = True, sample_weight: Any = None) -> float:
    """Share, or number, of examples not called what they are."""
    score = accuracy_score(y_true, y_pred, normalize=normalize, sample_weight=sample_weight)
    if normalize:
        return 1 - score
    targets = check_targets(y_true, y_pred, sample_weight)
    return (len(targets.truth) if targets.weights is None else float(targets.weights.sum())) - score


def hamming_loss(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """Share of labels that are wrong."""
    targets = check_targets(y_true, y_pred, sample_weight)
    wrong = targets.truth != targets.called
    each = wrong.mean(axis=1) if targets.kind == MULTILABEL else wrong
    return _mean(each, targets.weights)


def balanced_accuracy_score(y_true: Any, y_pred: Any, *, sample_weight: Any = None, adjusted: bool = False) -> float:
    """Mean recall of the classes in the truth; `adjusted` so that chance is 0."""
    targets = check_targets(y_true, y_pred, sample_weight)
    if targets.kind == MULTILABEL:
        raise BadInput(f"{targets.kind} is not supported")
    found = _confusion(targets)
    there = found.support != 0
    if not there.all():
        warn("y_pred contains classes not in y_true")
    score = found.balanced_accuracy
    if adjusted:
        classes = int(there.sum())
        if classes < 2:  # there is no chance to be better than: infinitely worse, or undefined
            return -math.inf if score < 1 else math.nan
        score = (score - 1 / classes) / (1 - 1 / classes)
    return score


def cohen_kappa_score(
    y1: Any,
    y2: Any,
    *,
    labels: Any = None,
    weights: Literal["linear", "quadratic"] | None = None,
    sample_weight: Any = None,
    replace_undefined_by: float = math.nan,
) -> float:
    """Agreement of two raters beyond chance."""
    targets = check_targets(y1, y2, sample_weight)
    if targets.kind == MULTILABEL:
        raise BadInput(f"{targets.kind} is not supported")
    if labels is not None and not np.isin(np.asarray(labels), targets.truth).any():
        raise BadInput(
            "At least one label in `labels` must be present in `y1` (even though `cohen_kappa_score` is "
            "otherwise agnostic to the order of `y1` and `y2`)."
        )
    counts = matrix_of(targets, labels)
    names = tuple(range(len(counts)))
    if not counts.sum():
        undefined(
            "`y2` contains no labels that are present in both `y1` and `labels`. `cohen_kappa_score` is undefined "
            f"and set to the value defined by the `replace_undefined_by` param, which is {replace_undefined_by}."
        )
        return replace_undefined_by
    found = Confusion(names, counts.astype(np.float64)).kappa(weights)
    if math.isnan(found):
        undefined(
            "`y1`, `y2` and `labels` have only one label in common. `cohen_kappa_score` is undefined and set to "
            f"the value defined by the `replace_undefined_by` param, which is {replace_undefined_by}."
        )
        return replace_undefined_by
    return found


def matthews_corrcoef(y_true: Any, y_pred: Any, *, sample_weight: Any = None) -> float:
    """From -1 to 1; 0 where it is undefined."""
    targets = check_targets(y_true, y_pred, sample_weight)
    if targets.kind == MULTILABEL:
        raise BadInput(f"{targets.kind} is not supported")
    found = _confusion(targets).mcc
    return 0.0 if math.isnan(found) else found


def precision_score(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: ZeroDivision = "warn",
) -> Any:
    """Of those called the class, the share that is."""
    return _scores(y_true, y_pred, 1.0, labels, pos_label, average, ("precision",), sample_weight, zero_division)[0]


def recall_score(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: ZeroDivision = "warn",
) -> Any:
    """Of the class, the share that was called so."""
    return _scores(y_true, y_pred, 1.0, labels, pos_label, average, ("recall",), sample_weight, zero_division)[1]


def f1_score(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: ZeroDivision = "warn",
) -> Any:
    """2 TP / (2 TP + FP + FN)."""
    return _scores(y_true, y_pred, 1.0, labels, pos_label, average, ("f-score",), sample_weight, zero_division)[2]


def fbeta_score(
    y_true: Any,
    y_pred: Any,
    *,
    beta: float,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: ZeroDivision = "warn",
) -> Any:
    """(1 + b²) TP / ((1 + b²) TP + b² FN + FP)."""
    return _scores(y_true, y_pred, beta, labels, pos_label, average, ("f-score",), sample_weight, zero_division)[2]


def precision_recall_fscore_support(
    y_true: Any,
    y_pred: Any,
    *,
    beta: float = 1.0,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = None,
    warn_for: Sequence[str] = ("precision", "recall", "f-score"),
    sample_weight: Any = None,
    zero_division: ZeroDivision = "warn",
) -> tuple[Any, Any, Any, Any]:
    """All three, and the examples of each class (None where averaged)."""
    return _scores(y_true, y_pred, beta, labels, pos_label, average, warn_for, sample_weight, zero_division)


def jaccard_score(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    pos_label: Any = 1,
    average: str | None = "binary",
    sample_weight: Any = None,
    zero_division: ZeroDivision = "warn",
) -> Any:
    """TP / (TP + FP + FN)."""
    targets = check_targets(y_true, y_pred, sample_weight)
    chosen = _labels(targets, average, labels, pos_label)
    right, called, true, _ = _counts(targets, chosen, average == "samples")
    whole = called + true - right
    if average == "micro":
        right, whole = right.sum(keepdims=True), whole.sum(keepdims=True)
    each = _divided(right, whole, "jaccard", "true or predicted", average, ("jaccard",), zero_division)
    if average is None:
        return each
    weights = {"weighted": true, "samples": targets.weights}.get(average)
    if weights is not None and not np.any(weights):
        weights = None
    return _mean(each, weights)


def _scores(
    y_true: Any,
    y_pred: Any,
    beta: float,
    labels: Any,
    pos_label: Any,
    average: str | None,
    warn_for: Sequence[str],
    sample_weight: Any,
    zero_division: ZeroDivision,
) -> tuple[Any, Any, Any, Any]:
    """Precision, recall, F and support, each averaged unless `average` is None."""
    if not beta >= 0:
        raise BadInput(f"beta should be >=0 in the F-beta score, got {beta}")
    targets = check_targets(y_true, y_pred, sample_weight)
    chosen = _labels(targets, average, labels, pos_label)
    right, called, true, _ = _counts(targets, chosen, average == "samples")
    if average == "micro":
        right, called, true = (each.sum(keepdims=True) for each in (right, called, true))
    precision = _divided(right, called, "precision", "predicted", average, warn_for, zero_division)
    recall = _divided(right, true, "recall", "true", average, warn_for, zero_division)
    if math.isinf(beta):
        both = recall
    elif beta == 0:
        both = precision
    else:
        square = beta * beta
        both = _divided(
            (1 + square) * right,
            square * true + called,
            "f-score",
            "true nor predicted",
            average,
            warn_for,
            zero_division,
        )
    if average is None:
        return precision, recall, both, true
    weights = {"weighted": true, "samples": targets.weights}.get(average)
    averaged = [_average_of_defined(each, weights) for each in (precision, recall, both)]
    return averaged[0], averaged[1], averaged[2], None


def _mean(each: Array, weights: Array | None) -> float:
    """Raises BadInput for weights above and below 0 that are 0 together."""
    if weights is not None and not weights.sum():
        raise BadInput("Weights sum to zero, can't be normalized")
    return float(np.average(each, weights=weights))


def _average_of_defined(each: Array, weights: Array | None) -> float:
    """Without those that are NaN, which only a `zero_division` of NaN leaves."""
    there = ~np.isnan(each)
    if not there.any():
        return math.nan
    if weights is not None and weights[there].sum():
        return float(np.average(each[there], weights=weights[there]))
    return float(np.average(each[there]))


def _divided(
    part: Array,
    whole: Array,
    metric: str,
    missing: str,
    average: str | None,
    warn_for: Sequence[str],
    zero_division: ZeroDivision,
) -> Array:
    """part / whole; where whole is 0, what `zero_division` says."""
    if not (zero_division == "warn" or zero_division in (0, 1) or math.isnan(float(zero_division))):
        raise BadInput(f"zero_division must be one of {{'warn', 0.0, 1.0, nan}}, not {zero_division!r}")
    empty = whole == 0
    found: Array = part / np.where(empty, 1, whole)
    if not empty.any():
        return found
    found[empty] = 0.0 if zero_division == "warn" else float(zero_division)
    if zero_division == "warn" and metric in warn_for:
        missed, within = ("label", "sample") if average == "samples" else ("sample", "label")
        where = "due to" if len(found) == 1 else f"in {within}s with"
        undefined(
            f"{metric.capitalize()} is ill-defined and being set to 0.0 {where} no {missing} {missed}s. "
            "Use `zero_division` parameter to control this behavior."
        )
    return found


def _labels(targets: Targets, average: str | None, labels: Any, pos_label: Any) -> Any:
    """Those that count."""
    if average not in _AVERAGES and average != "binary":
        raise BadInput(f"average has to be one of {_AVERAGES}")
    if average == "binary":
        if targets.kind != BINARY:
            options = [each for each in _AVERAGES if each != "samples" or targets.kind == MULTILABEL]
            raise BadInput(
                f"Target is {targets.kind} but average='binary'. Please choose another average setting, one of "
                f"{options}."
            )
        if pos_label not in targets.labels.tolist() and len(targets.labels) >= 2:
            raise BadInput(f"pos_label={pos_label} is not a valid label. It should be one of {targets.labels}")
        return [pos_label]
    if pos_label not in (None, 1):
        warn(
            f"Note that pos_label (set to {pos_label!r}) is ignored when average != 'binary' (got {average!r}). You "
            "may use labels=[pos_label] to specify a single positive class."
        )
    return labels


def _counts(targets: Targets, labels: Any, samplewise: bool) -> tuple[Array, Array, Array, Any]:
    """True positives, called, true, and all there are: of each label in `labels`, or of each sample."""
    if targets.kind == MULTILABEL:
        return _indicator_counts(targets, labels, samplewise)
    if samplewise:
        raise BadInput("Samplewise metrics are not available outside of multilabel classification.")
    wanted = targets.labels if labels is None else np.asarray(labels)
    each = _counts_of_classes(targets)
    place = {label: index for index, label in enumerate(targets.labels.tolist())}
    chosen = np.array([place.get(label, -1) for label in wanted.tolist()], int)
    # The last is of a label that does not occur.
    right, called, true = (np.append(column, column.dtype.type(0))[chosen] for column in each)
    return right, called, true, each[2].sum()


def _counts_of_classes(targets: Targets) -> tuple[Array, Array, Array]:
    """Of each label that occurs: float64 where weighted, as scikit-learn has it, even by whole numbers."""
    size = len(targets.labels)
    if size <= _MATRIX:
        found = _confusion(targets)
        kind = np.int64 if targets.weights is None else np.float64
        return np.diag(found.counts).astype(kind), found.called.astype(kind), found.support.astype(kind)
    true, called = (np.searchsorted(targets.labels, each) for each in (targets.truth, targets.called))
    right = true == called
    weights = targets.weights
    counted = np.bincount(true[right], None if weights is None else weights[right], size)
    return counted, np.bincount(called, weights, size), np.bincount(true, weights, size)


def _indicator_counts(targets: Targets, labels: Any, samplewise: bool) -> tuple[Array, Array, Array, Any]:
    truth, called = targets.truth != 0, targets.called != 0
    if labels is not None:
        wanted = np.asarray(labels)
        for strange, word in ((wanted[wanted >= truth.shape[1]], ">"), (wanted[wanted < 0], "<")):
            if strange.size:
                limit = truth.shape[1] - 1 if word == ">" else 0
                raise BadInput(
                    f"All labels must be in [0, n labels) for multilabel targets. Got {strange.flat[0]} {word} {limit}"
                )
        truth, called = truth[:, wanted], called[:, wanted]
    if samplewise:
        found = (truth & called).sum(axis=1), called.sum(axis=1), truth.sum(axis=1)
        total: Any = truth.shape[1]
        if targets.weights is not None:
            return (
                found[0] * targets.weights,
                found[1] * targets.weights,
                found[2] * targets.weights,
                total * targets.weights,
            )
        return (*found, total)
    weights = np.ones(len(truth), np.int64) if targets.weights is None else targets.weights.astype(np.float64)
    right, all_called, true = (weights @ each for each in (truth & called, called, truth))
    return right, all_called, true, weights.sum()


def _confusion(targets: Targets) -> Confusion:
    weights, names = targets.weights, targets.labels.tolist()
    if weights is None or (weights.dtype.kind == "f" and not (weights < 0).any()):
        state = ConfusionMatrix(names, weighted=weights is not None)
        return state.update(targets.truth, targets.called, weights).compute()
    # Whole numbers stay whole; weights below 0 scikit-learn allows and the states refuse.
    size = len(names)
    rows, columns = (np.searchsorted(targets.labels, each) for each in (targets.truth, targets.called))
    counts = np.zeros(size * size, weights.dtype)
    np.add.at(counts, rows * size + columns, weights)
    if counts.dtype.kind == "i" and (np.bincount(rows * size + columns, np.abs(weights)) >= 2.0**63).any():
        raise BadInput("the sum of the weights is beyond 64 bits", remedy="give them as floats")
    return Confusion(tuple(names), counts.reshape(size, size))


def _of_labels(found: Confusion, labels: ArrayLike) -> Array:
    place = {label: index for index, label in enumerate(found.labels)}
    chosen = np.array([place.get(label, -1) for label in np.asarray(labels).tolist()])
    padded = np.pad(found.counts, ((0, 1), (0, 1)))
    chosen_only: Array = padded[np.ix_(chosen, chosen)]
    return chosen_only
