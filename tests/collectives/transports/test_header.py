"""Headers and names: what two ranks say must differ where their calls do, however long it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.collectives.errors import CollectiveError, Mismatch
from phalanx.collectives.transports.header import HEADER_BYTES, Header, refuse_mismatch
from phalanx.collectives.transports.transport import shorten


@given(st.text(max_size=300), st.text(max_size=300), st.integers(16, 100))
def test_a_shortened_name_fits_and_stays_different(one: str, other: str, most: int) -> None:
    assert len(shorten(one, most).encode()) <= most
    assert (shorten(one, most) == shorten(other, most)) == (one == other)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=2000), st.integers(0, 20))
def test_a_header_of_any_name_comes_back_in_its_size(name: str, dimensions: int) -> None:
    header = Header("allreduce", "sum", "float32", tuple(range(dimensions)), name=name)
    data = header.encode()
    assert len(data) == HEADER_BYTES
    found = Header.decode(data)
    assert (found.kind, found.shape) == ("allreduce", header.shape)
    assert found.name == name or len(name.encode()) > 60


def test_long_names_that_begin_alike_are_told_apart() -> None:
    sent = [Header("allreduce", "sum", "float32", (4,), name=f"{'layer.' * 200}{rank}").encode() for rank in range(2)]
    with pytest.raises(Mismatch, match=r"rank 0: .*; rank 1: "):
        refuse_mismatch([Header.decode(data) for data in sent], (0, 1), 1)


def test_a_shape_too_long_for_a_header_is_refused() -> None:
    with pytest.raises(CollectiveError, match="600 dimensions"):
        Header("allreduce", "sum", "float32", (1,) * 600).encode()
