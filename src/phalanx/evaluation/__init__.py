"""How did it go? Scores of a checkpoint beside honest baselines, and what each rank did when.

Names are loaded on first use, as torch is slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names

if TYPE_CHECKING:
    from phalanx.evaluation.attention import Attention, attention_of
    from phalanx.evaluation.classes import ClassesReport, classes_report
    from phalanx.evaluation.comparing import Judgement, compare_evaluations, compare_predictions
    from phalanx.evaluation.errors import (
        EvaluationError,
        NotACheckpoint,
        NotADecoder,
        NothingHappened,
        UnusablePredictions,
        UnusablePrompt,
    )
    from phalanx.evaluation.evaluator import Evaluation, evaluate, open_checkpoint
    from phalanx.evaluation.needles import NeedlesReport, Wish, needles_report
    from phalanx.evaluation.numbers import NumbersReport, numbers_report
    from phalanx.evaluation.predictions import Columns, Predictions, open_predictions, predictions_of, write_rows
    from phalanx.evaluation.scores import Score, Scores
    from phalanx.evaluation.timeline import timeline_of
    from phalanx.evaluation.translating import Translation, translate_lines
    from phalanx.evaluation.words import needle_sentences, number_sentences, ranking_sentences
    from phalanx.evaluation.writing import Pace, Passage, Writing, open_writer, prompt_ids, search_texts, write_text

_HOMES = {
    "Attention": "attention",
    "ClassesReport": "classes",
    "Columns": "predictions",
    "Evaluation": "evaluator",
    "EvaluationError": "errors",
    "Judgement": "comparing",
    "NeedlesReport": "needles",
    "NotACheckpoint": "errors",
    "NotADecoder": "errors",
    "NothingHappened": "errors",
    "NumbersReport": "numbers",
    "Pace": "writing",
    "Passage": "writing",
    "Predictions": "predictions",
    "Score": "scores",
    "Scores": "scores",
    "Translation": "translating",
    "UnusablePredictions": "errors",
    "UnusablePrompt": "errors",
    "Wish": "needles",
    "Writing": "writing",
    "attention_of": "attention",
    "classes_report": "classes",
    "compare_evaluations": "comparing",
    "compare_predictions": "comparing",
    "evaluate": "evaluator",
    "needle_sentences": "words",
    "needles_report": "needles",
    "number_sentences": "words",
    "numbers_report": "numbers",
    "open_checkpoint": "evaluator",
    "open_predictions": "predictions",
    "open_writer": "writing",
    "predictions_of": "predictions",
    "prompt_ids": "writing",
    "ranking_sentences": "words",
    "search_texts": "writing",
    "timeline_of": "timeline",
    "translate_lines": "translating",
    "write_rows": "predictions",
    "write_text": "writing",
}
__all__ = [
    "Attention",
    "ClassesReport",
    "Columns",
    "Evaluation",
    "EvaluationError",
    "Judgement",
    "NeedlesReport",
    "NotACheckpoint",
    "NotADecoder",
    "NothingHappened",
    "NumbersReport",
    "Pace",
    "Passage",
    "Predictions",
    "Score",
    "Scores",
    "Translation",
    "UnusablePredictions",
    "UnusablePrompt",
    "Wish",
    "Writing",
    "attention_of",
    "classes_report",
    "compare_evaluations",
    "compare_predictions",
    "evaluate",
    "needle_sentences",
    "needles_report",
    "number_sentences",
    "numbers_report",
    "open_checkpoint",
    "open_predictions",
    "open_writer",
    "predictions_of",
    "prompt_ids",
    "ranking_sentences",
    "search_texts",
    "timeline_of",
    "translate_lines",
    "write_rows",
    "write_text",
]
__getattr__ = lazy_names(__name__, _HOMES)
