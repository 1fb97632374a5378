"""The spool's format: what is written line by line is read back, whatever is between the lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.events import list_files, read_chunk, read_rows
from phalanx.events.spool import encode, file_name

CONTEXT = {"source": "a", "seq": 1, "rank": -1}
texts = st.text(alphabet=st.characters())
values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts


@given(st.dictionaries(texts, values))
def test_every_row_is_one_line_and_comes_back(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, object]
) -> None:
    line = encode("steps", fields, CONTEXT)
    assert line.count(b"\n") == 1
    path = tmp_path_factory.mktemp("spool") / "file"
    path.write_bytes(line)
    (row,) = read_rows(path)
    assert (row.table, row.fields, row.context) == ("steps", fields, CONTEXT)


def test_numbers_that_are_none_come_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(encode("steps", {"a": math.nan, "b": math.inf, "c": -math.inf}, CONTEXT))
    (row,) = read_rows(path)
    assert math.isnan(row.fields["a"])
    assert (row.fields["b"], row.fields["c"]) == (math.inf, -math.inf)


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first, second = encode("steps", {"step": 1}, CONTEXT), encode("steps", {"step": 2}, CONTEXT)
    for cut in range(len(second)):
        path.write_bytes(first + second[:cut])
        chunk = read_chunk(path, 0)
        assert (len(chunk.rows), chunk.corrupt, chunk.offset) == (1, 0, len(first))
    path.write_bytes(first + second)
    assert [row.fields["step"] for row in read_chunk(path, chunk.offset).rows] == [2]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"{}",
        b"[1]",
        b"7",
        b"\xff\xfe",
        b'{"table": "steps", "row": {}, "seq": 1}',
        b'{"table": "steps", "row": [], "seq": 1, "source": "a"}',
        b'{"table": 3, "row": {}, "seq": 1, "source": "a"}',
        b'{"table": "steps", "row": {}, "seq": "1", "source": "a"}',
        b"[" * 100_000,
        b'{"table": "steps", "row": {}, "source": "a", "seq": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_line_that_is_no_row_is_counted_in_its_place(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "file"
    good = encode("steps", {}, CONTEXT)
    path.write_bytes(good + line + b"\n" + good)
    chunk = read_chunk(path, 0)
    assert [row is None for row in chunk.lines] == [False, True, False]
    assert (chunk.corrupt, len(chunk.rows)) == (1, 2)


def test_empty_lines_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\n\n" + encode("steps", {}, CONTEXT) + b"\n")
    assert (len(read_chunk(path, 0).rows), read_chunk(path, 0).corrupt) == (1, 0)


@given(st.integers(1, 400))
def test_chunks_of_any_size_give_every_row_once(tmp_path_factory: pytest.TempPathFactory, limit: int) -> None:
    path = tmp_path_factory.mktemp("spool") / "file"
    path.write_bytes(b"".join(encode("steps", {"step": step}, CONTEXT) for step in range(20)))
    offset, steps = 0, []
    while rows := (chunk := read_chunk(path, offset, limit)).rows:
        steps += [row.fields["step"] for row in rows]
        offset = chunk.offset
    assert steps == list(range(20))
    assert offset == path.stat().st_size


def test_files_are_listed_by_source_and_number_and_others_are_not(tmp_path: Path) -> None:
    for name in (file_name("b", 2), file_name("b", 10), file_name("a", 1), "notes.txt", "x.jsonl", "x.y.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / file_name("b", 1_000_000)).write_text("")
    assert [(file.source, file.number) for file in list_files(tmp_path)] == [
        ("a", 1),
        ("b", 2),
        ("b", 10),
        ("b", 1_000_000),
    ]
    assert list_files(tmp_path / "nowhere") == []


def test_a_line_is_json_that_other_programs_read() -> None:
    assert json.loads(encode("steps", {"loss": 0.5}, CONTEXT)) == {"table": "steps", **CONTEXT, "row": {"loss": 0.5}}


def test_a_listing_that_misses_a_file_while_others_are_made_is_filled_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [3, 4, 5, 8, 9]  # 6 and 7 never were
    for number in numbers:
        (tmp_path / file_name("a", number)).touch()
    glob = Path.glob

    def missing(hidden: set[int]) -> Callable[[Path, str], Iterator[Path]]:
        names = {file_name("a", number) for number in hidden}
        return lambda self, pattern: (path for path in glob(self, pattern) if path.name not in names)

    for hidden in ({4}, {3}, {3, 4}, {4, 8}, {3, 5, 8}):
        monkeypatch.setattr(Path, "glob", missing(hidden))
        assert [file.number for file in list_files(tmp_path)] == numbers
