"""How did it go? Scores of a checkpoint beside honest baselines, and what each rank did when.

Names are loaded on first use, as torch is slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names

if TYPE_CHECKING:
    from phalanx.evaluation.errors import (
        EvaluationError,
        NotACheckpoint,
        NotADecoder,
        NothingHappened,
        UnusablePrompt,
    )
    from phalanx.evaluation.evaluator import Evaluation, evaluate, open_checkpoint
    from phalanx.evaluation.scores import Score, Scores
    from phalanx.evaluation.timeline import timeline_of
    from phalanx.evaluation.writing import Sampling, write_text

_HOMES = {
    "Evaluation": "evaluator",
    "EvaluationError": "errors",
    "NotACheckpoint": "errors",
    "NotADecoder": "errors",
    "NothingHappened": "errors",
    "Sampling": "writing",
    "Score": "scores",
    "Scores": "scores",
    "UnusablePrompt": "errors",
    "evaluate": "evaluator",
    "open_checkpoint": "evaluator",
    "timeline_of": "timeline",
    "write_text": "writing",
}
__all__ = [
    "Evaluation",
    "EvaluationError",
    "NotACheckpoint",
    "NotADecoder",
    "NothingHappened",
    "Sampling",
    "Score",
    "Scores",
    "UnusablePrompt",
    "evaluate",
    "open_checkpoint",
    "timeline_of",
    "write_text",
]
__getattr__ = lazy_names(__name__, _HOMES)
