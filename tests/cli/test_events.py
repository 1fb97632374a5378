"""`phalanx events` as a person calls it: tables, answers, and errors that say what to do."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.cli.main import main
from phalanx.daemons.collector import LEASE, collect_if_idle
from phalanx.daemons.hold import open_state
from phalanx.events import COMMON, TABLES, Context, Emitter
from phalanx.foundation import Home
from phalanx.host import own_identity
from phalanx.telemetry import Collector, Reader, Store

Capture = pytest.CaptureFixture[str]


def phalanx(capsys: Capture, home: Home, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `phalanx --home HOME events ...`."""
    code = main(["--home", str(home.root), "events", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def filled(home: Home) -> Home:
    sink = Emitter(home.spool_dir, Context("here", "research", "uid", 1, 1, 0, "worker"))
    for step in range(1, 6):
        sink.emit("steps", {"step": step, "loss": 2.0 / step if step != 3 else float("nan")})
    sink.emit("scores", {"model": "a, \x1b[31m\nb", "metric": "top1", "value": float("inf"), "is_baseline": False})
    sink.close()
    collect_if_idle(home)
    return home


def test_tables_are_listed_with_their_rows(filled: Home, capsys: Capture) -> None:
    code, out, err = phalanx(capsys, filled, "tables")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines()[2:]}
    assert rows == dict.fromkeys(TABLES, "0") | {"steps": "5", "scores": "1", "sources": "2"}
    assert all(table.doc in out for table in TABLES.values())


def test_one_table_is_shown_with_its_columns_types_and_units(filled: Home, capsys: Capture) -> None:
    code, out, _ = phalanx(capsys, filled, "tables", "steps")
    assert code == 0
    assert "steps: one row per rank and optimizer step; rows: 5" in out
    for column in (*COMMON, *TABLES["steps"].columns):
        (line,) = (line for line in out.splitlines() if line.split()[:1] == [column.name])
        assert column.type in line
        assert column.unit in line
        assert column.doc in line


def test_tables_as_json_are_what_is_declared(filled: Home, capsys: Capture) -> None:
    listed = json.loads(phalanx(capsys, filled, "tables", "--json")[1])
    assert [table["name"] for table in listed] == list(TABLES)
    one = json.loads(phalanx(capsys, filled, "tables", "steps", "--json")[1])
    assert one == next(table for table in listed if table["name"] == "steps")
    assert one["rows"] == 5
    assert {"name": "loss", "type": "float64", "unit": "nats/token"}.items() <= one["columns"][10].items()


def test_a_table_that_is_not_there_gives_the_nearest(home: Home, capsys: Capture) -> None:
    code, _, err = phalanx(capsys, home, "tables", "step")
    assert code == 2
    assert "there is no table step" in err
    assert "did you mean steps?" in err


def test_an_empty_home_is_no_error(home: Home, capsys: Capture) -> None:
    code, out, err = phalanx(capsys, home, "tables")
    assert code == 0
    assert "steps" in out
    assert "no events" in err
    assert "phalanx run" in err
    assert (
        phalanx(capsys, home, "sql", "SELECT count(*) AS n FROM steps", "--json")[1] == '[\n  {\n    "n": 0\n  }\n]\n'
    )
    assert list(home.root.iterdir()) == [], "looking writes nothing"


def test_an_answer_is_a_table_that_a_person_can_read(filled: Home, capsys: Capture) -> None:
    code, out, err = phalanx(capsys, filled, "sql", "SELECT step, loss, NULL AS nothing FROM steps ORDER BY step")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "step  loss  nothing",
        "----  ----  -------",
        "   1     2  NULL",
        "   2     1  NULL",
        "   3   nan  NULL",
        "   4   0.5  NULL",
        "   5   0.4  NULL",
    ]


def test_control_characters_do_not_reach_the_terminal(filled: Home, capsys: Capture) -> None:
    out = phalanx(capsys, filled, "sql", "SELECT model FROM scores")[1]
    assert "\x1b" not in out
    assert out.splitlines()[2] == "a, \\x1b[31m\\nb"


def test_json_is_strict_and_csv_is_csv(filled: Home, capsys: Capture) -> None:
    sql = "SELECT loss, value, model FROM steps, scores WHERE step IN (1, 3) ORDER BY step"
    out = phalanx(capsys, filled, "sql", sql, "--json")[1]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    rows = json.loads(out, parse_constant=refuse)
    assert [(row["loss"], row["value"]) for row in rows] == [(2.0, "Infinity"), ("NaN", "Infinity")]
    out = phalanx(capsys, filled, "sql", sql, "--csv")[1]
    found = list(csv.reader(io.StringIO(out)))
    assert found == [["loss", "value", "model"], ["2.0", "inf", "a, \x1b[31m\nb"], ["nan", "inf", "a, \x1b[31m\nb"]]
    assert phalanx(capsys, filled, "sql", sql, "--csv", "--json")[0] == 2


