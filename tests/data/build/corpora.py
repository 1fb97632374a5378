"""Generated text, and builds inside this process, for the tests of building datasets."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from phalanx.data.build import BuildOptions, building
from phalanx.data.build.options import TrainTokenizer
from phalanx.data.build.work import Result, Work
from phalanx.data.build.worker import perform
from phalanx.data.dataset import Dataset

LETTERS = "abcdefghijklmnopqrstuvwxyzäßéøжи"
BYTES = TrainTokenizer("bytes", 256, "causal-lm", 1 << 20)


@functools.cache
def made_up(number: int) -> str:
    """A word."""
    own = random.Random(number)
    return "".join(own.choice(LETTERS) for _ in range(own.randint(2, 9)))


def words(count: int, chance: random.Random, kinds: int = 4000) -> list[str]:
    """Of a vocabulary of `kinds` made-up words."""
    return [made_up(int(chance.random() * kinds)) for _ in range(count)]


def document(chance: random.Random, least: int = 20, most: int = 120) -> str:
    return " ".join(words(chance.randint(least, most), chance)) + "\n"


def altered(text: str, changes: int, chance: random.Random) -> str:
    """`text` with some words replaced."""
    parts = text.split()
    for place in chance.sample(range(len(parts)), changes):
        parts[place] = f"changed{chance.randrange(10**6)}"
    return " ".join(parts) + "\n"


def write_files(directory: Path, texts: Iterable[str]) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, text in enumerate(texts):
        path = directory / f"{number:05d}.txt"
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def options_for(*sources: Path | str, **changes: Any) -> BuildOptions:
    """Over bytes, so that nothing need be learned, unless `changes` say otherwise."""
    return replace(BuildOptions(tuple(map(str, sources)), train=BYTES), **changes)


class InProcess:
    """In the place of a pool: does each task here, and tells `between` before each."""

    def __init__(self, work: Work, size: int) -> None:
        del size
        self._work = work
        self.peak = 1

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, tasks: Iterable[dict[str, Any]], progress: Callable[[int], None]) -> Iterator[Result]:
        plan = self._work.plan()
        assert plan is not None
        options = BuildOptions.from_json(plan["options"])
        for task in tasks:
            yield perform(self._work, options, task, progress)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the disk: these tests kill processes, not machines."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(building, "Pool", InProcess)


def texts_of(directory: Path, split: str) -> list[str]:
    """What the documents of a lossless dataset say, in order."""
    dataset = Dataset.open(directory)
    documents = dataset.split(split)
    return [dataset.vocabulary.decode(documents.read(number)) for number in range(len(documents))]


def fingerprints(directory: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}
