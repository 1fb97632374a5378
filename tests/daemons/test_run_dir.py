"""The files of an attempt: whole, absent, or named as damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from phalanx.daemons.run_dir import RunDamaged, RunDir
from tests.cluster.made import allow, block, make_job, make_plan


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    files = RunDir.open(tmp_path / "run")
    assert (files.plan(), files.decision(1), files.is_evaluated()) == (None, None, False)
    files.write_decision(1, allow(1))
    (files.path / "plan.json").write_text(make_plan().model_dump_json(by_alias=True))
    files.write_job(make_job())
    (files.path / "evaluation.json").write_text("{}")
    again = RunDir.open(tmp_path / "run")
    assert (again.plan(), again.decision(1), again.is_evaluated()) == (make_plan(), allow(1), True)
    assert make_job() == type(make_job()).model_validate_json((files.path / "job.json").read_bytes())


def test_it_is_private(tmp_path: Path) -> None:
    files = RunDir.open(tmp_path / "runs" / "run")
    assert [path.stat().st_mode & 0o777 for path in (files.path, files.path / "logs")] == [0o700] * 2


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    files = RunDir.open(tmp_path)
    for name in (".plan.json.x1y2.tmp", "plan.json.tmp", ".hidden"):
        (files.path / name).touch()
    RunDir.open(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "logs", "plan.json.tmp"]


def test_only_refusals_are_forgotten(tmp_path: Path) -> None:
    files = RunDir.open(tmp_path)
    files.write_decision(1, allow(1))
    files.write_decision(2, block(2))
    files.forget_refusals()
    assert (files.decision(1), files.decision(2)) == (allow(1), None)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"mesh": 3}', b"[]"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    files = RunDir.open(tmp_path)
    (files.path / "plan.json").write_bytes(content)
    with pytest.raises(RunDamaged, match=r"plan\.json: cannot be read as a Plan"):
        files.plan()


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "decision-1.json").mkdir()
    with pytest.raises(RunDamaged, match=r"decision-1\.json"):
        RunDir.open(tmp_path).decision(1)
