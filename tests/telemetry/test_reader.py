"""The reader: answers that a plain computation gives too, no way to a file, damaged parts named and left out."""

from __future__ import annotations

import contextlib
import math
import random
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.events import COMMON, TABLES
from phalanx.foundation import UsageError
from phalanx.telemetry import QueryError, Reader, Store, StoreDamaged, TelemetryError, collector, reader
from tests.telemetry.spools import collect, emit_steps, emitter, files, line, spool


def small_store(home: Path, rounds: int = 3) -> Reader:
    """Ten rows of steps in each of a few parts."""
    sink = emitter(home)
    for number in range(rounds):
        emit_steps(sink, range(10 * number, 10 * number + 10))
        collect(home)
    sink.close()
    return Reader(home / "store")


def test_every_declared_table_is_there_without_any_store(tmp_path: Path) -> None:
    empty = Reader(tmp_path / "store")
    assert empty.counts() == dict.fromkeys(TABLES, 0)
    for table in TABLES.values():
        answer = empty.query(f"SELECT * FROM {table.name}")
        assert answer.columns == tuple(column.name for column in (*COMMON, *table.columns))
        kinds = {"int64": "BIGINT", "float64": "DOUBLE", "string": "VARCHAR", "bool": "BOOLEAN"}
        assert answer.types == tuple(kinds[column.type] for column in (*COMMON, *table.columns))
        assert answer.rows == ()
    assert files(tmp_path) == []


def test_answers_are_those_of_a_plain_computation(tmp_path: Path) -> None:
    draw = random.Random(7)
    special = [None, math.nan, math.inf, -math.inf, 0.0]
    rows = []
    for _ in range(400):
        loss = draw.choice(special) if draw.random() < 0.2 else draw.uniform(-3, 3)
        rows.append({"step": draw.randrange(40), "loss": loss, "tokens": draw.randrange(2**40)})
    for first in range(0, 400, 57):
        emitted = [line(first + i + 1, **row) for i, row in enumerate(rows[first : first + 57])]
        spool(tmp_path, *emitted, number=first + 1)
        collect(tmp_path)
    ask = Reader(tmp_path / "store").rows

    finite = [r["loss"] for r in rows if r["loss"] is not None and math.isfinite(r["loss"])]
    (found,) = ask("SELECT count(*) n, sum(loss) s, min(loss) low, median(loss) mid FROM steps WHERE isfinite(loss)")
    assert found["n"] == len(finite)
    assert found["s"] == pytest.approx(math.fsum(finite))
    assert (found["low"], found["mid"]) == (min(finite), pytest.approx(statistics.median(finite)))
    # SQL's order: NaN is above everything, null is neither.
    above = [r for r in rows if r["loss"] is not None and (math.isnan(r["loss"]) or r["loss"] > 1)]
    assert ask("SELECT count(*) AS n FROM steps WHERE loss > 1") == [{"n": len(above)}]
    assert ask("SELECT count(*) AS n FROM steps WHERE loss IS NULL") == [{"n": sum(r["loss"] is None for r in rows)}]
    by_step: dict[int, int] = {}
    for r in rows:
        by_step[r["step"]] = by_step.get(r["step"], 0) + r["tokens"]
    wanted = [{"step": step, "tokens": tokens} for step, tokens in sorted(by_step.items())]
    assert ask("SELECT step, sum(tokens) AS tokens FROM steps GROUP BY step ORDER BY step") == wanted
    assert [r["tokens"] for r in ask("SELECT tokens FROM steps ORDER BY seq")] == [r["tokens"] for r in rows]


def test_values_are_pythons(tmp_path: Path) -> None:
    sql = "SELECT 1 AS i, sum(2) AS big, 1.5 AS d, 0.25::DOUBLE AS f, 'ä' AS s, true AS b, NULL AS n, [1.5, 2] AS l"
    (row,) = Reader(tmp_path).rows(sql)
    assert row == {"i": 1, "big": 2, "d": 1.5, "f": 0.25, "s": "ä", "b": True, "n": None, "l": [1.5, 2.0]}
    assert [type(value) for value in row.values()] == [int, int, float, float, str, bool, type(None), list]


def test_two_columns_of_one_name_are_both_there(tmp_path: Path) -> None:
    assert Reader(tmp_path).rows("SELECT 1 AS a, 2 AS a, 3 AS a") == [{"a": 1, "a_1": 2, "a_2": 3}]


