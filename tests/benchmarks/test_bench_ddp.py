"""The benchmark of DistributedDataParallel: every side trains, and the losses are the same."""

from __future__ import annotations

import pytest

from benchmarks import bench_ddp
from benchmarks.harness import NotEqual, Options


@pytest.mark.slow
def test_every_side_is_measured_in_each_round() -> None:
    (comparison,) = bench_ddp.run(Options(rounds=1, quick=True), lambda text: None)
    assert list(comparison.values) == ["phalanx", "gloo", "one process", "no sum at all"]
    assert comparison.settings["one process"] == {"processes": 1, "threads": 2}


def test_a_side_that_learns_something_else_is_not_measured() -> None:
    bench_ddp._refuse_different_losses({"phalanx": 1.0, "gloo": 1.0005, "one process": 1.0, "no sum at all": 3.0})
    with pytest.raises(NotEqual, match="gloo"):
        bench_ddp._refuse_different_losses({"phalanx": 1.0, "gloo": 1.01, "one process": 1.0})
