"""A run as a timeline: the rules of the trace format, ranks on one clock, and that nothing is lost or overlaps."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from phalanx.collectives.counters import rows as rows_of
from phalanx.collectives.transports.transport import Record
from phalanx.daemons.collector import collect_if_idle
from phalanx.evaluation import NothingHappened, timeline_of
from phalanx.evaluation.timeline import clock_corrections
from phalanx.events import Context, Emitter
from phalanx.foundation import Home
from phalanx.telemetry import Reader

MS = 1_000_000
START = 1_700_000_000_000_000_000


def context(rank: int, host: str = "one") -> Context:
    return Context(host=host, namespace="tests", job_uid="uid", attempt=1, generation=1, rank=rank, program="worker")


def operation(sequence: int, late_ms: float = 0.0, clock_ms: float = 0.0) -> Record:
    """One of 2 ms every 10 ms; this rank waits `late_ms` for others, by a clock that is `clock_ms` fast."""
    began = START + round((10 * sequence + clock_ms) * MS)
    come = began - round(late_ms * MS)
    return Record(sequence, "allreduce", "grad", "sum", "float32", (256,), 1024, come, come, began, began + 2 * MS)


def checked(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """The complete events, after the rules of the format: required fields, types, and slices of a lane that nest."""
    trace = json.loads(json.dumps(trace, allow_nan=False))
    lanes = defaultdict(list)
    named = set()
    for event in trace["traceEvents"]:
        assert {"ph", "pid", "tid", "name", "args"} <= set(event)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            named.add((event["pid"], event["tid"]) if event["name"] == "thread_name" else event["pid"])
            continue
        assert event["ph"] == "X"
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        lanes[event["pid"], event["tid"]].append(event)
    for (pid, tid), events in lanes.items():
        assert pid in named
        assert (pid, tid) in named
        open_ends: list[float] = []
        for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
            while open_ends and open_ends[-1] <= event["ts"] + 1e-6:
                open_ends.pop()
            end = event["ts"] + event["dur"]
            assert not open_ends or end <= open_ends[-1] + 1e-6, f"{event} overlaps another"
            open_ends.append(end)
    return [event for events in lanes.values() for event in events]


def stored(home: Home, fill: dict[int, Sequence[Record]], hosts: Sequence[str] = ("one", "one")) -> Reader:
    for rank, records in fill.items():
        sink = Emitter(home.spool_dir, context(rank, hosts[rank]))
        for row in rows_of(records, 0, "world", 2):
            sink.emit("collectives", row)
        sink.close()
    collect_if_idle(home)
    return Reader(home.store_dir)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.find(tmp_path / "home")


def test_operations_of_two_ranks_stand_beside_each_other_with_the_wait_inside(home: Home) -> None:
    reader = stored(home, {0: [operation(1), operation(2)], 1: [operation(1, late_ms=3), operation(2)]})
    events = checked(timeline_of(reader.rows, "uid", 1))
    whole = [event for event in events if event["cat"] == "collective"]
    assert len(whole) == 4
    assert {event["name"] for event in whole} == {"allreduce sum grad"}
    (wait,) = (event for event in events if event["cat"] == "wait")
    assert wait["pid"] == 1
    assert wait["dur"] == pytest.approx(3000)
    first = {event["pid"]: event for event in whole if event["args"]["sequence"] == 1}
    assert first[1]["ts"] == pytest.approx(0)
    assert first[0]["ts"] == pytest.approx(3000)
    assert first[0]["ts"] + first[0]["dur"] == pytest.approx(first[1]["ts"] + first[1]["dur"])


def test_a_flood_is_shown_added_up_and_says_how_many(home: Home) -> None:
    flood = [operation(i) for i in range(1, 301)]
    events = checked(timeline_of(stored(home, {0: flood}).rows, "uid", 1))
    assert [event["name"] for event in events] == ["300 x allreduce sum"]


def test_ranks_of_hosts_whose_clocks_differ_are_shown_on_one(home: Home) -> None:
    fast = [operation(i, clock_ms=1234.5) for i in range(1, 10)]
    reader = stored(home, {0: [operation(i) for i in range(1, 10)], 1: fast}, hosts=("one", "two"))
    trace = timeline_of(reader.rows, "uid", 1)
    first, second = ([event["ts"] for event in checked(trace) if event["pid"] == rank] for rank in (0, 1))
    assert first == pytest.approx(second)
    assert trace["otherData"]["clock_corrections_ns"] == {"one": 0, "two": -1234.5 * MS}


def test_a_host_that_shares_no_operation_keeps_its_clock() -> None:
    row = {"generation": 1, "group_name": "world", "operations": 1, "finished_ns": 5, "ran_s": 0.0}
    assert clock_corrections([row | {"host": "a", "sequence": 1}, row | {"host": "b", "sequence": 2}]) == {
        "a": 0,
        "b": 0,
    }


def test_steps_end_when_their_row_was_written_and_hold_their_phases_in_order(home: Home) -> None:
    sink = Emitter(home.spool_dir, context(0))
    phases = {"data_s": 0.001, "forward_s": 0.002, "backward_s": 0.004, "communication_s": 0.0, "optimizer_s": 0.001}
    for step in (1, 2, 3):  # faster than they say they are: they would overlap
        sink.emit("steps", {"step": step, "loss": float("nan"), "step_s": 0.01, **phases})
    sink.emit("checkpoints", {"event": "written", "step": 3, "seconds": 0.5, "bytes": 10, "path": "here"})
    sink.emit("validations", {"step": 3, "split": "held-out", "loss": 1.0, "tokens": 5, "seconds": 0.25})
    sink.close()
    collect_if_idle(home)
    trace = timeline_of(Reader(home.store_dir).rows, "uid", 1)
    for event in trace["traceEvents"]:
        event["args"].pop("loss", None)
    events = checked(trace)
    assert [event["name"] for event in events if event["cat"] == "step"] == ["step 1", "step 2", "step 3"]
    first = [event for event in events if event["cat"] == "phase"][:4]
    assert [event["name"] for event in first] == ["data", "forward", "backward", "optimizer"]
    assert {event["name"] for event in events if event["cat"] == "other"} == {
        "checkpoint written",
        "validation: held-out",
    }


def test_a_run_without_rows_says_so(home: Home) -> None:
    reader = stored(home, {0: [operation(1)]})
    with pytest.raises(NothingHappened, match="no steps and no operations"):
        timeline_of(reader.rows, "another", 1)
    with pytest.raises(NothingHappened):
        timeline_of(reader.rows, "uid", 2)
