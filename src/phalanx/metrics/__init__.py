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
    from phalanx.metrics.functional.classification import (
        accuracy_score,
        balanced_accuracy_score,
        class_likelihood_ratios,
        classification_report,
        cohen_kappa_score,
        confusion_matrix,
        f1_score,
        fbeta_score,
        hamming_loss,
        jaccard_score,
        matthews_corrcoef,
        multilabel_confusion_matrix,
        precision_recall_fscore_support,
        precision_score,
        recall_score,
        zero_one_loss,
    )
    from phalanx.metrics.functional.targets import UndefinedMetricWarning
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
    "accuracy_score": "functional.classification",
    "balanced_accuracy_score": "functional.classification",
    "class_likelihood_ratios": "functional.classification",
    "classification_report": "functional.classification",
    "cohen_kappa_score": "functional.classification",
    "confusion_matrix": "functional.classification",
    "f1_score": "functional.classification",
    "fbeta_score": "functional.classification",
    "hamming_loss": "functional.classification",
    "jaccard_score": "functional.classification",
    "matthews_corrcoef": "functional.classification",
    "multilabel_confusion_matrix": "functional.classification",
    "precision_recall_fscore_support": "functional.classification",
    "precision_score": "functional.classification",
    "recall_score": "functional.classification",
    "zero_one_loss": "functional.classification",
    "UndefinedMetricWarning": "functional.targets",
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
    "accuracy_score",
    "balanced_accuracy_score",
    "class_likelihood_ratios",
    "classification_report",
    "cohen_kappa_score",
    "confusion_matrix",
    "f1_score",
    "fbeta_score",
    "hamming_loss",
    "jaccard_score",
    "matthews_corrcoef",
    "multilabel_confusion_matrix",
    "precision_recall_fscore_support",
    "precision_score",
    "recall_score",
    "zero_one_loss",
    "UndefinedMetricWarning",
]
__getattr__ = lazy_names(__name__, _HOMES)
