"""The benchmark of generation: small sizes for real, and that it measures nothing where the texts differ."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import bench_generation
from benchmarks.bench_generation import OURS, THEIRS, Case
from benchmarks.harness import NotEqual, Options

QUICK = Options(rounds=1, quick=True)


def quiet(_text: str) -> None:
    pass


@pytest.mark.parametrize("case", [Case("texts", "small", 5, rows=2), Case("beams", "llama", 5, beams=2)])
def test_both_sides_write_the_same_and_are_measured(case: Case) -> None:
    processor, wall = bench_generation.measure(case, QUICK, quiet)
    assert list(wall.values) == list(processor.values) == [OURS, THEIRS]
    assert wall.unit == "tokens/s"
    assert processor.unit == "tokens per CPU second"
    assert all(value > 0 for values in wall.values.values() for value in values)


def test_other_tokens_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    real = bench_generation.theirs_writes

    def otherwise(*arguments: Any) -> list[list[int]]:
        return [[token + 1 for token in text] for text in real(*arguments)]

    monkeypatch.setattr(bench_generation, "theirs_writes", otherwise)
    with pytest.raises(NotEqual, match="different tokens"):
        bench_generation.measure(Case("texts", "small", 3), QUICK, quiet)


def test_the_shapes_are_what_their_names_say() -> None:
    assert bench_generation.config_of("gpt2", quick=False).layers == 12
    for shape in ("small", "small-50257", "llama"):
        config = bench_generation.config_of(shape, quick=False)
        assert (config.layers, config.hidden) == (4, 128)
