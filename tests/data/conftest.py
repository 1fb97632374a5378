"""Small corpora, really prepared."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from phalanx.data import Corpus, prepare
from phalanx.job import DataSpec, VocabularySpec
from phalanx.job.spec import Objective, VocabularyKind

WORDS = [
    "the",
    "model",
    "reads",
    "a",
    "file",
    "and",
    "then",
    "the",
    "worker",
    "writes",
    "its",
    "step",
    "to",
    "disk",
    "while",
    "another",
    "rank",
    "waits",
    "for",
    "data",
]


def sentences(count: int, seed: int = 0) -> str:
    """Text with a grammar thin enough for a vocabulary to be learned from it."""
    rng = random.Random(seed)
    return "".join(" ".join(rng.choices(WORDS, k=rng.randint(3, 12))).capitalize() + ".\n" for _ in range(count))


@pytest.fixture
def text_directory(tmp_path: Path) -> Path:
    """Forty files of text of unequal size, and a copy of one."""
    root = tmp_path / "text"
    for number in range(40):
        path = root / f"part{number % 4}" / f"{number:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sentences(1 + 7 * (number % 9), seed=number))
    (root / "part0" / "copy.txt").write_text((root / "part0" / "04.txt").read_text())
    return root


MakeCorpus = Callable[..., Corpus]


@pytest.fixture
def make_corpus(tmp_path: Path, text_directory: Path) -> MakeCorpus:
    def make(
        objective: Objective = "causal-lm", kind: VocabularyKind = "bytes", size: int = 400, held_out: float = 0.2
    ) -> Corpus:
        spec = DataSpec(source=str(text_directory), vocabulary=VocabularySpec(kind=kind, size=size), held_out=held_out)
        return prepare(spec, objective, tmp_path / "cache")

    return make
