"""What evaluations of predictions say to programs: JSON without NaN, and rows of the store's table `metrics`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from phalanx.metrics.intervals import ConfidenceInterval


def metrics_row(
    source: str, metric: str, value: float | ConfidenceInterval, slice_: str, threshold: float | None, examples: float
) -> dict[str, Any]:
    """Of the table `metrics`."""
    interval = (
        value if isinstance(value, ConfidenceInterval) else ConfidenceInterval(value, math.nan, math.nan, 0.0, "")
    )
    return {
        "predictions": source,
        "metric": metric,
        "slice": slice_,
        "value": _or_none(interval.value),
        "low": _or_none(interval.low),
        "high": _or_none(interval.high),
        "method": interval.method,
        "threshold": threshold,
        "examples": int(examples),
    }


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def without_nan(value: Any) -> Any:
    """As JSON can say it: null for what is no finite number."""
    if isinstance(value, float):
        return _or_none(value)
    if isinstance(value, dict):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value
