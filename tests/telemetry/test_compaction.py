"""Which parts are merged: the number of files stays small, each row is rewritten rarely."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from phalanx.telemetry.compaction import FAN, LARGE_BYTES, choose
from phalanx.telemetry.manifest import Part


def part(rows: int, size: int = 100, damaged: bool = False) -> Part:
    return Part(f"{rows}", rows, size, "", damaged)


def test_few_parts_are_left_alone() -> None:
    assert choose([]) == []
    assert choose([part(1)] * (FAN - 1)) == []


def test_eight_of_a_size_are_merged_oldest_first() -> None:
    parts = [part(rows) for rows in (100, 1, 2, 3, 4, 5, 6, 7, 1, 2)]
    assert choose(parts) == parts[1:9]


def test_damaged_and_large_ones_are_never_chosen() -> None:
    assert choose([part(1, damaged=True)] * 20) == []
    assert choose([part(1, LARGE_BYTES)] * 20) == []


@given(st.lists(st.integers(1, 50), min_size=1, max_size=600))
def test_after_any_rounds_there_are_few_parts_and_all_rows(rounds: list[int]) -> None:
    parts: list[Part] = []
    rewritten = 0
    for rows in rounds:
        parts.append(part(rows))
        while group := choose(parts):
            for one in group:
                parts.remove(one)
            merged = sum(one.rows for one in group)
            rewritten += merged
            parts.append(part(merged))
    total = sum(rounds)
    assert sum(one.rows for one in parts) == total
    sizes = int(math.log(total, FAN)) + 1
    assert len(parts) <= (FAN - 1) * sizes
    assert rewritten <= total * sizes
