"""Rows of finished operations: nccl-tests' arithmetic, and that a flood becomes few rows that lose nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.collectives.counters import bus_factor, rows
from phalanx.collectives.transports.transport import Record
from phalanx.events import TABLES


def made(sequence: int, kind: str = "allreduce", size: int = 4096, dtype: str = "float32") -> Record:
    start = 1_000_000_000 * sequence
    op = "sum" if kind == "allreduce" else ""
    shape = (size // 4,)
    return Record(sequence, kind, f"t{sequence}", op, dtype, shape, size, start, start + 10, start + 30, start + 1030)


def test_a_row_has_the_columns_of_the_table() -> None:
    (row,) = rows([made(1)], 0, "world", 2)
    assert list(row) == [column.name for column in TABLES["collectives"].columns]


def test_times_are_split_into_queue_wait_and_work() -> None:
    (row,) = rows([made(3)], 0, "world", 2)
    assert row["queued_s"] == pytest.approx(10e-9)
    assert row["waited_s"] == pytest.approx(20e-9)
    assert row["ran_s"] == pytest.approx(1000e-9)
    assert (row["sequence"], row["name"], row["shape"], row["operations"]) == (3, "t3", "1024", 1)


# The table in nccl-tests' doc/PERFORMANCE.md, for 4 ranks; sizes as its programs count them.
@pytest.mark.parametrize(
    ("kind", "factor", "whole"),
    [
        ("allreduce", 1.5, 1),
        ("reducescatter", 0.75, 1),
        ("allgather", 0.75, 4),
        ("broadcast", 1.0, 1),
        ("reduce", 1.0, 1),
        ("alltoall", 0.75, 1),
        ("gather", 0.75, 4),
    ],
)
def test_bandwidth_is_counted_as_nccl_tests_does(kind: str, factor: float, whole: int) -> None:
    (row,) = rows([made(1, kind)], 0, "world", 4)
    assert row["algorithm_bandwidth"] == pytest.approx(4096 * whole / 1e-6)
    assert row["bus_bandwidth"] == pytest.approx(4096 * whole / 1e-6 * factor)


def test_one_rank_moves_nothing_and_a_barrier_has_no_bandwidth() -> None:
    assert bus_factor("allreduce", 1) == 0
    (row,) = rows([made(1, "barrier", 0, "")], 0, "world", 2)
    assert row["algorithm_bandwidth"] is None
    assert row["bus_bandwidth"] is None


def test_up_to_the_limit_each_operation_has_its_row_and_one_more_adds_up_what_is_alike() -> None:
    few = [made(i) for i in range(1, 11)]
    assert [row["sequence"] for row in rows(few, 0, "world", 2, at_most=10)] == list(range(1, 11))
    (row,) = rows([*few, made(11)], 0, "world", 2, at_most=10)
    assert (row["operations"], row["sequence"], row["name"], row["bytes"]) == (11, 11, "", 11 * 4096)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["allreduce", "broadcast"]),
            st.sampled_from([8, 12, 4096]),
            st.sampled_from(["float32", "int8"]),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_adding_up_loses_no_operation_no_byte_and_no_time(done: list[tuple[str, int, str]]) -> None:
    records = [made(i, kind, size, dtype) for i, (kind, size, dtype) in enumerate(done, 1)]
    found = rows(records, 5, "world", 2, at_most=3)
    assert len(found) <= 8  # 2 kinds, 2 powers of two, 2 dtypes
    assert sum(row["operations"] for row in found) == len(records)
    assert sum(row["bytes"] for row in found) == sum(record.bytes for record in records)
    assert sum(row["ran_s"] for row in found) == pytest.approx(len(records) * 1e-6)
    assert sum(row["lost"] for row in found) == 5
