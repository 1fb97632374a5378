"""Negotiation: whatever order ranks announce in, all are told one order, and nothing runs that not all have announced."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phalanx.horovod.coordinator import Coordinator, decode, encode
from phalanx.horovod.negotiation import End, Fail, Joined, Negotiation, Request, Response, Run, Sets, width
from phalanx.horovod.stall import Stalls
from phalanx.horovod.wire import Plain


def asked(name: str, **changes: object) -> Request:
    return replace(Request("allreduce", name, op="sum", tensors=(("float32", (4,)),)), **changes)  # type: ignore[arg-type]


def names(responses: list[Response]) -> list[str]:
    return [name for response in responses if isinstance(response, Run) for name in response.names]


@given(st.data(), st.integers(1, 4), st.integers(0, 12), st.integers(0, 200))
def test_every_operation_runs_once_when_all_have_announced_it_and_no_sooner(
    data: st.DataObject, size: int, count: int, fuse_bytes: int
) -> None:
    negotiation = Negotiation(size, fuse_bytes)
    orders = {rank: data.draw(st.permutations(range(count))) for rank in range(size)}
    turns = data.draw(st.permutations([rank for rank in range(size) for _ in range(count)]))
    announced: dict[int, set[int]] = {rank: set() for rank in range(size)}
    ran: list[str] = []
    for rank in turns:
        number = orders[rank][len(announced[rank])]
        announced[rank].add(number)
        negotiation.announce(rank, asked(f"t{number}", tensors=(("float32", (number + 1,)),)))
        if data.draw(st.booleans()):
            ran += names(negotiation.take())
            assert set(ran) <= {f"t{number}" for number in set.intersection(*announced.values())}
    ran += names(negotiation.take())
    assert sorted(ran) == sorted(f"t{number}" for number in range(count))
    assert negotiation.waiting() == {}


@given(st.lists(st.sampled_from([("float32", 10), ("float32", 60), ("float64", 10), ("int8", 40)]), max_size=20))
def test_a_bucket_holds_one_dtype_and_no_more_bytes_than_it_may(sizes: list[tuple[str, int]]) -> None:
    negotiation = Negotiation(1, fuse_bytes=100)
    requests = {f"t{i}": asked(f"t{i}", tensors=((dtype, (n,)),)) for i, (dtype, n) in enumerate(sizes)}
    for request in requests.values():
        negotiation.announce(0, request)
    for response in negotiation.take():
        assert isinstance(response, Run)
        bucket = [requests[name] for name in response.names]
        assert len({request.tensors[0][0] for request in bucket}) == 1
        assert len(bucket) == 1 or sum(request.nbytes for request in bucket) <= 100


@pytest.mark.parametrize(
    "other",
    [
        {"tensors": (("float32", (5,)),)},
        {"tensors": (("float32", (2, 2)),)},
        {"tensors": (("int32", (4,)),)},
        {"tensors": (("float32", (4,)), ("float32", (4,)))},
        {"op": "min"},
        {"prescale": 2.0},
        {"postscale": 2.0},
        {"device": "cuda"},
        {"kind": "broadcast", "root": 0},
    ],
)
def test_what_the_ranks_mean_differently_fails_under_its_name_alone_and_says_who_meant_what(
    other: dict[str, object],
) -> None:
    negotiation = Negotiation(3)
    for rank in range(3):
        negotiation.announce(rank, asked("x", **(other if rank == 1 else {})))
        negotiation.announce(rank, asked("y"))
    failed, run = negotiation.take()
    assert isinstance(failed, Fail)
    assert failed.name == "x"
    assert "rank 0, 2: allreduce sum of float32[4]" in failed.reason
    assert f"rank 1: {asked('x', **other).described()}" in failed.reason
    assert names([run]) == ["y"]


def test_different_roots_are_told() -> None:
    negotiation = Negotiation(2)
    for rank in range(2):
        negotiation.announce(rank, Request("broadcast", "b", root=rank, tensors=(("int8", (1,)),)))
    (failed,) = negotiation.take()
    assert isinstance(failed, Fail)
    assert "from rank 0" in failed.reason
    assert "from rank 1" in failed.reason


def test_rows_may_differ_in_number_but_not_in_shape() -> None:
    for shapes, fine in (
        (((2, 3), (5, 3)), True),
        (((2, 3), (2, 4)), False),
        (((2, 3), (2,)), False),
        (((), ()), False),
    ):
        negotiation = Negotiation(2)
        for rank, shape in enumerate(shapes):
            negotiation.announce(rank, Request("allgather", "g", tensors=(("int8", shape),)))
        assert isinstance(negotiation.take()[0], Run) is fine, shapes


def test_who_has_joined_is_not_waited_for_and_the_last_is_told() -> None:
    negotiation = Negotiation(3)
    negotiation.announce(0, asked("early"))
    negotiation.announce(2, asked("early"))
    negotiation.join(1)
    assert names(negotiation.take()) == ["early"]
    negotiation.announce(0, Request("allgather", "g", tensors=(("int8", (1,)),)))
    negotiation.announce(2, Request("allgather", "g", tensors=(("int8", (1,)),)))
    (refused,) = negotiation.take()
    assert isinstance(refused, Fail)
    assert "while rank 1 has joined" in refused.reason
    negotiation.join(2)
    negotiation.join(0)
    assert negotiation.take() == [Joined(0)]
    negotiation.announce(0, asked("after"))
    assert negotiation.take() == []


def test_sets_are_made_removed_and_fail_what_waits_in_them() -> None:
    negotiation = Negotiation(3)

    def change(kind: str, *members: int) -> list[Response]:
        for rank in range(3):
            negotiation.announce(rank, Request(kind, kind, members=members))  # type: ignore[arg-type]
        return negotiation.take()

    assert change("add set", 0, 2) == [Sets({0: (0, 1, 2), 1: (0, 2)}, "add set", 1)]
    assert change("add set", 0, 2) == [Sets({0: (0, 1, 2), 1: (0, 2)}, "add set")]  # there is one
    assert change("add set", 0, 1, 2) == [Sets({0: (0, 1, 2), 1: (0, 2)}, "add set")]
    for rank in (0, 2):
        negotiation.announce(rank, asked("x", process_set=1))
    assert names(negotiation.take()) == ["x"]
    negotiation.announce(0, asked("left over", process_set=1))
    failed, changed = change("remove set", 1)
    assert isinstance(failed, Fail)
    assert failed.name == "left over"
    assert changed == Sets({0: (0, 1, 2)}, "remove set", 1)
    assert change("remove set", 1) == [Sets({0: (0, 1, 2)}, "remove set")]
    assert change("remove set", 0) == [Sets({0: (0, 1, 2)}, "remove set")]
    negotiation.announce(2, asked("late", process_set=1))
    assert isinstance(negotiation.take()[0], Fail)
    assert change("add set", 1) == [Sets({0: (0, 1, 2), 2: (1,)}, "add set", 2)]  # an id is never used again


def test_elements_are_as_wide_as_torchs() -> None:
    dtypes = [found for found in vars(torch).values() if isinstance(found, torch.dtype) and not _is_odd(found)]
    assert len(dtypes) > 20
    for dtype in dtypes:
        assert width(str(dtype).removeprefix("torch.")) == dtype.itemsize, dtype


def _is_odd(dtype: torch.dtype) -> bool:
    """Of no use in sums: quantized, and integers of fewer bits than a byte."""
    name = str(dtype)
    return (
        "qint" in name or "quint" in name or any(f"int{bits}" == name.split(".")[1].lstrip("u") for bits in range(1, 8))
    )


def test_a_name_that_waits_in_two_sets_is_shown_twice() -> None:
    negotiation = Negotiation(2)
    for rank in range(2):
        negotiation.announce(rank, Request("add set", "add", members=(1,)))
    negotiation.take()
    negotiation.announce(0, asked("x"))
    negotiation.sets[1] = (0, 1)
    negotiation.announce(1, asked("x", process_set=1))
    assert negotiation.waiting() == {"x": ([0], [1]), "x of process set 1": ([1], [0])}


def test_ranks_that_disagree_on_a_process_set_are_told() -> None:
    negotiation = Negotiation(2)
    for rank in range(2):
        negotiation.announce(rank, Request("add set", "process_set.add", members=(0, rank)))
    (failed,) = negotiation.take()
    assert isinstance(failed, Fail)
    assert "rank 0: add set [0, 0]; rank 1: add set [0, 1]" in failed.reason


@given(
    st.lists(
        st.one_of(
            st.builds(Run, st.integers(0, 9), st.tuples(st.text(), st.text()), st.tuples(st.just(asked("a", root=2)))),
            st.builds(Fail, st.integers(0, 9), st.text(), st.text()),
            st.builds(Joined, st.integers(0, 9)),
            st.builds(Sets, st.dictionaries(st.integers(0, 9), st.tuples(st.integers(0, 9))), st.text(), st.just(3)),
            st.builds(End, st.text(), st.integers(-1, 9)),
        )
    )
)
def test_what_is_told_survives_the_wire(responses: list[Response]) -> None:
    assert decode(json.loads(json.dumps(encode(responses)))) == responses


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(), lambda inner: st.lists(inner, max_size=5)))
def test_anything_else_is_refused(message: object) -> None:
    refused = pytest.raises((ValueError, IndexError))
    if message == [] or (isinstance(message, list) and message == [["join"]]):
        return
    with refused:
        decode(message if isinstance(message, list) and message else None)
    coordinator = Coordinator(2, 0, Stalls())
    with refused:
        coordinator.hear(0, message if not isinstance(message, list) else [message])  # type: ignore[arg-type]


def test_a_request_that_comes_again_is_called_by_its_number() -> None:
    coordinator = Coordinator(2, 0, Stalls())
    first: list[Plain] = [asked("a").encode(), ["number", asked("b").encode()]]
    again: list[Plain] = [asked("a").encode(), 0]
    for message in (first, again):
        assert coordinator.hear(0, json.loads(json.dumps(message))) == []
        assert coordinator.hear(1, message) == [Run(0, ("a",)), Run(0, ("b",))]
    assert coordinator.hear(1, [["join"]]) == []
    (run,) = coordinator.hear(0, [0])
    assert run == Run(0, ("b",), (asked("b"),))  # described for rank 1, which has joined
    assert coordinator.hear(0, [["bye", "done"]]) == [End("done")]
    assert coordinator.hear(1, [["failed", "out of luck"]]) == [End("out of luck", lost=1)]
