"""The collecting thread: rows reach the store, whoever of several processes does it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from phalanx.daemons.collector import LEASE, CollectorThread
from phalanx.daemons.hold import open_state
from phalanx.events import Context, Emitter
from phalanx.foundation import Home
from phalanx.telemetry import Reader

OTHER = """
import sys
from phalanx.daemons.collector import CollectorThread
from phalanx.foundation import Home
thread = CollectorThread(Home.find(sys.argv[1]))
thread.start()
thread.flush(0.2)
print("ready", flush=True)
sys.stdin.read()
thread.stop()
"""


@pytest.fixture
def thread(home: Home) -> Iterator[CollectorThread]:
    thread = CollectorThread(home)
    yield thread
    thread.stop()


def emit(home: Home, count: int) -> None:
    emitter = Emitter(home.spool_dir, Context("here", "tests", "u1", 1, program="test"))
    for step in range(count):
        emitter.emit("validations", {"step": step, "loss": 1.0})
    emitter.close()


def stored(home: Home) -> int:
    return int(Reader(home.store_dir).rows("SELECT count(*) AS n FROM validations")[0]["n"])


def test_after_a_flush_everything_that_was_emitted_is_in_the_store(home: Home, thread: CollectorThread) -> None:
    thread.start()
    for round_ in range(1, 4):
        emit(home, 10)
        thread.flush()
        assert stored(home) == 10 * round_


def test_the_end_collects_what_is_left_and_gives_the_lease_back(home: Home) -> None:
    thread = CollectorThread(home)
    thread.start()
    emit(home, 5)
    thread.stop()
    assert stored(home) == 5
    assert open_state(home).holder(LEASE) is None


def test_a_flush_waits_for_the_collector_of_another_process(home: Home, thread: CollectorThread) -> None:
    emit(home, 1)
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    holder = open_state(home).holder(LEASE)
    assert holder is not None
    assert holder.holder.startswith(f"{other.pid}@")
    thread.start()
    emit(home, 20)
    thread.flush()
    assert stored(home) == 21
    other.kill()
    other.communicate()
    emit(home, 20)
    thread.flush()
    assert stored(home) == 41


def test_a_flush_with_nothing_spooled_returns(home: Home, thread: CollectorThread) -> None:
    thread.start()
    thread.flush()


def test_a_store_that_cannot_be_written_is_said_once_and_the_spool_keeps_the_rows(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.store_dir.write_text("in the way")
    thread = CollectorThread(home)
    thread.start()
    emit(home, 5)
    thread.flush(1.5)
    thread.stop()
    assert sum("events stay in the spool" in record.message for record in caplog.records) == 1
    home.store_dir.unlink()
    thread = CollectorThread(home)
    thread.start()
    thread.flush()
    thread.stop()
    assert stored(home) == 5
