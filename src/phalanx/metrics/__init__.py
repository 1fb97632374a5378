"""How good, exactly? One definition of each metric, fed by arrays, streams of batches or ranks of a job.

States have `update`, `merge` and `compute`. Knows neither ranks nor SQL, nor models. Names are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names

if TYPE_CHECKING:
    from phalanx.metrics.confusion import Confusion, ConfusionMatrix
    from phalanx.metrics.curve import Curve
    from phalanx.metrics.errors import BadInput, DifferentDefinition, MetricError
    from phalanx.metrics.histogram import CertifiedRanking, Interval, ScoreHistogram
    from phalanx.metrics.ranking import Gaps, Needles, rank
    from phalanx.metrics.state import State
    from phalanx.metrics.states import BitsPerByte, MeanLoss, TopK
    from phalanx.metrics.sums import ExactSums

_HOMES = {
    "BadInput": "errors",
    "BitsPerByte": "states",
    "CertifiedRanking": "histogram",
    "Confusion": "confusion",
    "ConfusionMatrix": "confusion",
    "Curve": "curve",
    "DifferentDefinition": "errors",
    "ExactSums": "sums",
    "Gaps": "ranking",
    "Interval": "histogram",
    "MeanLoss": "states",
    "MetricError": "errors",
    "Needles": "ranking",
    "ScoreHistogram": "histogram",
    "State": "state",
    "TopK": "states",
    "rank": "ranking",
}
__all__ = [
    "BadInput",
    "BitsPerByte",
    "CertifiedRanking",
    "Confusion",
    "ConfusionMatrix",
    "Curve",
    "DifferentDefinition",
    "ExactSums",
    "Gaps",
    "Interval",
    "MeanLoss",
    "MetricError",
    "Needles",
    "ScoreHistogram",
    "State",
    "TopK",
    "rank",
]
__getattr__ = lazy_names(__name__, _HOMES)
