import os

import pytest

from benchmarks import bench_events
from benchmarks.harness import Options
from phalanx.events import Context, Emitter
from phalanx.foundation import Home


def test_what_is_emitted_while_the_collector_works_is_in_the_store_afterwards(home: Home) -> None:
    job = bench_events.job_of("gpt-tiny", 3)
    with bench_events.collecting(home):
        emitter = Emitter(home.spool_dir, Context(os.uname().nodename, "benchmarks", job.metadata.uid, 1))
        for step in range(250):
            emitter.emit("steps", {"step": step + 1})
        emitter.close()
    assert bench_events.rows_in_store(home, job) == 250
    assert bench_events.rows_in_store(home, bench_events.job_of("gpt-tiny", 3)) == 0


@pytest.mark.slow
def test_training_with_events_leaves_every_row_in_the_store() -> None:
    [result] = bench_events.run(Options(rounds=1, quick=True), lambda text: None)
    assert list(result.values) == ["with events", "without"]
    assert result.notes["rows that arrived"] == "180 of 180"
