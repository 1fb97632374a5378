"""Input that cannot be carried out: one message with what to do, what was good is kept, and no process is left."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phalanx.cli.main import main
from phalanx.foundation import Home
from tests.e2e.terminal import Command, Terminals, job_document
from tests.processes import left_behind


def refuse(terminals: Terminals, document: dict[str, Any], code: int, *said: str) -> Command:
    command = terminals.run_to_end("run", terminals.write_job(document), code=code)
    output = command.stdout + command.stderr
    for words in said:
        assert words in output, output
    assert "Traceback" not in output
    return command


def changed(text: Path, path: str, value: object) -> dict[str, Any]:
    """The job with the value at `path` (such as spec.workers.count) replaced."""
    document = job_document(text)
    place: Any = document
    *parents, last = path.split(".")
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("metadata.name", "../small", "is not a usable name"),
        ("metadata.namespace", "a/b", "is not a usable name"),
        ("spec.workers.count", 0, "from 1 to 4,096"),
        ("spec.workers.count", 5000, "from 1 to 4,096"),
    ],
)
def test_a_job_that_cannot_be_is_refused_before_anything_begins(
    terminals: Terminals, text: Path, path: str, value: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = terminals.write_job(changed(text, path, value))
    assert main(["run", file, "--home", str(terminals.home.root)]) == 2
    output = capsys.readouterr().err
    assert said in output
    assert f"{file}:1: " in output
    assert list(terminals.home.root.iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "..", "../x", "A", "x" * 64])
@pytest.mark.parametrize("verb", [("resume",), ("stop",), ("logs",), ("get", "job"), ("delete", "job")])
def test_a_name_that_is_no_name_reaches_no_file(
    name: str, verb: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(tmp_path / "home"), *verb, name]) == 2
    assert "is not a usable name" in capsys.readouterr().err
    assert not (tmp_path / "home" / "runs").exists()


@pytest.mark.parametrize("verb", [("resume",), ("stop",), ("logs",), ("describe", "job"), ("delete", "job")])
def test_verbs_about_a_job_that_is_not_there_say_so(
    verb: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(tmp_path / "home"), *verb, "small"]) == 2
    assert "there is no job default/small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "said"),
    [("missing", "nowhere"), ("empty", "empty"), ("binary", "not text")],
)
def test_data_that_is_no_text_fails_the_job_at_gate_1_with_what_to_do(
    terminals: Terminals, kind: str, said: str
) -> None:
    source = terminals.scratch / "nowhere"
    if kind != "missing":
        source.write_bytes(b"" if kind == "empty" else bytes(range(256)) * 64)
    command = refuse(terminals, job_document(source), 1, said, "to do: ", "default/small: Failed; report:")
    assert "Admitted" in command.stderr
    report = Path(command.stdout.splitlines()[-1])
    assert "Failed" in report.read_text()
    (row,) = terminals.json("get")
    assert (row["phase"], row["reason"]) == ("Failed", "ReportWritten")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.model.name", "gpt-tinny", "did you mean gpt-tiny?"),
        ("spec.security.isolation", "microvm", "nothing here enforces it yet"),
        ("spec.workers.strategy", "tensor", "is not carried out yet"),
    ],
)
def test_what_nobody_here_can_do_fails_the_job_before_anything_is_prepared(
    terminals: Terminals, text: Path, path: str, value: object, said: str
) -> None:
    refuse(terminals, changed(text, path, value), 1, "x Admitted: ", said, "default/small: Failed; report:")
    assert not terminals.home.cache_dir.exists()


def test_what_was_mended_goes_on_by_resume(terminals: Terminals, text: Path) -> None:
    """The gate's answer was no; it is asked again. This time the text has something in it, and too little."""
    source = terminals.scratch / "text.txt"
    source.touch()
    refuse(terminals, job_document(source, globalBatch=4096), 1, "empty")
    source.write_text("a few words\n" * 300)
    command = terminals.run_to_end("resume", "small", code=1)
    assert "- Admitted: data, model and demands are in order" in command.stderr
    assert "fewer than one batch of 4,096" in command.stderr
    status = terminals.job().job.status
    assert (status.phase, status.attempt) == ("Failed", 1)


def test_the_outcome_of_a_failure_is_one_json_document_too(terminals: Terminals) -> None:
    document = job_document(terminals.scratch / "nowhere")
    command = terminals.run_to_end("run", terminals.write_job(document), "--json", code=1)
    outcome = json.loads(command.stdout)
    assert outcome["phase"] == "Failed"
    assert [c["status"] for c in outcome["conditions"] if c["type"] == "Admitted"] == ["False"]
    assert command.stderr == ""


@pytest.fixture
def disk(mount_disk: Callable[[str], Path]) -> Path:
    """A file system of its own, of 24 MiB."""
    return mount_disk("24m")


@pytest.mark.root
def test_a_home_on_a_read_only_disk_is_one_message(terminals: Terminals, text: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    job = terminals.write_job(job_document(text))
    command = terminals.run_to_end("run", job, "--home", str(disk / "home"), code=1)
    assert command.stderr.splitlines()[0] == f"phalanx: {disk / 'home'}: cannot be written (Read-only file system)"
    assert "To do: make it writable, or choose another place with --home" in command.stderr


@pytest.mark.root
def test_a_disk_too_small_for_the_checkpoints_is_refused_before_training(
    finished: Terminals, disk: Path, tmp_path: Path
) -> None:
    terminals = Terminals(Home.find(disk / "home"), tmp_path)
    terminals.prepare(finished, files=("plan.json", "decision-1.json"))
    command = terminals.run_to_end("resume", "small", code=1)
    assert "x HostReady: " in command.stderr
    assert "needed: 2 checkpoints kept and one being written" in command.stderr
    assert "keepCheckpoints" in command.stderr
    assert terminals.pids() == []
    assert left_behind(terminals.home.root) == {}
