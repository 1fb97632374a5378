"""Runs with a trained decoder and a trained encoder, made once for the verbs that read checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx.foundation import Home
from tests.evaluation.runs import Trained, make_job, train, write_text


@pytest.fixture(scope="session")
def trained_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home.find(tmp_path_factory.mktemp("trained") / "home")


@pytest.fixture(scope="session")
def trained_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("trained-text") / "files")


@pytest.fixture(scope="session")
def trained_decoder(trained_home: Home, trained_text: Path) -> Trained:
    directory = trained_home.run_dir("tests", "decoder", 1)
    return train(directory, make_job(trained_text), trained_home.cache_dir, steps=10)


@pytest.fixture(scope="session")
def trained_encoder(trained_home: Home, trained_text: Path) -> Trained:
    directory = trained_home.run_dir("tests", "encoder", 1)
    return train(directory, make_job(trained_text, "masked-lm"), trained_home.cache_dir, steps=10)