def test_a_limit_says_whether_there_was_more(tmp_path: Path) -> None:
    small = small_store(tmp_path)
    assert not small.query("FROM steps", 30).is_cut
    cut = small.query("FROM steps", 29)
    assert (cut.is_cut, len(cut.rows)) == (True, 29)


def test_a_reader_sees_every_new_commit(tmp_path: Path) -> None:
    sink = emitter(tmp_path)
    looking = Reader(tmp_path / "store")
    for number in range(20):
        emit_steps(sink, [number])
        collect(tmp_path)
        assert looking.rows("SELECT max(step) AS step FROM steps") == [{"step": number}]
    sink.close()


FORBIDDEN = [
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM read_blob('{file}')",
    "SELECT * FROM read_json('{file}')",
    "SELECT * FROM read_parquet('{part}')",
    "SELECT * FROM parquet_metadata('{part}')",
    "SELECT * FROM sniff_csv('{file}')",
    "SELECT * FROM glob('{directory}/*')",
    "SELECT * FROM '{file}'",
    "SELECT * FROM '{part}'",
    "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')",
    "SELECT * FROM query_table('{file}')",
    "SELECT getenv('HOME')",
    "COPY (SELECT 1) TO '{new}'",
    "COPY steps TO '{new}'",
    "COPY steps FROM '{file}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{new}'",
    "ATTACH '{new}'",
    "EXPORT DATABASE '{new}'",
    "IMPORT DATABASE '{directory}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{file}'",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET memory_limit = '100GB'",
    "RESET enable_external_access",
    "PRAGMA enable_external_access",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CREATE TABLE t (a INT)",
    "CREATE VIEW steps AS SELECT 1",
    "CREATE SECRET (TYPE s3)",
    "INSERT INTO steps VALUES (1)",
    "UPDATE steps SET step = 1",
    "DELETE FROM steps",
    "DROP VIEW steps",
    "ALTER TABLE steps ADD COLUMN a INT",
    "PREPARE p AS SELECT 1",
    "CHECKPOINT",
    "USE memory",
    "BEGIN",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_a_query_can_neither_read_a_file_nor_write_one_nor_change_anything(tmp_path: Path, statement: str) -> None:
    small = small_store(tmp_path / "home", 1)
    secret = tmp_path / "secret.csv"
    secret.write_text("word\nxyzzy\n")
    before = files(tmp_path)
    part = Store(tmp_path / "home" / "store").read().tables["steps"][0].file
    names = {"file": secret, "directory": tmp_path, "new": tmp_path / "new", "part": tmp_path / "home/store" / part}
    with pytest.raises(QueryError) as caught:
        small.query(statement.format(**names))
    assert "xyzzy" not in str(caught.value)
    assert files(tmp_path) == before
    assert small.rows("SELECT count(*) AS n FROM steps") == [{"n": 10}]


def test_a_name_in_a_query_is_never_a_variable_of_the_program(tmp_path: Path) -> None:
    secret = reader.pa.table({"a": [1]})
    for name in ("secret", "connection", "statements", "pa"):
        with pytest.raises(QueryError, match="does not exist"):
            Reader(tmp_path).query(f"SELECT * FROM {name}")
    assert secret.num_rows == 1


@pytest.mark.parametrize(
    ("sql", "message", "remedy"),
    [
        ("SELECT * FROM step", "step does not exist", "did you mean steps"),
        ("SELECT los FROM steps", '"los" not found', "did you mean loss"),
        ("SELECT steps.grad_norm FROM steps", "grad_norm", "did you mean gradient_norm"),
        ("SELECT FROM WHERE", "syntax error", "events tables"),
        ("SELECT loss + {} FROM steps", "", "events tables"),
        ("SELECT 1; SELECT 2", "2 statements", "one SELECT"),
        ("", "no statement", "one SELECT"),
        ("-- nothing", "no statement", "one SELECT"),
        ("DROP VIEW steps", "DROP is not allowed", "SELECT"),
        ("SELECT error('stop here')", "stop here", ""),
    ],
)
def test_a_bad_query_gives_one_line_and_what_to_do(tmp_path: Path, sql: str, message: str, remedy: str) -> None:
    spool(tmp_path, line(1))
    collect(tmp_path)
    with pytest.raises(QueryError) as caught:
        Reader(tmp_path / "store").query(sql)
    error = caught.value
    assert message in error.message
    assert remedy in error.remedy
    assert "\n" not in error.message
    assert isinstance(error, UsageError)
    assert isinstance(error, TelemetryError)
    assert error.exit_code == 2


@given(st.text())
def test_any_text_is_answered_or_refused(tmp_path_factory: pytest.TempPathFactory, sql: str) -> None:
    with contextlib.suppress(QueryError):
        Reader(tmp_path_factory.getbasetemp() / "no store").query(sql)


def test_a_query_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="more than 1GiB of memory"):
        Reader(tmp_path).query("SELECT list(a) FROM (SELECT repeat('x', 1000) || i AS a FROM range(4000000) t(i))")


