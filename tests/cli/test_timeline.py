"""`phalanx timeline`: a file, standard output, compression, and what is said when there is nothing to write."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from phalanx.cli.main import main
from phalanx.cluster import report_status, submit
from phalanx.daemons.hold import open_state
from phalanx.events import Context, Emitter
from phalanx.foundation import Home
from tests.cluster.made import make_job

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ran(home: Home) -> Home:
    """A job `small` of team `tests` whose rank 0 did one step, whose loss is no number."""
    state = open_state(home)
    stored = submit(state, make_job("small"), home.runs_dir)
    report_status(state, stored, stored.job.status.model_copy(update={"attempt": 1}))
    sink = Emitter(home.spool_dir, Context("here", "tests", stored.job.metadata.uid, 1, 1, 0, "worker"))
    sink.emit("steps", {"step": 1, "loss": float("nan"), "step_s": 0.5, "forward_s": 0.2})
    sink.close()
    return home


def phalanx(capsys: Capture, home: Home, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["--home", str(home.root), "timeline", *arguments, "-n", "tests"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_file_is_named_after_the_job_and_said_how_to_open(
    ran: Home, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = phalanx(capsys, ran, "small")
    assert (code, err) == (0, "")
    assert out == "small-timeline.json: 6 events of 1 rank. Open it at https://ui.perfetto.dev\n"
    trace = json.loads((tmp_path / "small-timeline.json").read_text())
    (step,) = (event for event in trace["traceEvents"] if event["name"] == "step 1")
    assert step["dur"] == pytest.approx(500_000)
    assert step["args"]["loss"] == "nan"


def test_it_is_compressed_when_the_name_says_so_and_may_go_to_standard_output(
    ran: Home, capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json.gz"
    assert phalanx(capsys, ran, "small", "-o", str(path))[0] == 0
    code, out, _ = phalanx(capsys, ran, "small", "-o", "-")
    assert code == 0
    assert json.loads(gzip.decompress(path.read_bytes())) == json.loads(out)


def test_an_unknown_job_an_unknown_attempt_and_a_run_without_rows(ran: Home, capsys: Capture) -> None:
    code, _, err = phalanx(capsys, ran, "smal")
    assert code == 2
    assert "did you mean tests/small?" in err
    code, _, err = phalanx(capsys, ran, "small", "--attempt", "2")
    assert code == 2
    assert "has no attempt 2" in err
    state = open_state(ran)
    stored = submit(state, make_job("idle"), ran.runs_dir)
    report_status(state, stored, stored.job.status.model_copy(update={"attempt": 1}))
    code, _, err = phalanx(capsys, ran, "idle", "-o", "-")
    assert code == 1
    assert "no steps and no operations" in err
