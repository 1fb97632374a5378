"""The benchmark of asynchronous sums beside a computing Python."""

from __future__ import annotations

import pytest

from benchmarks import bench_progress
from benchmarks.harness import Options


@pytest.mark.slow
def test_both_sides_are_measured_while_python_computes() -> None:
    (comparison,) = bench_progress.run(Options(rounds=1, quick=True), lambda text: None)
    assert all(0 < value[0] < 1000 for value in comparison.values.values())