def test_an_answer_that_is_cut_says_so(filled: Home, capsys: Capture) -> None:
    sql = "SELECT i FROM range(1500) t(i)"
    _, out, err = phalanx(capsys, filled, "sql", sql)
    assert len(out.splitlines()) == 1002
    assert "first 1,000 rows" in err
    _, out, err = phalanx(capsys, filled, "sql", sql, "--limit", "0", "--csv")
    assert len(out.splitlines()) == 1501
    assert err == ""
    assert "first 2 rows" in phalanx(capsys, filled, "sql", sql, "--limit", "2")[2]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT los FROM steps", "did you mean loss?"),
        ("SELECT * FROM stepps", "did you mean steps?"),
        ("SELEKT", "syntax error"),
        ("DROP VIEW steps", "only read"),
        ("SELECT * FROM read_text('/etc/hostname')", "no files"),
    ],
)
def test_bad_sql_is_one_message_and_exit_2(filled: Home, capsys: Capture, sql: str, words: str) -> None:
    code, out, err = phalanx(capsys, filled, "sql", sql)
    assert (code, out) == (2, "")
    assert words in err
    assert "To do:" in err
    assert len(err.splitlines()) == 2


def test_a_part_cut_in_the_middle_is_named_and_the_others_answer(filled: Home, capsys: Capture) -> None:
    store = Store(filled.store_dir)
    part = store.path(store.read().tables["steps"][0].file)
    part.write_bytes(part.read_bytes()[:200])
    sql = "SELECT (SELECT count(*) FROM steps) AS steps, (SELECT count(*) FROM scores) AS scores"
    code, out, err = phalanx(capsys, filled, "sql", sql, "--json")
    assert (code, json.loads(out)) == (0, [{"steps": 0, "scores": 1}])
    assert str(part) in err
    assert "is cut" in err
    assert "its 5 rows of steps are left out" in err
    assert len(err.splitlines()) == 1
    assert str(part) in phalanx(capsys, filled, "tables")[2]


def test_a_damaged_manifest_is_one_message(filled: Home, capsys: Capture) -> None:
    newest = max(filled.store_dir.glob("manifest-*"))
    newest.write_bytes(newest.read_bytes()[:50])
    code, _, err = phalanx(capsys, filled, "sql", "SELECT 1")
    assert code == 1
    assert str(newest) in err
    assert "To do: move that file away" in err


KILLED = """
import os, signal, sys
from pathlib import Path
from phalanx.events import Context, Emitter
sink = Emitter(Path(sys.argv[1]), Context("here", "n", "killed", 1, program="worker"))
for step in range(1, 21):
    sink.emit("steps", {"step": step})
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_run(home: Home) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(home.spool_dir)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_rows_of_a_killed_run_are_collected_by_whoever_asks(home: Home, capsys: Capture) -> None:
    kill_a_run(home)
    out = phalanx(capsys, home, "sql", "SELECT count(*) AS n, max(step) AS newest FROM steps", "--json")[1]
    assert json.loads(out) == [{"n": 20, "newest": 20}]


def test_while_a_run_collects_the_asker_only_reads(home: Home, capsys: Capture) -> None:
    kill_a_run(home)
    state = open_state(home)
    lease = state.lease(LEASE, own_identity(), 60)
    assert lease is not None
    query = ["events", "sql", "SELECT count(*) FROM steps", "--csv"]
    asker = [sys.executable, "-m", "phalanx", "--home", str(home.root), *query]
    done = subprocess.run(asker, capture_output=True, text=True, check=True, env=os.environ)
    assert (done.stdout.splitlines()[1], done.stderr) == ("0", "")
    Collector(home.spool_dir, Store(home.store_dir), lease.epoch).collect_once()
    done = subprocess.run(asker, capture_output=True, text=True, check=True, env=os.environ)
    assert (done.stdout.splitlines()[1], done.stderr) == ("20", "")
    state.close()


def test_a_state_that_was_begun_anew_does_not_lock_the_store_out(filled: Home) -> None:
    for _ in range(5):
        kill_a_run(filled)
        collect_if_idle(filled)
    assert Store(filled.store_dir).epoch > 1
    filled.state_db.unlink()
    kill_a_run(filled)
    collect_if_idle(filled)
    assert Reader(filled.store_dir).counts()["steps"] == 125


def test_a_store_that_cannot_be_written_is_still_read(filled: Home, capsys: Capture) -> None:
    """The spool has new rows, and a file lies where the table's directory must be made."""
    sink = Emitter(filled.spool_dir, Context("here", "research", "uid", 1))
    sink.emit("memory", {"category": "peak", "bytes": 1})
    sink.close()
    (filled.store_dir / "parts" / "memory").write_text("")
    code, out, err = phalanx(capsys, filled, "sql", "SELECT count(*) AS n FROM steps", "--json")
    assert (code, json.loads(out)) == (0, [{"n": 5}])
    assert "the newest events are missing" in err


def test_a_narrow_terminal_gets_a_block_for_each_row(
    filled: Home, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phalanx.cli.events._is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    out = phalanx(capsys, filled, "sql", "SELECT * FROM steps ORDER BY step LIMIT 2")[1]
    assert out.count("-- row ") == 2
    assert max(map(len, out.splitlines())) < 80
    assert any(line.split() == ["step", "2"] for line in out.splitlines())


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from phalanx.cli.main import main; main(['events', 'sql', '--help']);"
        "sys.exit(str({'duckdb', 'pyarrow', 'numpy', 'torch', 'pydantic', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path("/"))
    assert done.stderr.strip() == "set()"