# ---- damage


@pytest.mark.parametrize("how", ["cut", "empty", "altered", "missing"])
def test_a_damaged_part_is_named_and_left_out_and_the_others_answer(tmp_path: Path, how: str) -> None:
    small = small_store(tmp_path)
    part = Store(tmp_path / "store").read().tables["steps"][1]
    path = tmp_path / "store" / part.file
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "altered": data[:99] + b"!" + data[100:]}[how])
    for looking in (small, Reader(tmp_path / "store")):
        assert looking.rows("SELECT count(*) AS n, max(step) AS newest FROM steps") == [{"n": 20, "newest": 29}]
        (damaged,) = looking.damaged
        assert (damaged.path, damaged.table, damaged.rows) == (path, "steps", 10)
        assert str(path) in str(damaged)
        assert "its 10 rows of steps are left out" in str(damaged)
        assert looking.counts()["steps"] == 20
        assert looking.rows("SELECT count(*) AS n FROM sources") == [{"n": 1}], "other tables are not touched"


def test_a_part_that_is_damaged_while_it_is_open_is_left_out_then(tmp_path: Path) -> None:
    small = small_store(tmp_path)
    assert small.rows("SELECT count(step) AS n FROM steps") == [{"n": 30}]
    path = tmp_path / "store" / Store(tmp_path / "store").read().tables["steps"][1].file
    path.write_bytes(path.read_bytes()[:100])
    assert small.rows("SELECT sum(step) AS s FROM steps") == [{"s": sum(range(10)) + sum(range(20, 30))}]
    assert [damaged.path for damaged in small.damaged] == [path]


def test_every_altered_byte_of_a_part_is_noticed(tmp_path: Path) -> None:
    small_store(tmp_path, 1)
    path = tmp_path / "store" / Store(tmp_path / "store").read().tables["steps"][0].file
    data = path.read_bytes()
    for place in range(0, len(data), 251):
        altered = bytearray(data)
        altered[place] ^= 1
        path.write_bytes(altered)
        looking = Reader(tmp_path / "store")
        assert looking.rows("SELECT count(*) AS n FROM steps") == [{"n": 0}]
        assert [damaged.reason for damaged in looking.damaged] == ["was altered"]


def test_a_part_that_was_merged_away_meanwhile_is_looked_for_in_the_newer_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reader's look at the manifest and its query, parts are merged and the old ones deleted."""
    sink = emitter(tmp_path)
    for number in range(7):
        emit_steps(sink, [number])
        collect(tmp_path)
    looking = Reader(tmp_path / "store")
    looking.rows("SELECT count(*) FROM steps")
    real, overtaken = Reader._run, []

    def run(self: Reader, *arguments: object) -> object:
        if not overtaken:
            overtaken.append(1)
            monkeypatch.setattr(collector, "KEEP_PARTS_S", -1)
            emit_steps(sink, [7])
            collect(tmp_path)
            sink.close()
            collect(tmp_path)
        return real(self, *arguments)

    monkeypatch.setattr(Reader, "_run", run)
    assert looking.rows("SELECT sum(step) AS s FROM steps") == [{"s": sum(range(8))}]
    assert looking.damaged == ()


def test_without_a_usable_manifest_nothing_is_answered(tmp_path: Path) -> None:
    small = small_store(tmp_path)
    newest = max((tmp_path / "store").glob("manifest-*"))
    newest.write_bytes(b"{}")
    for ask in (small.counts, lambda: small.rows("SELECT 1")):
        with pytest.raises(StoreDamaged, match="manifest"):
            ask()


def test_a_part_of_a_newer_version_shows_the_columns_that_are_known(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    rows = collector.parts.build("steps", [[None] * len(collector.parts.COLUMNS["steps"])])
    older = rows.select(["source", "seq", "step"])
    newer = rows.append_column("invented_later", reader.pa.array([7]))
    written = tuple(store.write_part("steps", table, 1) for table in (older, newer))
    store.commit(reader.Manifest(version=1, tables={"steps": written}))
    answer = Reader(tmp_path / "store").query("SELECT * FROM steps")
    assert len(answer.rows) == 2
    assert answer.columns == tuple(column.name for column in collector.parts.COLUMNS["steps"])
