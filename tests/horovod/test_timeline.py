"""The file that Horovod calls a timeline: complete at every moment, and what users look for is in it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.foundation import UsageError
from phalanx.horovod.timeline import Timeline
from tests.processes import wait_until

Event = dict[str, Any]


def read(path: Path) -> list[Event]:
    found: list[Event] = json.loads(path.read_text(encoding="utf-8"))
    return found


def lanes(events: list[Event]) -> dict[str, int]:
    """By name."""
    return {event["args"]["name"]: event["pid"] for event in events if event.get("name") == "process_name"}


def of_lane(events: list[Event], name: str) -> list[Event]:
    lane = lanes(events)[name]
    return [event for event in events if event["pid"] == lane and event["ph"] != "M"]


def bars(events: list[Event]) -> list[tuple[str, int]]:
    """Of one lane: what each bar says and how deep it lies; fails for one that is not well formed."""
    found, opened, last = [], [], -1
    for event in events:
        assert event["ts"] >= last
        last = event["ts"]
        if event["ph"] == "B":
            found.append((event["name"], len(opened)))
            opened.append(event["name"])
        elif event["ph"] == "E":
            opened.pop()
    assert opened == []
    return found


def one_allreduce(timeline: Timeline, name: str = "allreduce.grad") -> None:
    timeline.negotiate_start(name, "ALLREDUCE")
    timeline.negotiate_rank_ready(name, 1)
    timeline.negotiate_rank_ready(name, 0)
    timeline.negotiate_end(name)
    timeline.cycle()
    timeline.start(name, "ALLREDUCE")
    timeline.activity(name, "MEMCPY_IN_FUSION_BUFFER")
    timeline.activity(name, "GLOO_ALLREDUCE")
    timeline.end(name, 4096)


def test_an_operation_is_a_negotiation_with_a_tick_a_rank_and_then_its_parts(tmp_path):
    timeline = Timeline(tmp_path / "t.json", mark_cycles=True)
    one_allreduce(timeline)
    timeline.close()
    events = of_lane(read(timeline.path), "allreduce.grad")
    assert bars([event for event in events if event["ph"] != "X"]) == [
        ("NEGOTIATE_ALLREDUCE", 0),
        ("ALLREDUCE", 0),
        ("MEMCPY_IN_FUSION_BUFFER", 1),
        ("GLOO_ALLREDUCE", 1),
    ]
    assert [event["name"] for event in events if event["ph"] == "X"] == ["1", "0"]
    assert events[-1]["args"] == {"bytes": 4096}


def test_each_name_has_a_lane_of_its_own_in_the_order_they_came(tmp_path):
    timeline = Timeline(tmp_path / "t.json")
    for name in ("b", "a", "b"):
        one_allreduce(timeline, name)
    timeline.close()
    events = read(timeline.path)
    assert lanes(events) == {"Horovod": 0, "b": 1, "a": 2}
    assert Counter(event["name"] for event in events if event["ph"] == "M") == {
        "process_name": 3,
        "process_sort_index": 3,
    }
    assert all(event["tid"] == event["pid"] for event in events if event["ph"] in "BEX")


def test_it_says_when_it_began(tmp_path):
    before = time.time_ns() // 1000
    Timeline(tmp_path / "t.json").close()
    began = read(tmp_path / "t.json")[0]["args"]["start_time_since_epoch_in_micros"]
    assert before <= began <= time.time_ns() // 1000


@pytest.mark.parametrize("marked", [True, False])
def test_cycles_are_marked_if_they_are_asked_for(tmp_path, marked):
    timeline = Timeline(tmp_path / "t.json", mark_cycles=marked)
    one_allreduce(timeline)
    timeline.close()
    marks = [event for event in read(timeline.path) if event.get("name") == "CYCLE_START"]
    assert [(event["ph"], event["s"]) for event in marks] == [("i", "g")] * marked


def test_the_file_is_complete_at_every_moment_and_grows_while_the_job_runs(tmp_path):
    timeline = Timeline(tmp_path / "t.json", mark_cycles=True)
    assert [event["ph"] for event in read(timeline.path)] == ["M", "M"]
    for number in range(5):
        one_allreduce(timeline, f"grad.{number}")
        wait_until(lambda name=f"grad.{number}": name in lanes(read(timeline.path)), "the file does not grow")
    timeline.close()


def test_names_of_any_text_are_written_so_that_they_can_be_read(tmp_path):
    odd = ['"quoted"', "back\\slash", "new\nline", "ünïcode", "", "]"]
    timeline = Timeline(tmp_path / "t.json")
    for name in odd:
        one_allreduce(timeline, name)
    timeline.close()
    events = read(timeline.path)
    assert list(lanes(events))[1:] == odd


CALLS = ("negotiate_start", "negotiate_rank_ready", "negotiate_end", "start", "activity", "end")


@given(st.lists(st.tuples(st.sampled_from(CALLS), st.sampled_from("ab"))))
def test_in_whatever_order_it_is_told_the_lanes_are_well_formed(tmp_path_factory, calls):
    timeline = Timeline(tmp_path_factory.mktemp("timeline") / "t.json")
    for call, name in calls:
        more = {"negotiate_rank_ready": (0,), "negotiate_end": (), "end": ()}.get(call, ("ALLREDUCE",))
        getattr(timeline, call)(name, *more)
    timeline.close()
    events = read(timeline.path)
    for name in set(lanes(events)) - {"Horovod"}:
        assert max([depth for _, depth in bars(of_lane(events, name))]) <= 1


def test_many_threads_may_tell_it_at_once(tmp_path):
    timeline = Timeline(tmp_path / "t.json", mark_cycles=True)

    def tell(who: int) -> None:
        for number in range(200):
            one_allreduce(timeline, f"{who}.{number % 10}")

    threads = [threading.Thread(target=tell, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timeline.close()
    events = read(timeline.path)
    for who in range(4):
        for number in range(10):
            assert len(bars(of_lane(events, f"{who}.{number}"))) == 4 * 20


def test_what_is_open_at_the_end_is_ended_and_what_comes_later_is_nothing(tmp_path):
    timeline = Timeline(tmp_path / "t.json")
    timeline.negotiate_start("a", "ALLGATHER")
    timeline.close()
    content = timeline.path.read_text()
    assert bars(of_lane(read(timeline.path), "a")) == [("NEGOTIATE_ALLGATHER", 0)]
    one_allreduce(timeline, "late")
    timeline.close()
    assert timeline.path.read_text() == content


def test_a_second_timeline_in_the_same_file_begins_anew(tmp_path):
    for name in ("first", "second"):
        timeline = Timeline(tmp_path / "t.json")
        one_allreduce(timeline, name)
        timeline.close()
    assert "first" not in timeline.path.read_text()
    read(timeline.path)


@pytest.mark.parametrize("path", ["missing/t.json", "."])
def test_a_path_that_cannot_be_written_is_one_error(tmp_path, path):
    with pytest.raises(UsageError) as caught:
        Timeline(tmp_path / path)
    assert caught.value.where == str(tmp_path / path)
    assert "HOROVOD_TIMELINE" in caught.value.remedy


KILLED = """
import os, signal, sys, time
from pathlib import Path
from phalanx.horovod.timeline import Timeline
timeline = Timeline(Path(sys.argv[1]))
for number in range(100):
    timeline.start(f"grad.{number}", "ALLREDUCE")
    timeline.end(f"grad.{number}")
while "grad.99" not in timeline.path.read_text():
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""

FULL = """
import resource, sys
from pathlib import Path
from phalanx.horovod.timeline import Timeline
timeline = Timeline(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
for number in range(100):
    timeline.start(f"grad.{number}", "ALLREDUCE")
    timeline.end(f"grad.{number}")
timeline.close()
timeline.end("grad.0")
"""


def test_the_file_of_a_killed_process_is_complete(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "t.json")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert "grad.99" in lanes(read(tmp_path / "t.json"))


def test_a_full_disk_ends_the_timeline_with_a_message_and_leaves_a_complete_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "t.json")], capture_output=True, text=True, check=True
    )
    assert "t.json: the timeline ends here (File too large)" in done.stderr
    assert done.stderr.count("\n") == 1
    read(tmp_path / "t.json")
