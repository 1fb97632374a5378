"""Runs of real workers, over one small corpus; nothing of them is left after a test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phalanx.job import Job
from tests.training.values import make_job, make_plan
from tests.training.workers import Run, write_text

MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "files")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make_run(tmp_path: Path, text: Path, cache: Path) -> Iterator[MakeRun]:
    """make_run(workers=2, job=None, **options of make_job) -> Run"""
    runs: list[Run] = []
    number = itertools.count()

    def make(workers: int = 2, job: Job | None = None, directory: Path | None = None, **options: object) -> Run:
        job = job or make_job(options.pop("source", text), **options)
        plan = make_plan(workers, job.spec.training.global_batch, 2)
        runs.append(Run(directory or tmp_path / f"run-{next(number)}", job, plan, cache))
        return runs[-1]

    yield make
    for run in runs:
        run.kill()


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, text: Path, cache: Path) -> Run:
    """Two workers, dropout on, from the first step to the last: what every interrupted run must equal."""
    run = Run(tmp_path_factory.mktemp("uninterrupted") / "run", make_job(text, dropout=0.2), make_plan(2, 7, 2), cache)
    try:
        run.complete()
    finally:
        run.kill()
    return run
