"""The declared tables hold together: names that SQL takes, no column twice, types that exist."""

from __future__ import annotations

import keyword
import re

import pytest

from phalanx.events import COMMON, TABLES, Table

NAME = re.compile(r"[a-z][a-z0-9_]*")


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_a_table_has_a_sentence_and_columns_with_names_of_their_own(table: Table) -> None:
    assert table.doc
    names = [column.name for column in (*COMMON, *table.columns)]
    assert len(set(names)) == len(names)
    assert all(NAME.fullmatch(name) and not keyword.iskeyword(name) for name in [table.name, *names])
    assert {column.type for column in (*COMMON, *table.columns)} <= {"int64", "float64", "string", "bool"}


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_a_number_with_a_unit_in_its_name_says_the_same_unit(table: Table) -> None:
    for column in table.columns:
        if column.name.endswith("_s"):
            assert column.unit == "s", column.name
        if column.name.endswith("bytes"):
            assert column.unit == "bytes", column.name


def test_the_key_of_the_mapping_is_the_name() -> None:
    assert all(name == table.name for name, table in TABLES.items())
