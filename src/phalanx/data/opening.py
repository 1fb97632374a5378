"""From a job to what it trains on: the one place that knows which kinds of data there are."""

from __future__ import annotations

from pathlib import Path

from phalanx.data.batches import LoaderSpec, TrainingData
from phalanx.data.corpus import MANIFEST, Corpus
from phalanx.data.errors import DataError, DatasetDamaged, TokenizersDiffer
from phalanx.data.loader import Loader
from phalanx.data.prepare import prepare, reopen
from phalanx.data.source import Progress
from phalanx.data.sources import SourceReport, problem
from phalanx.data.stream import StreamLoader, has_datasets, open_datasets
from phalanx.job import JobSpec


def open_data(
    spec: JobSpec, cache_dir: Path, progress: Progress | None = None, record: Path | None = None
) -> TrainingData:
    """The data of a job. `record`: a run's `data/`: a run that goes on gets the very data that it began with.

    Raises the errors of `prepare`, `reopen` and Loader; of `open_datasets` and StreamLoader; and DataChanged when a run
    began with other datasets.
    """
    if _on_datasets(spec, record):
        return _stream(spec, record)
    return Loader(_corpus(spec, cache_dir, progress, record), LoaderSpec.of(spec))


def open_corpus(spec: JobSpec, cache_dir: Path, progress: Progress | None = None, record: Path | None = None) -> Corpus:
    """What an evaluation is made on: the whole corpus, or of datasets a sample, always the same.

    Raises as `open_data`.
    """
    if _on_datasets(spec, record):
        return _stream(spec, record).sampled_corpus()
    return _corpus(spec, cache_dir, progress, record)


def _on_datasets(spec: JobSpec, record: Path | None) -> bool:
    """A run that began with text goes on with it, even where a dataset has been built meanwhile."""
    return has_datasets(spec.data) and not (record and (record / MANIFEST).exists())


def _stream(spec: JobSpec, record: Path | None) -> StreamLoader:
    data = StreamLoader(*open_datasets(spec.data, spec.model.objective), LoaderSpec.of(spec))
    if record is not None:
        data.check_record(record)
    return data


def _corpus(spec: JobSpec, cache_dir: Path, progress: Progress | None, record: Path | None) -> Corpus:
    if record is None:
        return prepare(spec.prepared_data, spec.model.objective, cache_dir, progress)
    return reopen(record, spec.prepared_data, spec.model.objective, cache_dir, progress)


def check_datasets(spec: JobSpec) -> SourceReport:
    """As `check_source`, of built datasets: whether their files are there, whole by their sizes, and serve the job."""
    try:
        data = _stream(spec, None)
    except DataError as error:
        file = error.where if isinstance(error, DatasetDamaged | TokenizersDiffer) else None
        return SourceReport(spec.data.name, problems=(problem(file or spec.data.name, error),))
    shards = [shard for dataset in data.datasets for shards in dataset.manifest.splits.values() for shard in shards]
    return SourceReport(spec.data.name, 2 * len(shards), sum(shard.bytes for shard in shards))
