"""The evaluator as the controller starts it: after real workers, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.events import list_files, read_rows
from phalanx.pages.run_files import parse_evaluation
from tests.evaluation.runs import Trained, make_job, spoil
from tests.training.values import make_plan
from tests.training.workers import Run


def evaluate(run_dir: Path, spool: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "phalanx.evaluation", "--run-dir", str(run_dir), "--spool", str(spool)]
    return subprocess.run(
        [*command, "--cache", str(cache)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def scores(spool: Path) -> list[dict[str, object]]:
    rows = [row for file in list_files(spool) for row in read_rows(file.path)]
    assert {row.context["rank"] for row in rows if row.table == "scores"} <= {-1}
    return [row.fields | row.context for row in rows if row.table == "scores"]


def test_a_job_that_workers_trained_is_evaluated(tmp_path: Path, text: Path, cache: Path) -> None:
    run = Run(tmp_path / "run", make_job(text), make_plan(1, 16, 8), cache)
    try:
        run.complete()
    finally:
        run.kill()
    spool = tmp_path / "spool"
    done = evaluate(run.directory, spool, cache)
    assert done.returncode == 0, done.stderr
    document = json.loads((run.directory / "evaluation.json").read_bytes())
    assert parse_evaluation(document) is not None
    assert document["checkpoint"]["step"] == 4
    emitted = scores(spool)
    assert {row["job_uid"] for row in emitted} == {run.job.metadata.uid}
    assert {row["namespace"] for row in emitted} == {"tests"}
    by_name = {row["model"]: row["value"] for row in emitted if row["metric"] == "bits_per_byte"}
    assert by_name["gpt-tiny"] == document["model"]["value"]
    assert by_name["6-gram"] == document["baselines"][-1]["value"]


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert "Traceback" not in done.stderr
    line: dict[str, str] = json.loads(done.stderr.strip().splitlines()[-1])
    return line


def test_a_run_without_a_checkpoint_is_named_on_the_last_line(tmp_path: Path) -> None:
    done = evaluate(tmp_path, tmp_path / "spool", tmp_path / "cache")
    assert done.returncode == 1
    said = last_line(done)
    assert "no usable checkpoint" in said["message"]
    assert said["remedy"]
    assert not (tmp_path / "evaluation.json").exists()


def test_a_run_whose_newest_checkpoint_is_damaged_is_evaluated_at_the_one_before(
    decoder: Trained, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(decoder.directory, directory)
    spoil(Trained(directory, decoder.cache, decoder.job, decoder.corpus, decoder.module, decoder.config).save(70))
    done = evaluate(directory, tmp_path / "spool", decoder.cache)
    assert done.returncode == 0, done.stderr
    assert "step-00000070" in done.stderr
    assert json.loads((directory / "evaluation.json").read_bytes())["checkpoint"]["step"] == 60


@pytest.mark.root
def test_a_full_disk_is_named_and_leaves_no_half_document(decoder: Trained, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        directory = disk / "run"
        shutil.copytree(decoder.directory, directory)
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        done = evaluate(directory, tmp_path / "spool", decoder.cache)
        assert done.returncode == 1, done.stderr
        assert "the disk is full" in last_line(done)["message"]
        assert not (directory / "evaluation.json").exists()
        assert not list(directory.glob(".evaluation.json.*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
