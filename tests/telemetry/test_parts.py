"""Parts: rows come back as they were, values that do not fit are refused, damage is seen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.events import TABLES, SpoolRow
from phalanx.telemetry import parts
from phalanx.telemetry.parts import COLUMNS, Unfit, values_of

FITTING: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(allow_nan=False),
    "string": st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    "bool": st.booleans(),
}


def rows_of(table: str) -> st.SearchStrategy[SpoolRow]:
    common = {c.name: st.none() | FITTING[c.type] for c in COLUMNS[table][:9]}
    own = {c.name: st.none() | FITTING[c.type] for c in TABLES[table].columns}
    return st.builds(SpoolRow, st.just(table), st.fixed_dictionaries({}, optional=own), st.fixed_dictionaries(common))


@given(st.data())
def test_rows_come_back_as_they_were(data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(TABLES)))
    rows = data.draw(st.lists(rows_of(table), max_size=5))
    encoded = parts.encode(parts.build(table, [values_of(row) for row in rows]))
    found = pq.read_table(pa.BufferReader(encoded)).to_pylist()
    names = [column.name for column in COLUMNS[table]]
    assert found == [{name: (row.context | row.fields).get(name) for name in names} for row in rows]


def row(table: str = "steps", **fields: Any) -> SpoolRow:
    return SpoolRow(table, fields, {"source": "a", "seq": 1})


@pytest.mark.parametrize(
    "unfit",
    [
        row("nothing"),
        row(step="1"),
        row(step=1.0),
        row(step=2**63),
        row(step=-(2**63) - 1),
        row(step=[1]),
        row(loss="0.5"),
        row(loss=True),
        row(loss=10**400),
        row("scores", model=1),
        row("scores", model={"a": 1}),
        row("scores", is_baseline=1),
        SpoolRow("steps", {}, {"source": "a", "seq": 1, "rank": "0"}),
    ],
)
def test_a_value_of_another_type_is_refused(unfit: SpoolRow) -> None:
    with pytest.raises(Unfit):
        values_of(unfit)


def test_what_a_column_can_hold_is_taken() -> None:
    values = dict(
        zip([c.name for c in COLUMNS["steps"]], values_of(row(step=True, loss=3, more=object())), strict=True)
    )
    assert (values["step"], values["loss"], values["learning_rate"]) == (1, 3.0, None)
    assert type(values["loss"]) is float
    assert "more" not in values, "columns that are not declared are left out"


def test_half_a_surrogate_pair_is_written_out() -> None:
    table = parts.build("scores", [values_of(row("scores", model="name-\udcff-ü"))])
    assert pq.read_table(pa.BufferReader(parts.encode(table))).column("model").to_pylist() == ["name-\\udcff-ü"]


def test_nan_and_infinity_are_values_and_not_nulls() -> None:
    table = parts.build("steps", [values_of(row(loss=value)) for value in (math.nan, math.inf, None)])
    assert [str(value) for value in table.column("loss").to_pylist()] == ["nan", "inf", "None"]


def test_joined_parts_keep_columns_that_only_some_have() -> None:
    old, new = pa.table({"a": [1, 2]}), pa.table({"a": [3], "b": ["x"]})
    assert parts.join([old, new]).to_pydict() == {"a": [1, 2, 3], "b": [None, None, "x"]}


def test_what_is_wrong_with_a_part_is_said(tmp_path: Path) -> None:
    path = tmp_path / "part"
    data = parts.encode(parts.build("steps", [values_of(row(step=1))]))
    digest = parts.hashlib.sha256(data).hexdigest()

    def reasons() -> tuple[str | None, str | None, bool]:
        whole = parts.fault(path, len(data), digest)
        return whole, parts.fault(path, len(data)), parts.load(path, digest) is None

    path.write_bytes(data)
    assert reasons() == (None, None, False)
    path.write_bytes(data[:-1])
    cut = f"is cut: {len(data) - 1:,} bytes instead of {len(data):,}"
    assert reasons() == (cut, cut, True)
    path.write_bytes(data + b"x")
    assert str(reasons()[0]).startswith("is longer")
    path.write_bytes(data[:50] + b"x" + data[51:])
    assert reasons() == ("was altered", None, True)
    path.unlink()
    assert reasons() == ("is missing", "is missing", True)
    path.mkdir()
    assert str(parts.fault(path, path.stat().st_size, digest)).startswith("cannot be read")
