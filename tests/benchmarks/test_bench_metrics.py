"""The benchmark of metrics runs, at sizes that give no number to quote, and refuses sides that answer differently."""

import numpy as np
import pytest

from benchmarks import bench_metrics, side_metrics
from benchmarks.bench_metrics import OURS, PEER, TORCH
from benchmarks.harness import NotEqual, Options


def test_all_sides_answer_the_same_and_are_measured() -> None:
    found = bench_metrics.run(Options(rounds=1, quick=True), lambda text: None)
    assert len(found) == 5
    for comparison in found:
        assert list(comparison.values)[:2] == [OURS, PEER]
        assert (TORCH in comparison.values) == (
            bench_metrics.has_torchmetrics() and "weighted" not in comparison.name.split()
        )
        assert any("x less than scikit-learn" in note for note in comparison.notes)


def test_chunks_are_the_same_whoever_opens_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_metrics, "CHUNK", 1000)
    whole = list(side_metrics.scores(3500, "float32", weighted=True))
    parts = [list(side_metrics.scores(3500, "float32", weighted=True, part=part, parts=2)) for part in range(2)]
    assert [len(batch[0]) for batch in whole] == [1000, 1000, 1000, 500]
    for index, batch in enumerate(whole):
        for one, other in zip(batch, parts[index % 2][index // 2], strict=True):
            assert np.array_equal(one, other)


def test_sides_that_answer_differently_are_refused() -> None:
    answers = {name: {"roc_auc": 0.5, "average_precision": 0.5} for name in (OURS, PEER)}
    bench_metrics._refuse_different(answers)
    answers[PEER]["roc_auc"] += 1e-9
    with pytest.raises(NotEqual, match=r"roc_auc of phalanx and of scikit-learn are 1\.00e-09 apart"):
        bench_metrics._refuse_different(answers)
    answers[PEER] = {"roc_auc": float("nan"), "average_precision": 0.5}
    with pytest.raises(NotEqual):
        bench_metrics._refuse_different(answers)
