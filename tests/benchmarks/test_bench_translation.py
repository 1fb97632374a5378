"""The benchmark of translation runs on a few pairs, and draws what the documentation shows."""

from __future__ import annotations

import gzip
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import bench_translation
from benchmarks.harness import MissingData, Options
from tests.evaluation.test_translation import write_pairs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where the benchmark looks for Multi30k, other pairs."""
    for split, count in (("train", 400), ("val", 60)):
        write_pairs(tmp_path / split, count=count)
        for side, other in (("de", "de"), ("en", "xx")):
            file = tmp_path / "text" / f"multi30k_{split}.{side}.gz"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(gzip.compress((tmp_path / split / f"text.{other}").read_bytes()))
    return tmp_path


def test_both_models_are_trained_for_as_long_and_drawn(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(bench_translation, "QUICK_SECONDS", 1.0)
    out = tmp_path / "out"
    (found,) = bench_translation.run(Options(rounds=1, quick=True, data=data, out=out), lambda text: None)
    assert list(found.values) == ["with attention", "without attention"]
    assert found.unit == "BLEU"
    words = bench_translation.report([found])
    assert "| all | 60 |" in words
    assert "| 1 to 5 |" in words
    for name in ("translation.svg", "alignments.svg"):
        assert ET.parse(out / name).getroot().tag.endswith("svg")
    assert (out / "alignments.svg").read_text().count("data:image/png") == 4


def test_without_its_data_it_says_what_it_misses(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="multi30k_train"):
        bench_translation.run(Options(data=tmp_path), lambda text: None)
