"""Every operation over every transport against the same arithmetic elsewhere, bit for bit; and what mistakes are told."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.collectives import jobs
from tests.collectives.arithmetic import COMPLEX, EVERY_DTYPE, FLOATS, alike, reduced
from tests.collectives.crew import CONTEXT, Crew, Failure, Kind, crew, name_of_transport
from tests.collectives.jobs import Case, received

CONTEXT.set_forkserver_preload(["tests.collectives.jobs", "phalanx.collectives"])

KINDS = [Kind("gloo", 3), Kind("shared-memory", 3), Kind("hierarchical", 4, hosts=2)]
NAMES = {"gloo": "Torch", "shared-memory": "SharedMemory", "hierarchical": "Hierarchical"}
# Of no elements, of one, of a few, and some that are too large to travel at once (64 KiB).
SHAPES = st.one_of(
    st.sampled_from([(), (0,), (1,), (3, 0), (40_003,), (4, 9_000)]),
    st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple),
)
SCALES = st.sampled_from([1.0, 1.0, 0.5, 3.0, -1.25])
CASES = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", params=KINDS, ids=str)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """For tests that leave the group whole."""
    with crew(request.param, tmp_path_factory.mktemp("crew")) as together:
        assert set(together.tell(name_of_transport)) == {NAMES[request.param.transport]}
        yield together


@pytest.fixture(params=KINDS, ids=str)
def doomed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """For tests that break it."""
    with crew(request.param, tmp_path_factory.mktemp("doomed")) as together:
        yield together


def levels(ranks: Crew, inputs: list[torch.Tensor], case: Case) -> torch.Tensor:
    """The documented order: in rank order on each host, then hosts in order."""
    per_host = len(inputs) // ranks.kind.hosts
    if ranks.kind.hosts == 1:
        return reduced(inputs, case.op, case.prescale, case.postscale)
    whole = case.op == "average" and not (case.dtype.is_floating_point or case.dtype.is_complex)
    hosts = [inputs[first : first + per_host] for first in range(0, len(inputs), per_host)]
    sums = [reduced(host, "sum" if whole else case.op, case.prescale) for host in hosts]
    return reduced(sums, case.op, 1.0, case.postscale, divisor=len(inputs) if whole else None)


@st.composite
def reductions(draw: st.DrawFn) -> Case:
    dtype = draw(st.sampled_from(EVERY_DTYPE))
    ops = ["sum", "product"] if dtype in COMPLEX else ["sum", "min", "max", "product"]
    op = draw(st.sampled_from(ops if dtype is torch.bool else [*ops, "average"]))
    scales = (1.0, 1.0) if dtype is torch.bool else (draw(SCALES), draw(SCALES))
    kind = draw(st.sampled_from(["allreduce", "allreduce in place", "reducescatter", "reduce"]))
    shape = draw(SHAPES)
    root, seed, asynchronous = draw(st.integers(0, 2)), draw(st.integers(0, 10**6)), draw(st.booleans())
    return Case(kind, dtype, shape, op, *scales, root, (), seed, asynchronous)


@CASES
@given(case=reductions())
def test_reductions_equal_the_documented_sum_bit_for_bit(ranks: Crew, case: Case) -> None:
    inputs = case.inputs(ranks.size)
    expected = levels(ranks, inputs, case)
    answers = ranks.tell(jobs.on_transport, case)
    assert not any(isinstance(answer, Failure) for answer in answers), answers
    results = [received(answer) for answer in answers]
    if case.kind == "reducescatter":
        wanted = torch.split(expected.reshape(-1), jobs.pieces(expected.numel(), ranks.size))
    elif case.kind == "reduce":
        wanted = tuple(expected if rank == case.root else tensor for rank, tensor in enumerate(inputs))
    else:
        wanted = (expected,) * ranks.size
    for result, right in zip(results, wanted, strict=True):
        assert alike(result, right), (result, right)


def test_a_reduction_in_several_segments_equals_the_documented_sum(ranks: Crew) -> None:
    case = Case("allreduce", torch.bfloat16, (5_000_001,), "average", seed=3)
    expected = levels(ranks, case.inputs(ranks.size), case)
    assert all(alike(received(answer), expected) for answer in ranks.tell(jobs.on_transport, case))


@pytest.mark.parametrize("kind", [Kind("gloo", 2), Kind("hierarchical", 6, hosts=3)], ids=str)
def test_two_ranks_in_one_move_and_three_hosts_in_two_get_the_documented_sum(kind: Kind, tmp_path: Path) -> None:
    with crew(kind, tmp_path) as ranks:
        for dtype, elements in ((torch.float16, 1_700_003), (torch.float32, 30_001), (torch.int32, 90_007)):
            for what in ("allreduce", "allreduce in place", "reducescatter"):
                case = Case(what, dtype, (elements,), "average", seed=elements)
                expected = levels(ranks, case.inputs(ranks.size), case)
                cut = jobs.pieces(elements, ranks.size)
                wanted = torch.split(expected, cut) if what == "reducescatter" else (expected,) * ranks.size
                for answer, right in zip(ranks.tell(jobs.on_transport, case), wanted, strict=True):
                    assert alike(received(answer), right), (dtype, what)


@st.composite
def moves(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(["broadcast", "allgather", "gather", "allgather_ragged", "alltoall_ragged"]))
    dtype, shape = draw(st.sampled_from(EVERY_DTYPE)), draw(SHAPES)
    rows = tuple(draw(st.lists(st.integers(0, 9), min_size=4, max_size=4))) if kind.endswith("ragged") else ()
    if rows and math.prod(shape) > 10_000:
        shape = shape[1:]
    root, seed, asynchronous = draw(st.integers(0, 2)), draw(st.integers(0, 10**6)), draw(st.booleans())
    return Case(kind, dtype, shape, root=root, rows=rows, seed=seed, asynchronous=asynchronous)


@CASES
@given(case=moves())
def test_moved_tensors_arrive_as_they_were(ranks: Crew, case: Case) -> None:
    inputs = case.inputs(ranks.size)[: ranks.size]
    answers = ranks.tell(jobs.on_transport, case)
    assert not any(isinstance(answer, Failure) for answer in answers), answers
    for rank, answer in enumerate(answers):
        if case.kind == "broadcast":
            assert alike(received(answer), inputs[case.root])
        elif case.kind == "allgather":
            assert alike(received(answer), torch.stack(inputs))
        elif case.kind == "gather":
            assert answer is None if rank != case.root else alike(received(answer), torch.stack(inputs))
        elif case.kind == "allgather_ragged":
            assert alike(received(answer), torch.cat(inputs))
        else:
            splits = [jobs.pieces(len(tensor), ranks.size) for tensor in inputs]
            parts = [torch.split(tensor, split)[rank] for tensor, split in zip(inputs, splits, strict=True)]
            assert alike(received(answer[0]), torch.cat(parts))
            assert answer[1] == [len(part) for part in parts]


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_grouped_operations_equal_single_ones_bit_for_bit(ranks: Crew, data: st.DataObject) -> None:
    dtypes = data.draw(st.lists(st.sampled_from(FLOATS), min_size=1, max_size=6))
    shapes = [data.draw(st.sampled_from([(), (0,), (1,), (5, 3), (2, 7), (11,), (3, 2, 2)])) for _ in dtypes]
    for answer in ranks.tell(jobs.grouped_and_single, dtypes, shapes, data.draw(st.integers(0, 1000))):
        assert not isinstance(answer, Failure), answer
        for together, single in answer:
            assert all(alike(received(a), received(b)) for a, b in zip(together, single, strict=True))


@pytest.mark.parametrize("op", ["sum", "average"])
def test_sparse_tensors_are_added_up_as_dense_ones(ranks: Crew, op: str) -> None:
    for seed in range(5):
        answers = ranks.tell(jobs.sparse_sum, op, 50 + 10 * seed, torch.int32 if seed % 2 else torch.float64)
        dense = [received(own) for own, _, _ in answers]
        expected = (
            sum(dense) if op == "sum" or seed % 2 == 0 else torch.div(sum(dense), ranks.size, rounding_mode="trunc")
        )
        if op == "average" and seed % 2 == 0:
            expected = expected / ranks.size
        for _, new, in_place in answers:
            torch.testing.assert_close(received(new), expected, rtol=1e-12, atol=0, equal_nan=True)
            assert alike(received(in_place), received(new))


def test_uneven_data_ends_when_the_last_rank_has_joined(ranks: Crew) -> None:
    batches = (4, 1, 3, 0)[: ranks.size]
    answers = ranks.tell(jobs.until_i_join, batches)
    assert [last for _, last in answers] == [0] * ranks.size
    for rank, (seen, _) in enumerate(answers):
        assert len(seen) == batches[rank]
        for batch, (tensor, rows, least, piece) in enumerate(seen):
            here = [r for r in range(ranks.size) if batches[r] > batch]
            total = float(sum(r + 1 for r in here))
            assert tensor == [total if batch % 2 else total / ranks.size] * 5
            assert rows == here
            assert least == here[0] + 1
            assert piece == [float(len(here))] * (3 if rank == 0 else 2)


def test_subgroups_overlap_and_know_their_ranks(ranks: Crew) -> None:
    last = ranks.size - 1
    answers = ranks.tell(jobs.in_subgroups)
    assert answers[0] == [
        ([0, last], 0, 2, (0, last), 1.0 + 10.0**last),
        ([1, 0], 1, 2, (1, 0), 11.0),
    ]
    assert answers[1] == [([1, 0], 0, 2, (1, 0), 11.0), ([1], 0, 1, (1,), 10.0)]
    assert answers[last] == [([0, last], 1, 2, (0, last), 1.0 + 10.0**last)]


def test_subgroups_that_were_closed_are_forgotten(ranks: Crew) -> None:
    assert ranks.tell(jobs.subgroups_still_held) == [0] * ranks.size


def test_objects_come_back_alike_and_others_are_named(ranks: Crew) -> None:
    mine = [{"rank": rank, "list": [None, True, 1.5, "é"], "deep": {"x": [rank]}} for rank in range(ranks.size)]
    assert ranks.tell(jobs.objects_of_all) == [(mine, mine[1])] * ranks.size
    for failure in ranks.tell(jobs.an_object_that_cannot_be_sent):
        assert failure.kind == "CollectiveError"
        assert "settings: the object['model'][1]['weights'] is of type torch.Tensor" in failure.message


def test_an_object_that_cannot_be_sent_is_told_to_those_who_wait_for_it(ranks: Crew) -> None:
    told = "broadcast_object settings: a key of the object is 1, of type int"
    assert ranks.tell(jobs.an_object_that_only_the_root_sees) == [(told, [ranks.size])] * ranks.size


def test_compression_rounds_each_ranks_numbers_and_the_average_once(ranks: Crew) -> None:
    case = Case("allreduce", torch.float32, (50,), "average", seed=7)
    narrow = [tensor.to(torch.bfloat16) for tensor in case.inputs(ranks.size)]
    expected = levels(ranks, narrow, Case("allreduce", torch.bfloat16, (50,), "average")).to(torch.float32)
    for half, whole in ranks.tell(jobs.compressed, 7):
        assert alike(received(half), expected)
        assert whole == [3 * ranks.size]


MISTAKES = ["shape", "dtype", "reduction", "operation", "order", "root", "columns", "one of many"]


@pytest.mark.parametrize("what", [*MISTAKES, "sparse shape", "sparse reduction"])
def test_a_mistake_of_one_rank_raises_on_all_with_both_calls(doomed: Crew, what: str) -> None:
    answers = doomed.tell(jobs.different, what)
    others = "ranks " + ", ".join(str(rank) for rank in range(doomed.size) if rank != 1)
    for failure in answers:
        assert isinstance(failure, Failure)
        assert failure.kind == "Mismatch"
        assert others in failure.message
        assert "rank 1: " in failure.message
        assert "'a'" in failure.message


def test_a_broadcast_while_a_rank_has_joined_names_it(doomed: Crew) -> None:
    for failure in doomed.tell(jobs.one_that_joins_and_one_that_broadcasts):
        assert failure.kind == "Mismatch"
        assert "have joined" in failure.message
        assert "rank 0: join" in failure.message
        assert "broadcast float32[3] root 1 'weights'" in failure.message


def test_the_object_of_a_rank_that_has_joined_is_refused_by_name(doomed: Crew) -> None:
    doomed.start(jobs.one_that_joins_and_others_who_want_its_object)
    for failure in doomed.hear(range(1, doomed.size)):
        assert failure.kind == "Mismatch"
        assert "broadcast_object settings: rank 0, whose object it is, has joined" in failure.message


def test_a_reduction_that_does_not_exist_is_refused_with_those_there_are(ranks: Crew) -> None:
    for failure in ranks.tell(jobs.a_reduction_that_does_not_exist):
        assert (failure.kind, failure.message) == ("CollectiveError", "there is no reduction 'mean'")


@pytest.mark.parametrize("elements", [10, 500_000])
def test_a_killed_rank_is_named_on_every_survivor_of_every_host(doomed: Crew, elements: int) -> None:
    doomed.start(jobs.sums_for_ever, elements)
    doomed.kill(1)
    survivors = [rank for rank in range(doomed.size) if rank != 1]
    for failure in doomed.hear(survivors):
        assert failure.kind == "PeerLost"
        assert failure.ranks == (1,), failure
        assert "rank 1" in failure.message
        assert "'gradients'" in failure.message
