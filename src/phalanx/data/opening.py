"""From a job to what it trains on: the one place that knows which kinds of data there are."""

from __future__ import annotations

from pathlib import Path

from phalanx.data.batches import LoaderSpec, TrainingData
from phalanx.data.loader import Loader
from phalanx.data.prepare import prepare, reopen
from phalanx.data.source import Progress
from phalanx.job import JobSpec


def open_data(
    spec: JobSpec, cache_dir: Path, progress: Progress | None = None, record: Path | None = None
) -> TrainingData:
    """The data of a job. `record`: a run's `data/`: a run that goes on gets the very data that it began with.

    Raises the errors of `prepare`, `reopen` and Loader.
    """
    if record is None:
        corpus = prepare(spec.prepared_data, spec.model.objective, cache_dir, progress)
    else:
        corpus = reopen(record, spec.prepared_data, spec.model.objective, cache_dir, progress)
    return Loader(corpus, LoaderSpec.of(spec))
