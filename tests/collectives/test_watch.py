"""What the watch says and writes down of real ranks that are stopped, asleep, in an endless loop, gone or in disagreement."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from phalanx.collectives import watch
from phalanx.collectives.transports.shm import SharedMemory
from phalanx.events import TABLES

PRELUDE = """
import logging, os, sys, time
import torch, torch.distributed as dist
from phalanx.collectives import watch, CollectiveError
from phalanx.collectives.transports.shm import SharedMemory
logging.basicConfig(format="%(created).3f %(message)s")
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
transport = SharedMemory(dist.FileStore(os.environ["STORE"], size), rank, size)
watch.watch(transport)
x = torch.ones(1024)
transport.broadcast(x, 0, name="parameters")
print(os.getpid(), flush=True)

def load_batch():
    LATE

if rank == 1:
    load_batch()
print(time.time(), flush=True)
try:
    transport.allreduce(x, name="grad.a")
except CollectiveError as error:
    print(error, flush=True)
watch.unwatch(transport)
transport.close()
"""
Start = Callable[..., list[subprocess.Popen[str]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(size, late) -> ranks, of which number 1 does `late` between its broadcast and its allreduce."""
    started: list[subprocess.Popen[str]] = []

    def run(size: int, late: str) -> list[subprocess.Popen[str]]:
        script = tmp_path / "train.py"
        script.write_text(PRELUDE.replace("LATE", textwrap.indent(late, "    ").strip()))
        for rank in range(size):
            environment = {"RANK": str(rank), "WORLD_SIZE": str(size), "STORE": str(tmp_path / "store")}
            environment |= {"PHALANX_FLIGHT_RECORDER": str(tmp_path / "dumps" / "rank-"), "OMP_NUM_THREADS": "1"}
            started.append(
                subprocess.Popen(
                    [sys.executable, str(script)],
                    env=os.environ | environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started

    yield run
    for process in started:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str], words: str) -> tuple[float, str]:
    """The next line of its log with `words`, and when it was said."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            when, _, text = line.partition(" ")
            return float(when), text.strip()
    raise AssertionError(f"it ended without saying {words!r}")


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def analysed(directory: Path) -> str:
    command = [sys.executable, "-m", "torch.distributed.flight_recorder.fr_trace", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_stopped_rank_is_named_after_three_seconds_and_again_after_six(start: Start, tmp_path: Path) -> None:
    first, second = start(2, "time.sleep(1.5)\nos.kill(os.getpid(), 19)")
    said(first)
    pid = said(second)
    began = float(said(first))
    when, text = heard(first, "waiting")
    assert when - began > 2.9
    pattern = (
        r"world: allreduce sum float32\[1024\] 'grad.a' \(operation 2\) of rank 0: waiting \d+\.\d+ s for rank 1 "
        rf"\(pid {pid}, stopped by a signal\), which finished operation 1 \(broadcast float32\[1024\] root 0 'parameters'\) "
        r"and stood at .*/train.py:\d+ in <module> > .*/train.py:\d+ in load_batch \d+\.\d+ m?s ago"
    )
    assert re.fullmatch(pattern, text), text
    again, _ = heard(first, "waiting")
    assert again - began > 5.9
    report = analysed(tmp_path / "dumps")  # the stopped rank's file was written by the one that waits
    assert "Not all ranks joining collective, sequence number: 2" in report
    assert "missing ranks: {1}" in report
    os.kill(int(pid), signal.SIGCONT)
    assert first.wait(timeout=30) == 0


def test_a_rank_that_is_late_learns_who_waits_and_the_others_where_it_stands(start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first, second = start(2, f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.2)")
    _, text = heard(second, "for this rank (1)")
    assert "world: rank 0 has waited " in text
    assert "train.py:" in text
    _, text = heard(first, "waiting")
    assert "), which finished operation 1" in text
    assert "in load_batch" in text
    go.touch()
    assert [process.wait(timeout=30) for process in (first, second)] == [0, 0]
    assert "missing ranks: {1}" in analysed(tmp_path / "dumps")


def test_an_endless_loop_is_seen_in_python_and_in_c_that_holds_the_interpreter(start: Start) -> None:
    first, second = start(2, "for _ in range(4):\n    time.sleep(0.5)\nsum(range(10**10))")
    _, text = heard(first, "waiting")
    assert "running), which finished operation 1" in text
    _, text = heard(first, "waiting")
    assert re.search(r"in load_batch \d+\.\d+ s ago; its Python has not run since$", text), text
    assert second.poll() is None


def test_a_mismatch_is_dumped_by_every_rank_before_it_raises(start: Start, tmp_path: Path) -> None:
    processes = start(2, "x.resize_(512)")
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert all("different operations" in output for output in outputs), outputs
    report = analysed(tmp_path / "dumps")
    assert "Collective sequence number: 2 has errors" in report
    assert "SIZE_OR_SYNTAX_MISMATCH" in report


def test_a_rank_that_died_is_stood_in_for(start: Start, tmp_path: Path) -> None:
    first, _ = start(2, "os._exit(1)")
    assert "rank 1" in first.communicate(timeout=60)[0]
    assert "missing ranks: {1}" in analysed(tmp_path / "dumps")


def test_a_rank_that_ends_of_an_error_tells_the_others_which(start: Start) -> None:
    first, second = start(2, "raise ValueError('the batch is empty')")
    assert "rank 1: ValueError: the batch is empty" in first.communicate(timeout=60)[0]
    assert second.wait(timeout=60) == 1


# In one process, alone in a group.


class Kept:
    """Rows as they are emitted."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def emit(self, table: str, row: dict[str, object], **context: int) -> None:
        assert table == "collectives"
        assert list(row) == [column.name for column in TABLES[table].columns]
        self.rows.append(row)

    def close(self) -> None:
        pass


