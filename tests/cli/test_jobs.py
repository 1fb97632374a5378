"""Verbs that look at jobs or change what is desired of them: get, describe, logs, stop, delete, resume. Nothing runs here."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from phalanx.cli.main import main
from phalanx.cli.run import with_absolute_source
from phalanx.cluster import read_job, read_placement, report_status, submit, write_placement
from phalanx.daemons.hold import hold, open_state
from phalanx.foundation import Home
from phalanx.job import Condition, Job
from phalanx.job.spec import MixPart
from tests.cluster.made import ended, make_job, make_placement, reported

KEY = ("tests", "small")


class Shell:
    """`phalanx` in this process over one home; gives (exit code, standard output, standard error)."""

    def __init__(self, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.capsys = capsys
        self.state = open_state(home)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = main(["--home", str(self.home.root), *arguments])
        output = self.capsys.readouterr()
        return code, output.out, output.err

    def json(self, *arguments: str) -> Any:
        code, out, _ = self(*arguments, "--json")
        assert code == 0
        return json.loads(out)

    def submit(self, name: str = "small", **status: Any) -> Path:
        stored = submit(self.state, make_job(name), self.home.runs_dir)
        run_dir = Path(stored.job.status.run_dir)
        report_status(self.state, stored, stored.job.status.model_copy(update=status))
        return run_dir


@pytest.fixture
def phalanx(home: Home, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(home, capsys)


def write_log(run_dir: Path, text: str, rank: int = 0, generation: int = 1) -> Path:
    path = run_dir / "logs" / f"generation-{generation}" / f"rank-{rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_jobs_get_says_how_to_make_one(phalanx: Shell) -> None:
    code, out, err = phalanx("get")
    assert (code, out) == (0, "")
    assert "phalanx job init" in err
    assert str(phalanx.home.root) in err  # a misspelt home has none either
    assert phalanx.json("get") == []


@pytest.mark.parametrize("verb", ["get", "describe", "delete"])
def test_a_name_without_the_word_before_it_is_answered_with_the_whole_command(phalanx: Shell, verb: str) -> None:
    code, _, err = phalanx(verb, "small")
    assert code == 2
    assert f"`phalanx {verb} job small`" in err


def test_a_long_name_keeps_its_column(phalanx: Shell) -> None:
    name = "a-name-that-says-much-of-what-the-job-does"
    phalanx.submit(name)
    phalanx.submit("short")
    _, out, _ = phalanx("get")
    head, *lines = out.splitlines()
    column = head.index("PHASE")
    assert [line[column:].split()[0] for line in lines] == ["Pending", "Pending"]
    assert [line.split()[1] for line in lines] == [name, "short"]
    _, out, _ = phalanx("get", "job", "short", "-n", "tests")
    assert out.splitlines()[0].startswith("NAMESPACE  NAME   PHASE    ATTEMPT")


def test_jobs_are_listed_with_the_newest_reason(phalanx: Shell) -> None:
    conditions = tuple(Condition(type=t, status="True", reason=f"Of{t}", time_ns=n) for n, t in enumerate("AB"))
    phalanx.submit("one", phase="Running", generation=2, restarts=1, conditions=conditions)
    phalanx.submit("two")
    _, out, _ = phalanx("get", "jobs", "-n", "tests")
    head, *lines = [line.split() for line in out.splitlines()]
    assert head == ["NAMESPACE", "NAME", "PHASE", "ATTEMPT", "GENERATION", "RESTARTS", "REASON"]
    assert lines == [["tests", "one", "Running", "1", "2", "1", "OfB"], ["tests", "two", "Pending", "1", "0", "0"]]
    assert [row["name"] for row in phalanx.json("get")] == ["one", "two"]
    assert phalanx.json("get", "jobs", "-n", "other") == []
    (row,) = phalanx.json("get", "job", "two", "-n", "tests")
    assert row["phase"] == "Pending"


def test_watching_prints_a_line_for_every_change_until_all_have_ended(phalanx: Shell) -> None:
    phalanx.submit(phase="Running")

    def end() -> None:
        time.sleep(0.5)
        state = open_state(phalanx.home)
        stored = read_job(state, *KEY)
        report_status(state, stored, stored.job.status.model_copy(update={"phase": "Failed"}))

    thread = threading.Thread(target=end)
    thread.start()
    code, out, _ = phalanx("get", "--watch", "--json")
    thread.join()
    assert code == 0
    assert [json.loads(line)["phase"] for line in out.splitlines()] == ["Running", "Failed"]


def test_describe_tells_all_that_state_says(phalanx: Shell) -> None:
    condition = Condition(type="Running", status="False", reason="WorkerCrashed", message="rank 1: it broke", time_ns=1)
    phalanx.submit(phase="Failed", generation=1, report="/r.html", conditions=(condition,))
    write_placement(phalanx.state, KEY, make_placement(), [], Path("/run"), expect=0)
    said = reported(ended(0, "peer_lost", "rank 1 is gone"), ended(1, "crashed", "it broke"))
    phalanx.state.report("Placement", *KEY, said.model_dump(mode="json"))
    _, out, _ = phalanx("describe", "job", "small", "-n", "tests")
    for words in (
        "name: small",
        "phase: Failed   attempt 1, generation 1, 0 restarts",
        "controller: none",
        "report: /r.html",
        "1970-01-01 00:00:00 UTC  Running=False  WorkerCrashed  rank 1: it broke",
        "rank 1  pid 101  ended  crashed: it broke",
    ):
        assert words in out
    document = phalanx.json("describe", "job", "small", "-n", "tests")
    assert Job.model_validate({k: document[k] for k in ("metadata", "spec", "status")}).status.phase == "Failed"
    assert [m["exit"]["kind"] for m in document["placementStatus"]["members"]] == ["peer_lost", "crashed"]


def test_workers_of_the_attempt_before_are_not_described(phalanx: Shell) -> None:
    phalanx.submit(phase="Failed")
    write_placement(phalanx.state, KEY, make_placement(), [], Path("/run"), expect=0)
    phalanx.submit()
    assert phalanx.json("describe", "job", "small", "-n", "tests")["placement"] is None


def test_logs_show_each_line_with_its_rank(phalanx: Shell) -> None:
    run_dir = phalanx.submit(phase="Failed", generation=2)
    write_log(run_dir, "of the first\n", generation=1)
    write_log(run_dir, "zero\nunfinished", rank=0, generation=2)
    write_log(run_dir, "ten\n", rank=10, generation=2)
    write_log(run_dir, "two \u00fc\n", rank=2, generation=2)
    _, out, _ = phalanx("logs", "small", "-n", "tests")
    assert out.splitlines() == ["[rank 0] zero", "[rank 0] unfinished", "[rank 2] two \u00fc", "[rank 10] ten"]
    assert phalanx("logs", "small", "-n", "tests", "--rank", "2")[1] == "[rank 2] two \u00fc\n"
    assert phalanx("logs", "small", "-n", "tests", "--generation", "1")[1] == "[rank 0] of the first\n"


def test_logs_are_one_document_for_a_program(phalanx: Shell) -> None:
    run_dir = phalanx.submit(phase="Failed", generation=2)
    write_log(run_dir, "of the first\n", generation=1)
    write_log(run_dir, '"zero" \u00fc\nunfinished', rank=0, generation=2)
    write_log(run_dir, "one\n", rank=1, generation=2)
    assert phalanx.json("logs", "small", "-n", "tests") == [
        {"rank": 0, "generation": 2, "line": '"zero" \u00fc'},
        {"rank": 0, "generation": 2, "line": "unfinished"},
        {"rank": 1, "generation": 2, "line": "one"},
    ]
    assert phalanx.json("logs", "small", "-n", "tests", "--generation", "1", "--rank", "0") == [
        {"rank": 0, "generation": 1, "line": "of the first"}
    ]


def test_logs_of_a_generation_that_has_not_begun_are_those_of_the_one_before(phalanx: Shell) -> None:
    run_dir = phalanx.submit(phase="Placed", generation=2)
    write_log(run_dir, "of the first\n")
    assert phalanx("logs", "small", "-n", "tests")[1] == "[rank 0] of the first\n"


def test_logs_that_are_not_there_are_said_to_be(phalanx: Shell) -> None:
    run_dir = phalanx.submit()
    code, _, err = phalanx("logs", "small", "-n", "tests")
    assert code == 2
    assert f"{run_dir / 'logs'}: job tests/small has no output of generation 0" in err
    assert "phalanx describe" in err


@pytest.mark.parametrize("follow", [(), ("-f",)])
def test_logs_that_are_not_there_are_no_empty_document(phalanx: Shell, follow: tuple[str, ...]) -> None:
    phalanx.submit(phase="Failed")
    code, out, _ = phalanx("logs", "small", "-n", "tests", "--json", *follow)
    assert (code, out) == (2, "")


def test_followed_logs_are_a_document_a_line_for_a_program(phalanx: Shell) -> None:
    run_dir = phalanx.submit(phase="Running", generation=1)
    write_log(run_dir, "one\n")

    def end() -> None:
        time.sleep(0.5)
        write_log(run_dir, "again\nlast words", rank=1, generation=2)
        state = open_state(phalanx.home)
        stored = read_job(state, *KEY)
        report_status(state, stored, stored.job.status.model_copy(update={"phase": "Failed", "generation": 2}))

    thread = threading.Thread(target=end)
    thread.start()
    _, out, _ = phalanx("logs", "small", "-n", "tests", "-f", "--json")
    thread.join()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"rank": 0, "generation": 1, "line": "one"},
        {"rank": 1, "generation": 2, "line": "again"},
        {"rank": 1, "generation": 2, "line": "last words"},
    ]


def test_following_logs_goes_from_one_generation_to_the_next_and_loses_no_line(phalanx: Shell) -> None:
    run_dir = phalanx.submit(phase="Running", generation=1)
    first = write_log(run_dir, "one\ntw")

    def write_on() -> None:
        state = open_state(phalanx.home)
        time.sleep(0.5)
        first.write_text("one\ntwo\n")
        time.sleep(0.5)
        first.write_text("one\ntwo\nlast words")
        write_log(run_dir, "again\n", generation=2)
        time.sleep(0.5)
        stored = read_job(state, *KEY)
        report_status(state, stored, stored.job.status.model_copy(update={"phase": "Failed", "generation": 2}))

    thread = threading.Thread(target=write_on)
    thread.start()
    _, out, _ = phalanx("logs", "small", "-n", "tests", "-f")
    thread.join()
    assert [line.removeprefix("[rank 0] ") for line in out.splitlines()] == ["one", "two", "last words", "again"]


def test_stopping_what_nobody_controls_stops_it_here(phalanx: Shell) -> None:
    phalanx.submit(phase="Running", generation=1)
    code, out, err = phalanx("stop", "small", "-n", "tests")
    assert (code, out, err) == (0, "tests/small: Stopped; `phalanx resume small -n tests` goes on\n", "")
    job = read_job(phalanx.state, *KEY).job
    assert job.status.phase == "Stopped"
    assert Path(job.status.report).exists()
    assert phalanx.json("stop", "small", "-n", "tests")["phase"] == "Stopped"


def test_stopping_waits_for_who_controls_it(phalanx: Shell) -> None:
    phalanx.submit(phase="Running")

    def control() -> None:
        with hold(phalanx.home, KEY):
            held.set()
            state = open_state(phalanx.home)
            while not read_job(state, *KEY).job.spec.suspend:
                time.sleep(0.02)
            stored = read_job(state, *KEY)
            report_status(state, stored, stored.job.status.model_copy(update={"phase": "Stopped"}))

    held = threading.Event()
    thread = threading.Thread(target=control)
    thread.start()
    held.wait()
    assert phalanx.json("stop", "small", "-n", "tests") == {"namespace": "tests", "name": "small", "phase": "Stopped"}
    thread.join()


@pytest.mark.parametrize("files", [False, True])
def test_a_deleted_job_is_gone_and_its_files_as_one_likes(phalanx: Shell, files: bool) -> None:
    run_dir = phalanx.submit(phase="Failed")
    run_dir.mkdir(parents=True)
    write_placement(phalanx.state, KEY, make_placement(), [], run_dir, expect=0)
    _, out, _ = phalanx("delete", "job", "small", "-n", "tests", *(["--files"] if files else []))
    assert out == "tests/small: deleted" + ("\n" if files else f"; its files stay in {run_dir.parent}\n")
    assert run_dir.exists() is not files
    assert read_placement(phalanx.state, KEY) is None
    assert phalanx("describe", "job", "small", "-n", "tests")[0] == 2


def test_a_job_that_has_succeeded_is_not_resumed(phalanx: Shell) -> None:
    phalanx.submit(phase="Succeeded", report="/r.html")
    code, _, err = phalanx("resume", "small", "-n", "tests")
    assert code == 2
    assert "nothing is left to do" in err


def test_a_source_in_this_directory_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "stdlib-source").mkdir()  # the name of a built-in source is that source
    monkeypatch.chdir(tmp_path)
    for source, expected in (
        ("text", str(tmp_path / "text")),
        ("stdlib-source", "stdlib-source"),
        ("not-there-yet", str(tmp_path / "not-there-yet")),
        ("/absolute", "/absolute"),
    ):
        job = make_job()
        data = job.spec.data.model_copy(update={"source": source})
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"data": data})})
        assert with_absolute_source(job).spec.data.source == expected
    job = make_job()
    parts = tuple(MixPart(source=source, weight=2) for source in ("text", "/absolute"))
    data = job.spec.data.model_copy(update={"source": "", "mix": parts})
    found = with_absolute_source(job.model_copy(update={"spec": job.spec.model_copy(update={"data": data})})).spec.data
    assert [(part.source, part.weight) for part in found.mix] == [(str(tmp_path / "text"), 2), ("/absolute", 2)]
    assert found.source == ""
