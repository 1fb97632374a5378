"""Metrics of rankings by query or example, under scikit-learn's names: means of exact sums of what `Ranked` says.

`y_true` [n, items] is how relevant each item of a query is, or which labels an example has; `y_score` [n, items] what
it is ranked by, highest first; `sample_weight` [n].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays, products
from phalanx.metrics.errors import BadInput
from phalanx.metrics.functional.targets import BINARY, MULTILABEL, consistent, dense, finite, kind_of, sample_weights
from phalanx.metrics.products import Floats
from phalanx.metrics.retrieval import Ranked, chunks
from phalanx.metrics.sums import ExactSums

_GRADED = (MULTILABEL, "continuous-multioutput", "multiclass-multioutput")


def dcg_score(
    y_true: Any,
    y_score: Any,
    *,
    k: int | None = None,
    log_base: float = 2,
    sample_weight: Any = None,
    ignore_ties: bool = False,
) -> float:
    """Discounted cumulative gain of the first k. `ignore_ties`: say that no scores tie; of those that do, the last item
    then comes first."""
    gains, scores = _graded(y_true, y_score, sample_weight, k)
    scores = _untied(scores) if ignore_ties else scores
    return _mean(gains, scores, sample_weight, lambda ranked: ranked.dcg(k, log_base))


def ndcg_score(
    y_true: Any, y_score: Any, *, k: int | None = None, sample_weight: Any = None, ignore_ties: bool = False
) -> float:
    """DCG as a share of the best; 0 where nothing is relevant."""
    gains = dense("y_true", y_true)
    if gains.dtype.kind in "iuf" and gains.size and gains.min() < 0:
        raise BadInput("ndcg_score should not be used on negative y_true values.")
    if gains.ndim > 1 and gains.shape[1] <= 1:
        raise BadInput(
            f"Computing NDCG is only meaningful when there is more than 1 document. Got {gains.shape[1]} instead."
        )
    gains, scores = _graded(y_true, y_score, sample_weight, k)
    scores = _untied(scores) if ignore_ties else scores
    return _mean(gains, scores, sample_weight, lambda ranked: np.nan_to_num(ranked.ndcg(k)))


def label_ranking_average_precision_score(y_true: Any, y_score: Any, *, sample_weight: Any = None) -> float:
    """Mean over an example's labels of the share of its labels down to their score; 1 where it has none."""
    labels, scores = _labelled(y_true, y_score, sample_weight, one_column=True)
    return _mean(labels, scores, sample_weight, lambda ranked: np.nan_to_num(ranked.average_precision(), nan=1.0))


def coverage_error(y_true: Any, y_score: Any, *, sample_weight: Any = None) -> float:
    """How far down one must go for all labels of an example; 0 where it has none."""
    for name, data in (("y_true", y_true), ("y_score", y_score)):
        found = dense(name, data)
        if found.ndim != 2:
            raise BadInput(f"Expected 2D array, got {found.ndim}D array instead: {name} is [n, labels]")
    labels, scores = _labelled(y_true, y_score, sample_weight)
    return _mean(labels, scores, sample_weight, lambda ranked: np.nan_to_num(ranked.coverage()))


def label_ranking_loss(y_true: Any, y_score: Any, *, sample_weight: Any = None) -> float:
    """Share of pairs of a label of an example and another that are in the wrong order, or tie; 0 where there are no
    pairs."""
    labels, scores = _labelled(y_true, y_score, sample_weight)
    return _mean(labels, scores, sample_weight, lambda ranked: np.nan_to_num(ranked.ranking_loss()))


def _graded(y_true: Any, y_score: Any, sample_weight: Any, k: int | None) -> tuple[Floats, NDArray[Any]]:
    if k is not None and k < 1:
        raise BadInput(f"The 'k' parameter must be an int in the range [1, inf) or None. Got {k} instead.")
    gains, scores = _numbers("y_true", y_true), _numbers("y_score", y_score)
    consistent(y_true=gains, y_score=scores, sample_weight=sample_weight if hasattr(sample_weight, "__len__") else None)
    kind = kind_of("y_true", y_true)
    if kind not in _GRADED:
        raise BadInput(f"Only {_GRADED} formats are supported. Got {kind} instead")
    if gains.shape != scores.shape:
        raise BadInput(f"y_true and y_score have different shapes: {gains.shape} and {scores.shape}")
    return gains, scores


def _labelled(
    y_true: Any, y_score: Any, sample_weight: Any, *, one_column: bool = False
) -> tuple[Floats, NDArray[Any]]:
    labels, scores = _numbers("y_true", y_true), _numbers("y_score", y_score)
    consistent(
        y_true=labels, y_score=scores, sample_weight=sample_weight if hasattr(sample_weight, "__len__") else None
    )
    if labels.shape != scores.shape:
        raise BadInput(f"y_true and y_score have different shape: {labels.shape} and {scores.shape}")
    kind = kind_of("y_true", y_true)
    if kind != MULTILABEL and not (one_column and kind == BINARY and labels.ndim == 2):
        raise BadInput(f"{kind} format is not supported")
    return labels, scores


def _numbers(name: str, data: Any) -> Floats:
    found = finite(name, arrays.floats(name, dense(name, data))).astype(np.float64, copy=False)
    if not len(found):
        raise BadInput(f"Found array with 0 sample(s) (shape={found.shape}) while a minimum of 1 is required.")
    return products.bounded(name, found)


def _untied(scores: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the same order; of those that tied, the last is highest."""
    return np.argsort(np.argsort(scores, axis=1, kind="stable"), axis=1, kind="stable")


def _mean(relevance: Floats, scores: NDArray[Any], sample_weight: Any, value: Callable[[Ranked], Floats]) -> float:
    each = np.concatenate([value(ranked) for ranked in chunks(relevance, scores)])
    weights = sample_weights(sample_weight, len(each))
    if weights is None:
        return float(products.total(None, each) / len(each))
    heavy = products.bounded("sample_weight", weights.astype(np.float64))
    weight = ExactSums.of(heavy).fractions()[0]
    if not weight:
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    return float(products.total(heavy, each) / weight)
