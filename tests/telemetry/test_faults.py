"""Whatever is killed, paused or full: no row is lost unsaid, none is doubled, the store stays whole. Real processes."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from phalanx.foundation import DiskFull
from phalanx.telemetry import Collector, Store, StoreFenced
from tests.telemetry.spools import ask, assert_tidy, collect, emit_steps, emitter, files, line, losses, spool, steps

CALLS = ("open", "write", "fsync", "mkdir", "link", "replace", "unlink")


def at_call(number: int, act: Callable[[], None]) -> None:
    """Let this process `act` just before its n-th call of those that change files."""
    left = [number]

    def trap(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                act()
            return real(*arguments, **options)

        setattr(os, name, call)

    for name in CALLS:
        trap(name)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], None]) -> int:
    """Do `work` in a forked process; returns its wait status. It exits with 3 when it was refused."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except StoreFenced:
            status = 3
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def a_home_with_much_to_do(home: Path) -> list[int]:
    """Seven parts of steps, so that the next round merges; two spools, one with a gap; returns all steps."""
    for number in range(7):
        spool(home, line(number + 1, step=number), number=number + 1)
        collect(home)
    spool(home, line(8, step=7), line(10, step=8), number=8)
    spool(
        home,
        *(line(seq, "1800000000000000000-78-other", step=100 + seq) for seq in range(1, 5)),
        source="1800000000000000000-78-other",
    )
    return [*range(9), 101, 102, 103, 104]


@pytest.mark.parametrize(("keep_parts_s", "stride"), [(60.0, 1), (-1.0, 3)], ids=["parts kept", "deleted at once"])
@pytest.mark.usefixtures("no_platter")
def test_kill_9_of_the_collector_before_every_change_to_the_disk_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_parts_s: float, stride: int
) -> None:
    monkeypatch.setattr("phalanx.telemetry.collector.KEEP_PARTS_S", keep_parts_s)
    template = tmp_path / "template"
    wanted = a_home_with_much_to_do(template)
    killed = 0
    for number in itertools.count(1, stride):
        home = tmp_path / "home"
        shutil.copytree(template, home)

        def work(home: Path = home, number: int = number) -> None:
            at_call(number, kill_self)
            collect(home, epoch=2)

        status = in_child(work)
        before = steps(home)
        assert before in ([*range(7)], wanted), f"killed at call {number}"
        collect(home, epoch=3)
        assert steps(home) == wanted, f"killed at call {number}"
        assert losses(home) == [(9, 9, 1, "gap")], f"killed at call {number}"
        assert_tidy(home)
        assert files(home / "spool") == []
        shutil.rmtree(home)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            break
        killed += 1
    assert killed > 25 // stride, "the faults were injected"


@pytest.mark.usefixtures("no_platter")
def test_a_disk_that_fails_at_any_call_gives_one_error_and_keeps_what_was_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "template"
    wanted = a_home_with_much_to_do(template)
    failed = 0
    for number in itertools.count(1):
        home = tmp_path / "home"
        shutil.copytree(template, home)
        left = [number]

        def failing(name: str, left: list[int] = left) -> Callable[..., object]:
            real = getattr(os, name)

            def call(*arguments: object, **options: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("write", "fsync", "mkdir", "link", "replace"):
                patch.setattr(os, name, failing(name))
            try:
                collect(home, epoch=2)
            except DiskFull:
                failed += 1
        assert steps(home) in ([*range(7)], wanted)
        assert not [name for name in files(home) if name.endswith(".tmp")]
        collect(home, epoch=2)
        assert steps(home) == wanted
        assert losses(home) == [(9, 9, 1, "gap")]
        assert_tidy(home)
        shutil.rmtree(home)
        if left[0] > 0:
            break
    assert failed > 12


@pytest.mark.usefixtures("no_platter")
def test_a_collector_stopped_at_any_call_is_refused_when_it_wakes(tmp_path: Path) -> None:
    """SIGSTOP in the middle of its round; another takes over and finishes; SIGCONT."""
    template = tmp_path / "template"
    wanted = a_home_with_much_to_do(template)
    refused = 0
    for number in itertools.count(1):
        home = tmp_path / "home"
        shutil.copytree(template, home)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                at_call(number, lambda: os.kill(os.getpid(), signal.SIGSTOP))
                collect(home, epoch=2)
                status = 0
            except StoreFenced:
                status = 3
            finally:
                os._exit(status)
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            shutil.rmtree(home)
            break
        collect(home, epoch=3)
        assert steps(home) == wanted, f"stopped at call {number}"
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, 0)
        outcome = os.waitstatus_to_exitcode(status)
        assert outcome in (0, 3, 1), f"stopped at call {number}"
        refused += outcome == 3
        collect(home, epoch=3)
        assert steps(home) == wanted, f"stopped at call {number}"
        assert losses(home) == [(9, 9, 1, "gap")]
        collect(home, epoch=4)
        assert_tidy(home)
        shutil.rmtree(home)
    assert number > 25
    assert refused > 10


