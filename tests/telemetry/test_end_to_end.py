"""From an emitter to an answer, as every run does it."""

from __future__ import annotations

from phalanx.events import Context, Emitter
from phalanx.foundation import Home
from phalanx.telemetry import Collector, Reader, Store


def test_what_is_emitted_can_be_asked_for_while_the_emitter_goes_on(home: Home) -> None:
    emitter = Emitter(home.spool_dir, Context("here", "research", "uid-1", 1, generation=2, rank=0, program="worker"))
    reader = Reader(home.store_dir)
    for step in range(1, 4):
        emitter.emit("steps", {"step": step, "loss": 1 / step})
        Collector(home.spool_dir, Store(home.store_dir), epoch=1).collect_once()
        assert reader.rows("SELECT max(step) AS newest, sum(loss) AS loss FROM steps") == [
            {"newest": step, "loss": sum(1 / earlier for earlier in range(1, step + 1))}
        ]
    assert reader.rows("SELECT DISTINCT host, namespace, job_uid, attempt, generation, rank FROM steps") == [
        {"host": "here", "namespace": "research", "job_uid": "uid-1", "attempt": 1, "generation": 2, "rank": 0}
    ]
    assert reader.damaged == ()
    emitter.close()
