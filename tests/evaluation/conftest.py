"""One small decoder and one small encoder, trained once for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.runs import Trained, make_job, train, write_text


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("evaluated") / "files")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluated-cache")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory, text: Path, cache: Path) -> Trained:
    return train(tmp_path_factory.mktemp("decoder") / "run", make_job(text), cache, steps=60)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory, text: Path, cache: Path) -> Trained:
    return train(tmp_path_factory.mktemp("encoder") / "run", make_job(text, "masked-lm"), cache, steps=60)
