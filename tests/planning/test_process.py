"""The planner as the process that the controller starts: its file, its rows, its last words, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.events import list_files, read_rows
from phalanx.job import Job, Plan
from phalanx.planning import Orders, Rehearsal, RehearsalFailed
from tests.training.values import make_job
from tests.training.workers import Run, write_text


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "files")


def small(source: Path, **training: object) -> Job:
    """Two workers, six steps."""
    job = make_job(source, **{"global_batch": 8, "steps": 6, **training})
    return Job.model_validate(job.model_dump() | {"spec": job.spec.model_dump() | {"workers": {"count": 2}}})


def run_planner(run_dir: Path, job: Job) -> subprocess.CompletedProcess[str]:
    run_dir.mkdir()
    (run_dir / "job.json").write_text(job.model_dump_json(by_alias=True))
    argv = [sys.executable, "-m", "phalanx.planning", "--run-dir", str(run_dir), "--spool", str(run_dir / "spool")]
    return subprocess.run(
        [*argv, "--cache", str(run_dir.parent / "cache")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_plan_is_written_whole_and_its_memory_is_said(tmp_path: Path, text: Path) -> None:
    done = run_planner(tmp_path / "run", small(text))
    assert done.returncode == 0, done.stderr
    plan = Plan.model_validate_json((tmp_path / "run" / "plan.json").read_bytes())
    assert plan.mesh.data == 2
    assert plan.predicted.step_seconds > 0
    assert any("measured in a rehearsal" in reason for reason in plan.reasons)
    rows = [row for file in list_files(tmp_path / "run" / "spool") for row in read_rows(file.path)]
    memory = {row.fields["category"]: row.fields["bytes"] for row in rows if row.table == "memory"}
    assert memory == plan.predicted.memory.model_dump()
    assert {row.context["rank"] for row in rows} == {-1}
    assert "the data is ready" in done.stderr
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["job.json", "plan.json", "spool"]


def test_what_stops_a_plan_is_the_last_line(tmp_path: Path, text: Path) -> None:
    done = run_planner(tmp_path / "run", small(text, global_batch=100_000))
    assert done.returncode == 2
    last = json.loads(done.stderr.splitlines()[-1])
    assert "fewer than one batch of 100,000" in last["message"]
    assert last["remedy"]
    assert not (tmp_path / "run" / "plan.json").exists()


def test_a_run_directory_without_a_job_is_said(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "phalanx.planning", "--run-dir", str(tmp_path), "--spool", str(tmp_path / "spool")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert json.loads(done.stderr.splitlines()[-1])["where"] == str(tmp_path / "job.json")


def test_a_rehearsal_whose_worker_ends_says_why_and_leaves_no_process(tmp_path: Path, text: Path) -> None:
    job_file = tmp_path / "job.json"
    job_file.write_text(small(text / "nothing").model_dump_json())
    with Rehearsal(job_file, tmp_path / "cache", 2) as rehearsal:
        processes = rehearsal.processes
        with pytest.raises(RehearsalFailed, match="cannot be read"):
            rehearsal.try_out(Orders((1,), ("fp32",), 1))
    assert all(process.poll() is not None for process in processes)


@pytest.mark.slow
def test_the_plan_is_near_what_real_workers_take(tmp_path: Path, text: Path) -> None:
    """Memory within a quarter. Time is for `benchmarks memory` to say: it depends on what else runs here."""
    job = small(text, global_batch=64, steps=8)
    assert run_planner(tmp_path / "planned", job).returncode == 0
    plan = Plan.model_validate_json((tmp_path / "planned" / "plan.json").read_bytes())
    run = Run(tmp_path / "run", job, plan, tmp_path / "cache")
    try:
        run.complete()
    finally:
        run.kill()
    for rank in range(2):
        memory = {row["category"]: row["bytes"] for row in run.rows("memory", rank=rank)}
        assert plan.predicted.memory.total == pytest.approx(memory["measured_peak"], rel=0.25)
