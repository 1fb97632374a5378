"""Sorting on disk, compared with Python's own sort."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data.build import external_sort
from phalanx.data.build.external_sort import RunWriter, merged, open_rows, sorted_rows, write_rows

FEW = st.integers(0, 3)  # many ties
ANY = st.integers(0, 2**64 - 1)
TABLES = st.integers(1, 3).flatmap(
    lambda columns: st.lists(st.tuples(*[st.one_of(FEW, ANY)] * columns), max_size=60).map(lambda rows: (columns, rows))
)


@settings(max_examples=60, deadline=None)
@given(TABLES, st.integers(1, 2000), st.integers(1, 20), st.booleans())
def test_runs_and_their_merge_are_a_sort(
    tmp_path_factory: pytest.TempPathFactory,
    table: tuple[int, list[tuple[int, ...]]],
    memory: int,
    at_once: int,
    distinct: bool,
) -> None:
    columns, rows = table
    directory = tmp_path_factory.mktemp("sort")
    writer = RunWriter(directory / "run", columns, memory, distinct=distinct)
    for first in range(0, len(rows), at_once):
        writer.add(np.array(rows[first : first + at_once], np.uint64).reshape(-1, columns))
    blocks = list(merged(writer.close(), columns, memory, directory, distinct=distinct))
    found = [tuple(row) for block in blocks for row in block.tolist()]
    assert found == sorted(set(rows) if distinct else rows)
    assert all(len(block) for block in blocks)


def test_more_runs_than_are_merged_at_once_need_no_more_memory_or_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_sort, "FAN_IN", 3)
    rows = np.random.default_rng(0).integers(0, 50, (2000, 2)).astype(np.uint64)
    writer = RunWriter(tmp_path / "run", 2, 16 * 40)
    for row in rows:
        writer.add(row[None])
    runs = writer.close()
    assert len(runs) == 50
    most = 0
    found = []
    for block in merged(runs, 2, 16 * 3 * 16, tmp_path):
        most = max(most, len(block))
        found += block.tolist()
    assert found == sorted(rows.tolist())
    assert most <= 4 * 3 * 16
    assert sorted(tmp_path.iterdir()) == sorted(runs)  # what was merged on the way is gone


def test_ties_in_the_first_column_are_broken_by_the_others() -> None:
    rows = np.array([[5, 1, 9], [5, 1, 2], [5, 0, 7], [1, 9, 9]], np.uint64)
    assert sorted_rows(rows).tolist() == [[1, 9, 9], [5, 0, 7], [5, 1, 2], [5, 1, 9]]


def test_no_rows_are_no_blocks(tmp_path: Path) -> None:
    assert RunWriter(tmp_path / "run", 2, 1000).close() == []
    assert list(merged([], 2, 1000, tmp_path)) == []
    assert write_rows(tmp_path / "empty", iter(())) == 0
    assert open_rows(tmp_path / "empty", 2).shape == (0, 2)
