"""On what is trained: sources of text, vocabularies, prepared corpora, and batches that depend on seed and step only.

No torch. A job's `data` becomes its batches by `open_data`. Scalers bring numbers to
comparable sizes.
"""

from phalanx.data.batches import Batch, Cursor, Feed, LoaderSpec, Portion, Row, TrainingData
from phalanx.data.corpus import Corpus, CorpusDamaged, CorpusManifest, Split, SplitCounts
from phalanx.data.dataset import Dataset, DatasetManifest, DatasetWriter, Documents, Shard, SourceRecord, is_dataset
from phalanx.data.errors import (
    BadTable,
    DataChanged,
    DataError,
    DatasetDamaged,
    NotText,
    SourceEmpty,
    SourceMissing,
    TextTooSmall,
    TokenizersDiffer,
    UnfitVocabulary,
    Unscalable,
)
from phalanx.data.loader import Loader, StepFeed
from phalanx.data.masking import mask_row
from phalanx.data.opening import check_datasets, open_corpus, open_data
from phalanx.data.prepare import prepare, reopen
from phalanx.data.scaling import FeatureMoments, MinMax, Scaler, Standardize, UnitNorm
from phalanx.data.source import Document, Progress, Source
from phalanx.data.sources import BUILT_IN, SourceReport, check_examples, check_pairs, check_source, open_source
from phalanx.data.stream import StreamLoader, has_datasets, open_datasets
from phalanx.data.vocabulary import Vocabulary

__all__ = [
    "BUILT_IN",
    "BadTable",
    "Batch",
    "Corpus",
    "CorpusDamaged",
    "CorpusManifest",
    "Cursor",
    "DataChanged",
    "DataError",
    "Dataset",
    "DatasetDamaged",
    "DatasetManifest",
    "DatasetWriter",
    "Document",
    "Documents",
    "FeatureMoments",
    "Feed",
    "Loader",
    "LoaderSpec",
    "MinMax",
    "NotText",
    "Portion",
    "Progress",
    "Row",
    "Scaler",
    "Shard",
    "Source",
    "SourceEmpty",
    "SourceMissing",
    "SourceRecord",
    "SourceReport",
    "Split",
    "SplitCounts",
    "Standardize",
    "StepFeed",
    "StreamLoader",
    "TextTooSmall",
    "TokenizersDiffer",
    "TrainingData",
    "UnfitVocabulary",
    "UnitNorm",
    "Unscalable",
    "Vocabulary",
    "check_datasets",
    "check_examples",
    "check_pairs",
    "check_source",
    "has_datasets",
    "is_dataset",
    "mask_row",
    "open_corpus",
    "open_data",
    "open_datasets",
    "open_source",
    "prepare",
    "reopen",
]
