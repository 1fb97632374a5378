"""Following the rows of one job beside others."""

from __future__ import annotations

from pathlib import Path

from phalanx.daemons.tail import JobTail
from phalanx.events import Context, Emitter, list_files


def emitter(spool: Path, job_uid: str = "u1", attempt: int = 1, rank: int = 0, file_bytes: int = 1 << 20) -> Emitter:
    context = Context("here", "tests", job_uid, attempt, rank=rank, program="test")
    return Emitter(spool, context, file_bytes=file_bytes)


def steps(tail: JobTail) -> list[int]:
    return [row.fields["step"] for row in tail.poll() if row.table == "validations"]


def emit(to: Emitter, *numbers: int) -> None:
    for number in numbers:
        to.emit("validations", {"step": number, "loss": 1.0})


def test_rows_come_once_and_in_order(tmp_path: Path) -> None:
    tail, source = JobTail(tmp_path, "u1", 1), emitter(tmp_path)
    assert steps(tail) == []
    emit(source, 1, 2)
    assert steps(tail) == [1, 2]
    assert steps(tail) == []
    emit(source, 3)
    assert steps(tail) == [3]


def test_other_jobs_and_attempts_are_left_out(tmp_path: Path) -> None:
    tail = JobTail(tmp_path, "u1", 2)
    emit(emitter(tmp_path, "u2", 2), 1)
    emit(emitter(tmp_path, "u1", 1), 2)
    emit(emitter(tmp_path, "u1", 2), 3)
    assert steps(tail) == [3]


def test_a_source_is_followed_from_file_to_file(tmp_path: Path) -> None:
    tail, source = JobTail(tmp_path, "u1", 1), emitter(tmp_path, file_bytes=400)
    emit(source, *range(10))
    assert len(list_files(tmp_path)) > 1
    assert steps(tail) == list(range(10))


def test_a_file_that_was_collected_meanwhile_is_no_error(tmp_path: Path) -> None:
    tail, source = JobTail(tmp_path, "u1", 1), emitter(tmp_path)
    emit(source, 1)
    assert steps(tail) == [1]
    for file in list_files(tmp_path):
        file.path.unlink()
    assert steps(tail) == []


def test_a_row_that_is_still_being_written_waits(tmp_path: Path) -> None:
    tail, source = JobTail(tmp_path, "u1", 1), emitter(tmp_path)
    emit(source, 1)
    (file,) = list_files(tmp_path)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-10])
    assert steps(tail) == []
    file.path.write_bytes(whole)
    assert steps(tail) == [1]
