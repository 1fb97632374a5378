"""A small corpus for masked words, really prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx.data import Corpus, prepare
from phalanx.job import DataSpec
from tests.training.workers import write_text

LENGTH = 32


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """24 files of 500 made-up words in 300 pieces; a file is many documents of LENGTH tokens."""
    root = tmp_path_factory.mktemp("benchmarks")
    source = write_text(root / "text")
    values = {
        "source": str(source),
        "sequence_length": LENGTH,
        "vocabulary": {"kind": "wordpiece", "size": 300},
        "held_out": 0.2,
    }
    return prepare(DataSpec.model_validate(values), "masked-lm", Path(root / "cache"))
