"""The benchmark of the planner: its jobs are valid, and the smallest is planned and trained for real."""

from __future__ import annotations

import pytest

from benchmarks import bench_memory
from benchmarks.harness import Options
from phalanx.admission import gate_1


@pytest.mark.parametrize("name", bench_memory.JOBS)
def test_every_job_is_admitted(name: str) -> None:
    assert gate_1(bench_memory.job_of(name, 4)).verdict == "allow"


@pytest.mark.slow
def test_predicted_memory_stands_beside_what_a_worker_took() -> None:
    memory, time = bench_memory.run(Options(rounds=1, quick=True), lambda text: None)
    assert list(memory.values) == list(time.values) == ["predicted", "measured"]
    assert memory.ratio("predicted", "measured") == pytest.approx(1, abs=0.25)
    assert memory.notes["error"].endswith("%")
