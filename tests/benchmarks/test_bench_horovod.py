"""The benchmark of Horovod scripts: every side trains, the losses are the same, and a Horovod that is missing is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import bench_horovod
from benchmarks.bench_horovod import ALONE, DDP, OURS, REAL, HorovodMissing
from benchmarks.harness import Comparison, NotEqual, Options
from benchmarks.horovod_models import BATCHES, CLASSES, LENGTH, VOCABULARY, Orders, build, draw, train


def comparison(**values: float) -> Comparison:
    return Comparison("horovod gpt", "steps/s", {side: [value] for side, value in values.items()}, {})


@pytest.mark.slow
def test_every_side_is_measured_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(bench_horovod.PYTHON, raising=False)
    conv, gpt, *sums = bench_horovod.run(Options(rounds=1, quick=True), lambda text: None)
    for trained in (conv, gpt):
        assert list(trained.values) == [OURS, DDP, ALONE]
        assert str(trained.notes["left out"]).startswith(REAL)
        assert OURS in str(trained.notes["averages' part of a step"])
    assert [each.name for each in sums] == list(bench_horovod.OPERATIONS.values())


def test_what_a_step_spends_on_averages_is_what_it_takes_longer_than_without() -> None:
    said = bench_horovod.verdict(comparison(**{OURS: 9.0, REAL: 6.0, DDP: 8.0, ALONE: 10.0}))
    assert said["averages' part of a step"] == f"{OURS} 10%; {REAL} 40%; {DDP} 20%"
    assert said["target 1.3 x"] == f"{REAL} reached; {DDP} NOT REACHED"


def test_a_side_that_learns_something_else_is_not_measured() -> None:
    same = {OURS: [3.0, 2.0], REAL: [3.0, 2.0005], ALONE: [3.0, 9.0]}
    assert bench_horovod.refuse_different_losses(same) == pytest.approx(0.0005)
    with pytest.raises(NotEqual, match=DDP):
        bench_horovod.refuse_different_losses({**same, DDP: [3.0, 2.01]})
    with pytest.raises(NotEqual, match=DDP):
        bench_horovod.refuse_different_losses({**same, DDP: [3.0, float("nan")]})


def test_a_horovod_that_is_not_there_is_told_with_the_reason() -> None:
    with pytest.raises(HorovodMissing, match=f"set {bench_horovod.PYTHON}"):
        bench_horovod.real(None)
    with pytest.raises(HorovodMissing, match=r"cannot import it: .*horovod"):
        bench_horovod.real(sys.executable)
    with pytest.raises(HorovodMissing, match="/nowhere/python"):
        bench_horovod.real("/nowhere/python")
    with pytest.raises(HorovodMissing, match="cannot import it: it ended with 1"):
        bench_horovod.real("/bin/false")


@pytest.mark.parametrize(("name", "classes"), [("conv", CLASSES), ("gpt", VOCABULARY)])
def test_both_nets_learn_and_ranks_read_different_batches(name: str, classes: int, tmp_path: Path) -> None:
    batches, others = draw(name, 2, 0), draw(name, 2, 1)
    assert len(batches) == BATCHES
    assert not torch.equal(batches[0][0], others[0][0])
    model = build(name)
    scores = model(batches[0][0])
    assert scores.shape == (len(batches[0][1]), classes)
    assert len(scores) == (2 * LENGTH if name == "gpt" else 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trained = train(model, optimizer, Orders(name, 2, BATCHES, BATCHES, False, str(tmp_path)), 0)
    assert sum(trained.losses[BATCHES:]) < sum(trained.losses[:BATCHES])
