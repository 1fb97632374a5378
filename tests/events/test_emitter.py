"""The emitter: rows survive the process, nothing that fails raises, what is dropped leaves a gap."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from phalanx.events import Context, Emitter, NullEmitter, SpoolRow, list_files, read_rows

CONTEXT = Context("here", "research", "uid", 3, generation=2, rank=1, program="worker")


def rows(spool: Path) -> list[SpoolRow]:
    return [row for file in list_files(spool) for row in read_rows(file.path)]


def seqs(spool: Path) -> list[int]:
    return [row.context["seq"] for row in rows(spool)]


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_every_row_says_whose_it_is_and_counts_from_one(tmp_path: Path) -> None:
    emitter = Emitter(tmp_path, CONTEXT)
    emitter.emit("steps", {"step": 1, "loss": 2})
    emitter.emit("steps", {"step": 2, "loss": None}, generation=5, rank=7)
    emitter.close()
    opened, first, second, closed = rows(tmp_path)
    assert [row.context["seq"] for row in rows(tmp_path)] == [1, 2, 3, 4]
    assert {row.context["source"] for row in rows(tmp_path)} == {emitter.source}
    about = {"host": "here", "namespace": "research", "job_uid": "uid", "attempt": 3, "generation": 2, "rank": 1}
    assert about.items() <= first.context.items()
    assert (second.context["generation"], second.context["rank"]) == (5, 7)
    assert opened.fields == {"event": "opened", "program": "worker", "pid": os.getpid(), "dropped": 0}
    assert closed.fields == {"event": "closed", "program": "worker", "pid": os.getpid(), "dropped": 0}


def test_two_emitters_of_a_process_are_two_sources(tmp_path: Path) -> None:
    emitters = [Emitter(tmp_path, CONTEXT) for _ in range(2)]
    assert len({emitter.source for emitter in emitters}) == len(list_files(tmp_path)) == 2
    for emitter in emitters:
        emitter.close()


@pytest.mark.parametrize(
    ("table", "row"),
    [("stepps", {}), ("steps", {"los": 1.0}), ("steps", {"loss": "1"}), ("steps", {"step": 1.5})],
)
def test_a_row_that_is_not_declared_is_a_mistake_of_the_program(tmp_path: Path, table: str, row: dict) -> None:
    emitter = Emitter(tmp_path, CONTEXT)
    with pytest.raises(ValueError, match=r"table|steps"):
        emitter.emit(table, row)
    emitter.close()
    assert seqs(tmp_path) == [1, 2], "and uses up no number"


def test_rows_are_private_to_their_owner(tmp_path: Path) -> None:
    emitter = Emitter(tmp_path / "spool", CONTEXT)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert list_files(tmp_path / "spool")[0].path.stat().st_mode & 0o777 == 0o600
    emitter.close()


def test_threads_share_an_emitter_without_mixing_rows(tmp_path: Path) -> None:
    emitter = Emitter(tmp_path, CONTEXT, file_bytes=10_000)

    def work(number: int) -> None:
        for step in range(200):
            emitter.emit("steps", {"step": step}, rank=number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    emitter.close()
    assert seqs(tmp_path) == list(range(1, 803))
    for number in range(4):
        mine = [row.fields["step"] for row in rows(tmp_path) if row.table == "steps" and row.context["rank"] == number]
        assert mine == list(range(200))


def test_a_new_file_is_begun_when_one_is_large(tmp_path: Path) -> None:
    emitter = Emitter(tmp_path, CONTEXT, file_bytes=1000)
    for step in range(50):
        emitter.emit("steps", {"step": step})
    files = list_files(tmp_path)
    assert [file.number for file in files] == list(range(1, len(files) + 1))
    assert len(files) > 5
    assert all(1000 <= file.path.stat().st_size < 1500 for file in files[:-1])
    assert [is_locked(file.path) for file in files] == [False] * (len(files) - 1) + [True]
    emitter.close()
    assert not is_locked(files[-1].path), "nobody will write to it any more"
    assert seqs(tmp_path) == list(range(1, 53))


def test_a_spool_at_its_bound_drops_rows_until_files_are_taken_away(tmp_path: Path) -> None:
    emitter = Emitter(tmp_path, CONTEXT, max_bytes=3000, file_bytes=1000)
    for step in range(100):
        emitter.emit("steps", {"step": step})
    assert emitter.dropped > 50
    assert sum(file.path.stat().st_size for file in list_files(tmp_path)) < 4500
    before = seqs(tmp_path)
    for file in list_files(tmp_path):
        file.path.unlink()
    emitter.emit("steps", {"step": 100})
    emitter.close()
    assert seqs(tmp_path) == [102, 103], "the gap is seen"
    assert before == list(range(1, 102 - emitter.dropped))
    assert rows(tmp_path)[-1].fields["dropped"] == emitter.dropped


def test_a_file_name_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    emitter = Emitter(tmp_path, CONTEXT, file_bytes=500)
    (tmp_path / f"{emitter.source}.000002.jsonl").write_text("")
    for step in range(6):
        emitter.emit("steps", {"step": step})
    emitter.close()
    assert [file.number for file in list_files(tmp_path)][:3] == [1, 2, 3]
    assert seqs(tmp_path) == list(range(1, 9))
    assert emitter.dropped == 0


def test_a_directory_that_cannot_be_made_drops_and_counts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    emitter = Emitter(tmp_path / "file" / "spool", CONTEXT)
    emitter.emit("steps", {"step": 1})
    assert emitter.dropped == 2
    emitter.close()


def test_after_close_nothing_is_written_and_closing_twice_is_nothing(tmp_path: Path) -> None:
    emitter = Emitter(tmp_path, CONTEXT)
    emitter.close()
    emitter.close()
    emitter.emit("steps", {"step": 1})
    assert [row.fields["event"] for row in rows(tmp_path)] == ["opened", "closed"]
    assert emitter.dropped == 1


def test_a_write_that_is_cut_short_spoils_one_row_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emitter = Emitter(tmp_path, CONTEXT)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[: len(data) // 2]))
        emitter.emit("steps", {"step": 1})
    with monkeypatch.context() as patch:

        def full(descriptor: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "full")

        patch.setattr(os, "write", full)
        emitter.emit("steps", {"step": 2})
    emitter.emit("steps", {"step": 3})
    emitter.close()
    assert emitter.dropped == 2
    assert seqs(tmp_path) == [1, 4, 5]


def test_rows_of_a_process_killed_with_9_are_all_there(tmp_path: Path) -> None:
    """The child says on a pipe after each emit; whatever it said is in the spool."""
    out, inp = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            emitter = Emitter(tmp_path, CONTEXT, file_bytes=5000)
            for step in itertools.count(1):
                emitter.emit("steps", {"step": step})
                os.write(inp, b".")
        finally:
            os._exit(1)
    os.close(inp)
    said = 0
    while said < 500:
        said += len(os.read(out, 100))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(out, 100_000):
        said += len(more)
    os.close(out)
    found = [row.fields["step"] for row in rows(tmp_path) if row.table == "steps"]
    assert found == list(range(1, len(found) + 1))
    assert said <= len(found) <= said + 1
    assert not any(is_locked(file.path) for file in list_files(tmp_path)), "the kernel let go of the lock"


def test_a_forked_child_does_not_keep_an_older_file_locked(tmp_path: Path) -> None:
    emitter = Emitter(tmp_path, CONTEXT, file_bytes=300)
    out, inp = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inp)
        os.read(out, 1)
        os._exit(0)
    first = list_files(tmp_path)[0].path
    assert is_locked(first)
    for step in range(5):
        emitter.emit("steps", {"step": step})
    assert not is_locked(first)
    emitter.close()
    os.close(inp)
    os.waitpid(child, 0)
    os.close(out)


@pytest.fixture
def small_disk(mount_disk: Callable[[str], Path]) -> Path:
    return mount_disk("64k")


@pytest.mark.root
def test_a_really_full_disk_drops_and_counts_and_recovers(small_disk: Path) -> None:
    emitter = Emitter(small_disk, CONTEXT)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    for step in range(1000):
        emitter.emit("steps", {"step": step})
    dropped = emitter.dropped
    assert dropped > 500
    ballast.unlink()
    emitter.emit("steps", {"step": 1000})
    emitter.close()
    assert emitter.dropped == dropped
    found = seqs(small_disk)
    assert found == sorted(set(found))
    assert found[-2:] == [1002, 1003]
    assert len(found) == 1003 - dropped
    assert rows(small_disk)[-1].fields["dropped"] == dropped


def test_the_null_emitter_takes_everything() -> None:
    sink = NullEmitter()
    sink.emit("anything", {})
    sink.close()