EMITTER = """
import os, sys
from pathlib import Path
from phalanx.events import Context, Emitter
emitter = Emitter(Path(sys.argv[1]), Context("here", "n", "uid", 1, rank=int(sys.argv[2])), file_bytes=20_000)
for step in range(1_000_000):
    emitter.emit("steps", {"step": step})
    os.write(1, b".")
"""


@pytest.mark.usefixtures("no_platter")
def test_rows_of_killed_emitters_are_collected_while_they_write_and_after(tmp_path: Path) -> None:
    """Three processes emit, a collector runs beside them, all emitters are killed by SIGKILL at once."""
    writers = [
        subprocess.Popen([sys.executable, "-c", EMITTER, str(tmp_path / "spool"), str(rank)], stdout=subprocess.PIPE)
        for rank in range(3)
    ]
    said = [0, 0, 0]
    while min(said) < 300:
        for rank, writer in enumerate(writers):
            assert writer.stdout is not None
            said[rank] += len(os.read(writer.stdout.fileno(), 200))
        collect(tmp_path)
    for writer in writers:
        writer.kill()
    for rank, writer in enumerate(writers):
        assert writer.stdout is not None
        said[rank] += len(writer.stdout.read())
        writer.wait()
        writer.stdout.close()
    collect(tmp_path)
    for rank in range(3):
        found = [step for (step,) in ask(tmp_path, f"SELECT step FROM steps WHERE rank = {rank} ORDER BY seq")]
        assert found == list(range(len(found)))
        assert said[rank] <= len(found) <= said[rank] + 1, "all rows whose emit returned, and none twice"
    assert losses(tmp_path) == []
    # One that was killed between making its next file and its first row leaves an empty one, which may yet be locked.
    left = [tmp_path / "spool" / name for name in files(tmp_path / "spool")]
    assert [path.name for path in left if path.stat().st_size] == []
    assert len(left) <= 3
    assert_tidy(tmp_path)


COLLECTOR = """
import sys
from pathlib import Path
from phalanx.telemetry import Collector, Store, StoreFenced
home, epoch = Path(sys.argv[1]), int(sys.argv[2])
collector = Collector(home / "spool", Store(home / "store"), epoch, keep_spool_s=0)
while not (home / "stop").exists():
    try:
        collector.collect_once()
    except StoreFenced:
        sys.exit(3)
    print(".", flush=True)
"""


def test_of_two_collectors_at_once_the_older_is_refused(tmp_path: Path) -> None:
    sink = emitter(tmp_path, file_bytes=3000)

    def start(epoch: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", COLLECTOR, str(tmp_path), str(epoch)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    older = start(1)
    emit_steps(sink, range(200))
    newer = start(2)
    emit_steps(sink, range(200, 400))
    assert older.wait(60) == 3
    sink.close()
    (tmp_path / "stop").touch()
    assert newer.wait(60) == 0
    for process in (older, newer):
        assert process.stdout is not None
        process.stdout.close()
    collect(tmp_path, epoch=2)
    assert steps(tmp_path) == list(range(400))
    assert losses(tmp_path) == []
    assert_tidy(tmp_path)


@pytest.fixture
def small_disk(mount_disk: Callable[[str], Path]) -> Path:
    return mount_disk("256k")


@pytest.mark.root
def test_rows_that_a_full_disk_took_are_told_as_lost(small_disk: Path) -> None:
    sink = emitter(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 200_000)
    emit_steps(sink, range(1000))
    assert sink.dropped > 500
    ballast.unlink()
    emit_steps(sink, [1000])
    sink.close()
    collect(small_disk)
    found = steps(small_disk)
    assert found == sorted(set(found))
    assert found[-1] == 1000
    assert ask(small_disk, "SELECT sum(rows) FROM losses") == [(sink.dropped,)] == [(1001 - len(found),)]
    assert ask(small_disk, "SELECT max(dropped) FROM sources") == [(sink.dropped,)]


@pytest.mark.root
def test_a_full_disk_stops_the_collector_and_no_row_is_lost(tmp_path: Path, small_disk: Path) -> None:
    sink = emitter(tmp_path)
    store = Store(small_disk / "store")
    collector = Collector(tmp_path / "spool", store, 1, keep_spool_s=0)
    emit_steps(sink, range(10))
    collector.collect_once()
    before, names = store.read(), files(small_disk)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while os.write(file.fileno(), b"x" * 1024):
            pass
    emit_steps(sink, range(10, 3000))
    sink.close()
    for _ in range(2):
        with pytest.raises(DiskFull, match="the disk is full") as caught:
            collector.collect_once()
        assert str(small_disk) in caught.value.where
        assert store.read() == before
        assert files(small_disk) == sorted([*names, "ballast"]), "nothing half-written is left"
    ballast.unlink()
    collector.collect_once()
    (tmp_path / "store").symlink_to(small_disk / "store")
    assert steps(tmp_path) == list(range(3000))
    assert losses(tmp_path) == []
    assert files(tmp_path / "spool") == []
