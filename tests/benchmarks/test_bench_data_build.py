"""The benchmark of building datasets: the sides make the same tokens, and one that would not is not measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_data_build
from benchmarks.harness import NotEqual, Options


@pytest.mark.slow
def test_every_side_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_data_build, "_QUICK_BYTES", 200_000)
    found = bench_data_build.run(Options(rounds=1, quick=True), lambda text: None)
    assert [each.name.split(" of")[0] for each in found] == [
        "data build, bpe",
        "data build, wordpiece",
        "data build, bpe after NFC",
    ]
    for each in found:
        assert list(each.values) == ["build", "plain loop", "build, near duplicates", "build, 2 processes"]


@pytest.mark.slow
def test_other_tokens_are_not_measured(tmp_path: Path) -> None:
    corpus, tokenizer = tmp_path / "corpus.jsonl", tmp_path / "bpe.json"
    texts = ["def f(x):\n    return x\n", "def g(y):\n    return y * y\n"]
    vocabulary = bench_data_build._learned("bpe", "causal-lm", texts)
    tokenizer.write_text(vocabulary.to_json())
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    bench_data_build._check_equal(tmp_path, corpus, tokenizer)
    corpus.write_text(
        corpus.read_text() + json.dumps({"text": texts[0]}) + "\n"
    )  # the loop keeps it, the build does not
    with pytest.raises(NotEqual, match="other tokens"):
        bench_data_build._check_equal(tmp_path, corpus, tokenizer)
