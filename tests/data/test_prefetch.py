"""Batches prepared by another process: the same ones, and whatever happens to either process, nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from phalanx.data import DatasetDamaged, LoaderSpec
from phalanx.data.batches import Feed
from phalanx.data.prefetch import PrefetchedFeed, PrefetchEnded
from phalanx.data.stream import StreamLoader
from phalanx.host.processes import identity_of, stat_of, wait_until_dead
from tests.data.streams import make


def children() -> dict[int, str]:
    """Processes that this one has started, by what they run."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    ).stdout
    rows = [line.split(maxsplit=1) for line in listed.splitlines()]
    return {int(pid): argv for pid, argv in rows if "phalanx.data.prefetch" in argv}


def buffers() -> int:
    """Shared buffers that this process has mapped."""
    return Path("/proc/self/maps").read_text().count("phalanx-prefetch")


def stream(directory: Path, objective: str = "masked-lm") -> StreamLoader:
    data, _ = make(directory, np.random.default_rng(0).integers(1, 40, 150).tolist())
    return StreamLoader([data], [1.0], LoaderSpec(objective, 32, 8))


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[PrefetchedFeed]:
    made = stream(tmp_path / "data").feed(None, 0, 2, 3, ahead=3)
    assert isinstance(made, PrefetchedFeed)
    yield made
    made.close()


def copied(feed: Feed) -> tuple:
    """A portion whose arrays stay as they are."""
    portion = feed.take()
    batches = [
        ({name: (array.dtype, array.tolist()) for name, array in batch.arrays.items()}, *list(vars(batch).values())[1:])
        for batch in portion.batches
    ]
    return batches, portion.predicted, portion.cursor


@pytest.mark.parametrize("objective", ["causal-lm", "masked-lm"])
def test_they_are_those_that_this_process_would_make(tmp_path: Path, objective: str) -> None:
    data = stream(tmp_path, objective)
    cursor = data.feed(None, 0, 1, 8).take().cursor
    here = [copied(each) for each in [data.feed(cursor, 1, 3, 2)] for _ in range(12)]
    there = data.feed(cursor, 1, 3, 2, ahead=4)
    try:
        assert [copied(there) for _ in range(12)] == here
    finally:
        there.close()


def test_a_portion_stays_as_it_is_while_the_next_ones_are_made(feed: PrefetchedFeed) -> None:
    portion = feed.take()
    before = [array.tolist() for batch in portion.batches for array in batch.arrays.values()]
    (child,) = children()
    until_it_waits(child)
    assert [array.tolist() for batch in portion.batches for array in batch.arrays.values()] == before


def until_it_waits(child: int) -> None:
    """All its slots are full: it sleeps until its parent frees one."""
    while (fields := stat_of(child)) is not None and fields[0] != "S":
        time.sleep(0.01)


def test_a_clean_end_leaves_no_process_and_no_memory(tmp_path: Path) -> None:
    data = stream(tmp_path)
    made = data.feed(None, 0, 1, 8, ahead=2)
    made.take()
    assert (len(children()), buffers()) == (1, 1)
    made.close()
    del made
    assert (children(), buffers()) == ({}, 0)
    assert not [name for name in os.listdir("/dev/shm") if "phalanx" in name]


def test_it_ignores_what_the_terminal_sends_to_all(feed: PrefetchedFeed) -> None:
    feed.take()
    (child,) = children()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child, number)
    for _ in range(6):
        feed.take()


def test_a_killed_child_is_told_of(feed: PrefetchedFeed) -> None:
    feed.take()
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    with pytest.raises(PrefetchEnded, match="SIGKILL"):
        [feed.take() for _ in range(9)]


PARENT = """
import os, signal, sys
from pathlib import Path
from phalanx.data import Dataset, LoaderSpec
from phalanx.data.stream import StreamLoader
data = StreamLoader([Dataset.open(Path(sys.argv[1]))], [1.0], LoaderSpec("causal-lm", 32, 8))
feed = data.feed(None, 0, 1, 8, ahead=2)
feed.take()
print(feed._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    stream(tmp_path)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    identity = identity_of(child)
    assert parent.wait() == -signal.SIGKILL
    parent.stdout.close()
    assert identity is None or wait_until_dead(identity, 20)


def test_what_is_wrong_with_a_file_is_told_here(tmp_path: Path) -> None:
    data = stream(tmp_path)
    file = tmp_path / "train-00003.tokens"
    file.write_bytes(np.full(file.stat().st_size // 2, 65_000, "<u2").tobytes())
    made = data.feed(None, 0, 1, 8, ahead=2)
    try:
        with pytest.raises(DatasetDamaged, match="another tokenizer") as caught:
            [made.take() for _ in range(100)]
        assert caught.value.where == str(file)
    finally:
        made.close()


def test_a_file_that_is_cut_while_it_is_read_is_told_of(tmp_path: Path) -> None:
    data, _ = make(tmp_path, [39] * 150, shard_bytes=1 << 20)
    made = StreamLoader([data], [1.0], LoaderSpec("causal-lm", 32, 8)).feed(None, 0, 1, 8, ahead=2)
    try:
        made.take()
        os.truncate(tmp_path / "train-00000.tokens", 0)
        with pytest.raises(DatasetDamaged, match="cut while it was read"):
            [made.take() for _ in range(100)]
    finally:
        made.close()


def test_it_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = stream(tmp_path).feed(None, 0, 1, 8, ahead=2)
    made.take()
    made.close()
    assert capfd.readouterr() == ("", "")


def test_it_loads_no_torch(feed: PrefetchedFeed) -> None:
    feed.take()
    (child,) = children()
    assert "libtorch" not in Path(f"/proc/{child}/maps").read_text()
