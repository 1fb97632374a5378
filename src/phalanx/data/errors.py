"""What can be wrong with a person's text.

DataError               exit 2   the root
├── SourceMissing                no such source, file or directory, or it may not be read
├── SourceEmpty                  there is no text in it
├── NotText                      it is binary, or not UTF-8
├── UnreadableText               a document in it is broken: its packing, its encoding, its JSON or its field
├── TextTooSmall                 too little for what the job wants of it
├── DataChanged                  the source no longer gives the text that a run began with
├── DatasetDamaged               a built dataset's file is missing, cut, altered, or of another dataset
├── TokenizersDiffer             datasets of different vocabularies cannot be mixed
├── BadTable                     a file of examples has no such column, a line that does not fit, or a bad label
├── UnfitVocabulary              this kind or size of vocabulary cannot serve the objective
└── Unscalable                   numbers that cannot be scaled, or a scaler's file that cannot be read
"""

from __future__ import annotations

from phalanx.foundation import UsageError


class DataError(UsageError):
    """The data cannot be used as the job asks."""


class SourceMissing(DataError):
    """The source is not there, is not a regular file or directory, or may not be read."""


class SourceEmpty(DataError):
    """The source holds no text."""


class NotText(DataError):
    """The source is binary or not valid UTF-8."""


class UnreadableText(DataError):
    """A document of a source cannot be read; says in which file and line."""


class TextTooSmall(DataError):
    """There is not enough text for one batch, or for a training and a held-out part."""


class DataChanged(DataError):
    """The source no longer gives the corpus that a run was begun with, and that one is not in the cache."""


class DatasetDamaged(DataError):
    """A file of a built dataset is missing, cut, altered, or belongs to another dataset."""


class TokenizersDiffer(DataError):
    """Datasets that were made with different vocabularies are asked to be mixed."""


class BadTable(DataError):
    """A file of examples is not the table that was expected."""


class UnfitVocabulary(DataError):
    """The vocabulary asked for cannot serve the objective."""


class Unscalable(DataError):
    """These numbers cannot be scaled, or there is no such scaler."""
