"""The benchmark of SST-2 runs on a few sentences, and its table says whose numbers are whose."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import bench_sst2
from benchmarks.bench_sst2 import FRESH, PRETRAINED, REGRESSION
from benchmarks.harness import Comparison, MissingData, Options


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where the benchmark looks for SST-2, sentences in which one word decides."""
    draw = random.Random(3)
    words = "the a film plot actor scene was is very quite".split()  # noqa: SIM905
    (tmp_path / "text").mkdir()
    for split, count in (("train", 400), ("dev", 40), ("test", 40)):
        rows = []
        for number in range(count):
            label = number % 2
            said = draw.choice((["dull", "tired"], ["fine", "lovely"])[label])
            rows.append(f'{" ".join(draw.choices(words, k=draw.randint(3, 8)))} "{said} {number}\t{label}\n')
        (tmp_path / "text" / f"sst2_{split}.tsv").write_text("".join(rows))
    return tmp_path


@pytest.fixture
def cores() -> Iterator[None]:
    """The benchmark keeps to one core; the tests after it may have all again."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def test_the_regression_finds_the_word_that_decides(data: Path) -> None:
    found = bench_sst2._regression({split: data / "text" / f"sst2_{split}.tsv" for split in ("train", "dev", "test")})
    assert found["test"]["value"] == found["dev"]["value"] == 1
    assert found["test"]["low"] < 1
    assert found["C"] in bench_sst2.PENALTIES


def test_without_its_data_it_says_what_it_misses(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="sst2_train"):
        bench_sst2.run(Options(data=tmp_path), lambda text: None)


def test_the_table_has_means_of_rounds_and_the_interval_of_one() -> None:
    def scored(dev: float, test: float) -> dict[str, object]:
        interval = {"low": test - 0.02, "high": test + 0.02}
        return {"dev": {"value": dev}, "test": {"value": test, **interval}, "cpu_seconds": 20.0}

    notes = {
        PRETRAINED: [scored(0.70, 0.72), scored(0.74, 0.76)],
        FRESH: [scored(0.60, 0.61), scored(0.60, 0.61)],
        REGRESSION: [scored(0.80, 0.81)],
        "pretraining": {"cpu_seconds": 200.0},
    }
    values = {PRETRAINED: [0.72, 0.76], FRESH: [0.61, 0.61], REGRESSION: [0.81, 0.81]}
    scores = Comparison("SST-2", "share", values, {name: {} for name in values}, notes)
    speeds = Comparison("speed", "sentences/CPU s", {"packed": [2.0], "padded": [1.0]}, {"packed": {}, "padded": {}})
    lines = bench_sst2.report([scores, speeds]).splitlines()
    assert lines[2] == f"| {PRETRAINED} | 72.0% | 74.0% | 70.0% to 74.0% | 20 + 200 once |"
    assert lines[4] == f"| {REGRESSION} | 80.0% | 81.0% | 79.0% to 83.0% | 20 |"
    assert "2.00 x" in lines[-1]


@pytest.mark.slow
def test_all_sides_are_trained_and_judged(data: Path, cores: None) -> None:
    scores, speeds = bench_sst2.run(Options(rounds=1, quick=True, data=data), lambda text: None)
    assert list(scores.values) == [PRETRAINED, FRESH, REGRESSION]
    assert scores.values[REGRESSION] == [1.0]
    assert all(0 <= values[0] <= 1 for values in scores.values.values())
    assert speeds.values["packed"][0] > 0
    assert FRESH in bench_sst2.report([scores, speeds])
