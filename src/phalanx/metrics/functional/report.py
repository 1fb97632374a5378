"""Several numbers of classes at once, under scikit-learn's names: the report of all classes, and likelihood ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from phalanx.metrics.errors import BadInput
from phalanx.metrics.functional.classification import (
    ZeroDivision,
    matrix_of,
    precision_recall_fscore_support,
)
from phalanx.metrics.functional.targets import BINARY, MULTILABEL, check_targets, undefined, warn


def class_likelihood_ratios(
    y_true: Any, y_pred: Any, *, labels: Any = None, sample_weight: Any = None, replace_undefined_by: Any = math.nan
) -> tuple[float, float]:
    """By how much a call changes the odds, and by how much none: sensitivity / (1 - specificity) and its opposite."""
    targets = check_targets(y_true, y_pred, sample_weight)
    if targets.kind != BINARY:
        raise BadInput(
            f"class_likelihood_ratios only supports binary classification problems, got targets of type: {targets.kind}"
        )
    positive, negative = _replacements(replace_undefined_by)
    matrix = matrix_of(targets, labels)
    if matrix.shape != (2, 2):
        raise BadInput(
            f"likelihood ratios are of two labels, not of {len(matrix)}",
            remedy="name both: labels=[negative, positive]",
        )
    (tn, fp), (fn, tp) = matrix.astype(float).tolist()
    needles, straws = tp + fn, tn + fp
    if not needles:
        undefined(
            "No samples of the positive class are present in `y_true`. `positive_likelihood_ratio` and "
            "`negative_likelihood_ratio` are both set to `np.nan`."
        )
    if not straws:
        undefined(
            "The positive likelihood ratio is ill-defined: there are no samples of the negative class in `y_true`."
        )
    how = "set to {}. Use the `replace_undefined_by` param to control this behavior."
    if not fp:
        why = "is ill-defined and" if tp else "is"
        none = "" if tp else "No samples were predicted for the positive class and "
        undefined(f"{none}`positive_likelihood_ratio` {why} {how.format(_said(positive))}")
    if not tn:
        undefined(f"`negative_likelihood_ratio` is ill-defined and {how.format(_said(negative))}")
    if needles:
        positive = tp * straws / (fp * needles) if fp else positive
        negative = fn * straws / (tn * needles) if tn else negative
        return positive, negative
    return math.nan if fp else positive, math.nan if tn else negative


def classification_report(
    y_true: Any,
    y_pred: Any,
    *,
    labels: Any = None,
    target_names: Sequence[str] | None = None,
    sample_weight: Any = None,
    digits: int = 2,
    output_dict: bool = False,
    zero_division: ZeroDivision = "warn",
) -> str | dict[str, Any]:
    """Precision, recall, F1 and support of each class and their averages, as text or as a dict."""
    targets = check_targets(y_true, y_pred, sample_weight)
    wanted = targets.labels if labels is None else np.asarray(labels)
    all_there = targets.kind != MULTILABEL and (labels is None or set(targets.labels) <= set(wanted))
    if target_names is not None and len(wanted) != len(target_names):
        if labels is None:
            raise BadInput(
                f"Number of classes, {len(wanted)}, does not match size of target_names, {len(target_names)}. Try "
                "specifying the labels parameter"
            )
        warn(f"labels size, {len(wanted)}, does not match size of target_names, {len(target_names)}")
    names = [str(each) for each in (wanted if target_names is None else target_names)]
    heads = ["precision", "recall", "f1-score", "support"]
    options: dict[str, Any] = {"labels": wanted, "sample_weight": sample_weight, "zero_division": zero_division}
    each = precision_recall_fscore_support(y_true, y_pred, average=None, **options)
    rows = dict(zip(names, zip(*each, strict=True), strict=False))
    averages = {}
    for average in ("micro", "macro", "weighted", *(("samples",) if targets.kind == MULTILABEL else ())):
        found = precision_recall_fscore_support(y_true, y_pred, average=average, **options)
        name = "accuracy" if average == "micro" and all_there else f"{average} avg"
        averages[name] = (*found[:3], each[3].sum())
    if output_dict:
        report: dict[str, Any] = {name: dict(zip(heads, map(_plain, row), strict=True)) for name, row in rows.items()}
        report |= {name: dict(zip(heads, map(_plain, row), strict=True)) for name, row in averages.items()}
        if "accuracy" in report:
            report["accuracy"] = report["accuracy"]["precision"]
        return report
    width = max(*map(len, names), len("weighted avg"), digits)
    lines = [f"{'':>{width}s} " + "".join(f" {head:>9}" for head in heads), ""]
    for block in (rows, averages):
        for name, row in block.items():
            numbers = [f"{number:>9.{digits}f}" for number in row[:3]]
            if name == "accuracy" and block is averages:
                numbers[:2] = [f"{'':>9}"] * 2
            lines.append(f"{name:>{width}s} " + "".join(f" {number}" for number in numbers) + f" {row[3]:>9}")
        lines.append("")
    return "\n".join(lines)


def _plain(number: Any) -> Any:
    return number.item() if hasattr(number, "item") else number


def _said(number: float) -> str:
    return "`np.nan`" if math.isnan(number) else f"`{number}`"


def _replacements(given: Any) -> tuple[float, float]:
    if not isinstance(given, dict):
        return float(given), float(given)
    words = (
        "The dictionary passed as `replace_undefined_by` needs to be in the form `{'LR+': value_1, 'LR-': value_2}` "
        "where `LR+` ranges from 1 to infinity and `LR-` from 0 to 1, or is nan."
    )
    positive, negative = given.get("LR+"), given.get("LR-")
    if not (isinstance(positive, int | float) and isinstance(negative, int | float)):
        raise BadInput(words)
    if not (math.isnan(positive) or positive >= 1) or not (math.isnan(negative) or 0 <= negative <= 1):
        raise BadInput(words)
    return float(positive), float(negative)
