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
    from phalanx.metrics.functional.ranking import (
        auc,
        average_precision_score,
        det_curve,
        precision_recall_curve,
        roc_auc_score,
        roc_curve,
        top_k_accuracy_score,
    )
    from phalanx.metrics.functional.targets import UndefinedMetricWarning
    from phalanx.metrics.histogram import CertifiedRanking, Interval, ScoreHistogram
    from phalanx.metrics.ranking import Gaps, Needles, rank
    from phalanx.metrics.state import State
    from phalanx.metrics.states import BitsPerByte, MeanLoss, TopK
    from phalanx.metrics.sums import ExactSums
    from phalanx.metrics.text import (
        Bleu,
        BleuScore,
        Chrf,
        ChrfScore,
        corpus_bleu,
        corpus_chrf,
        sentence_bleu,
        sentence_chrf,
    )

_HOMES = {
    "BadInput": "errors",
    "BitsPerByte": "states",
    "Bleu": "text",
    "BleuScore": "text",
    "CertifiedRanking": "histogram",
    "Chrf": "text",
    "ChrfScore": "text",
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
    "UndefinedMetricWarning": "functional.targets",
    "accuracy_score": "functional.classification",
    "auc": "functional.ranking",
    "average_precision_score": "functional.ranking",
    "balanced_accuracy_score": "functional.classification",
    "class_likelihood_ratios": "functional.classification",
    "classification_report": "functional.classification",
    "cohen_kappa_score": "functional.classification",
    "confusion_matrix": "functional.classification",
    "corpus_bleu": "text",
    "corpus_chrf": "text",
    "det_curve": "functional.ranking",
    "f1_score": "functional.classification",
    "fbeta_score": "functional.classification",
    "hamming_loss": "functional.classification",
    "jaccard_score": "functional.classification",
    "matthews_corrcoef": "functional.classification",
    "multilabel_confusion_matrix": "functional.classification",
    "precision_recall_curve": "functional.ranking",
    "precision_recall_fscore_support": "functional.classification",
    "precision_score": "functional.classification",
    "rank": "ranking",
    "recall_score": "functional.classification",
    "roc_auc_score": "functional.ranking",
    "roc_curve": "functional.ranking",
    "sentence_bleu": "text",
    "sentence_chrf": "text",
    "top_k_accuracy_score": "functional.ranking",
    "zero_one_loss": "functional.classification",
}
__all__ = [
    "BadInput",
    "BitsPerByte",
    "Bleu",
    "BleuScore",
    "CertifiedRanking",
    "Chrf",
    "ChrfScore",
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
    "UndefinedMetricWarning",
    "accuracy_score",
    "auc",
    "average_precision_score",
    "balanced_accuracy_score",
    "class_likelihood_ratios",
    "classification_report",
    "cohen_kappa_score",
    "confusion_matrix",
    "corpus_bleu",
    "corpus_chrf",
    "det_curve",
    "f1_score",
    "fbeta_score",
    "hamming_loss",
    "jaccard_score",
    "matthews_corrcoef",
    "multilabel_confusion_matrix",
    "precision_recall_curve",
    "precision_recall_fscore_support",
    "precision_score",
    "rank",
    "recall_score",
    "roc_auc_score",
    "roc_curve",
    "sentence_bleu",
    "sentence_chrf",
    "top_k_accuracy_score",
    "zero_one_loss",
]
__getattr__ = lazy_names(__name__, _HOMES)
