"""What can be wrong with what is to be evaluated, other than its text (`data`) or its files (`training`).

EvaluationError         exit 1   the root
├── NotFinite                    the model's answers are no numbers
├── NothingHappened              a run without rows that could be shown
└── NothingToPredict             the held-out text leaves the model nothing to do
UsageError              exit 2   of `foundation`
├── NotACheckpoint               a path that leads to no checkpoint
├── NotADecoder                  a model that cannot write text
├── NotATranslator               a model that cannot translate
├── NoSuchHead                   a layer or head that the model has not
├── NoTask                       no such task of GLUE, or a directory without its files
├── UnusablePredictions          a file of predictions that is none, or lacks a column
└── UnusablePrompt               a text that cannot be gone on with
"""

from __future__ import annotations

from phalanx.foundation import PhalanxError, UsageError


class EvaluationError(PhalanxError):
    """A checkpoint cannot be scored, or a run not be shown."""


class NotFinite(EvaluationError):
    """The model answers with infinities or NaN."""


class NothingHappened(EvaluationError):
    """The run has no rows that a timeline could show."""


class NothingToPredict(EvaluationError):
    """No token of the held-out text can be predicted."""


class NotACheckpoint(UsageError):
    """The path is neither a checkpoint nor a directory with checkpoints in it."""


class NotADecoder(UsageError):
    """Text was asked of a model that fills in masked words."""


class NotATranslator(UsageError):
    """A translation is asked of a model that was not made for it."""


class NoSuchHead(UsageError):
    """The model has not so many layers or heads."""


class NoTask(UsageError):
    """GLUE has no task of this name, or the directory holds none of its files."""


class UnusablePredictions(UsageError):
    """Predictions cannot be read, lack a column, or cannot be compared."""


class UnusablePrompt(UsageError):
    """The prompt is longer than the model can read, or is no text."""