@pytest.fixture
def alone() -> Iterator[SharedMemory]:
    transport = SharedMemory(dist.HashStore(), 0, 1)
    yield transport
    transport.close()


def test_every_operation_becomes_a_row_once_and_the_last_ones_when_the_watch_ends(alone: SharedMemory) -> None:
    one, kept = watch.Watch(period_s=0.05), Kept()
    one.add(alone, "world")
    one.report_to(sink=kept)
    for number in range(30):
        alone.allreduce(torch.ones(64), name=f"t{number}")
        time.sleep(0.01)
    one.remove(alone)
    assert [row["sequence"] for row in kept.rows] == list(range(1, 31))
    assert {row["bytes"] for row in kept.rows} == {256}
    assert {row["lost"] for row in kept.rows} == {0}


def test_a_flood_becomes_few_rows_and_says_how_much_was_forgotten(alone: SharedMemory) -> None:
    one, kept = watch.Watch(period_s=600), Kept()
    one.add(alone, "world")
    one.report_to(sink=kept)
    for _ in range(10_000):
        alone.allreduce(torch.ones(1))
    one.remove(alone)
    assert len(kept.rows) == 1
    assert kept.rows[0]["operations"] + kept.rows[0]["lost"] == 10_000  # type: ignore[operator]


def test_groups_of_one_name_are_told_apart(alone: SharedMemory) -> None:
    one, kept = watch.Watch(period_s=600), Kept()
    other = SharedMemory(dist.HashStore(), 0, 1)
    one.report_to(sink=kept)
    one.add(alone, "pair")
    one.add(other, "pair")
    other.barrier()
    one.remove(alone)
    one.remove(other)
    other.close()
    assert [row["group_name"] for row in kept.rows] == ["pair#2"]


def test_there_is_one_thread_while_something_is_watched_and_none_in_a_forked_child(alone: SharedMemory) -> None:
    def watching() -> int:
        return sum(thread.name == "phalanx-watch" for thread in threading.enumerate())

    before = watching()
    other = SharedMemory(dist.HashStore(), 0, 1)
    watch.watch(alone)
    watch.watch(other)
    assert watching() == before + 1
    child = os.fork()
    if child == 0:
        watch.unwatch(alone)  # neither hangs nor touches the parent's
        os._exit(watching())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    watch.unwatch(alone)
    watch.unwatch(other)
    other.close()
    deadline = time.monotonic() + 20
    while watching() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watching() == before


def test_a_dump_is_written_when_asked_for_where_it_is_told_or_nowhere(
    alone: SharedMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PHALANX_FLIGHT_RECORDER", "TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"):
        monkeypatch.delenv(name, raising=False)
    one = watch.Watch(period_s=600)
    assert one.dump(str(tmp_path / "x")) is None  # nothing is watched
    one.add(alone)
    assert one.dump() is None
    assert one.dump(str(tmp_path / "new" / "rank-")) == str(tmp_path / "new" / "rank-0")
    monkeypatch.setenv("TORCH_FR_DUMP_TEMP_FILE", str(tmp_path / "torchs-"))
    assert one.dump() == str(tmp_path / "torchs-0")
    one.report_to(prefix=str(tmp_path / "told-"))
    assert one.dump() == str(tmp_path / "told-0")
    one.remove(alone)
