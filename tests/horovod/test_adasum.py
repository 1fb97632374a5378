"""Adasum against the paper's formula in numpy, on real ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phalanx.collectives import CollectiveError, Group, Membership, join
from phalanx.horovod.adasum import adasum
from tests.collectives.crew import CONTEXT, Crew, Failure, Kind, crew
from tests.collectives.jobs import received, sent

CONTEXT.set_forkserver_preload(["tests.collectives.jobs", "phalanx.horovod.adasum"])

KINDS = [Kind("shared-memory", 2), Kind("shared-memory", 4), Kind("shared-memory", 8), Kind("hierarchical", 4, hosts=2)]
# Beside the inputs, whose sum may be small; a few units in the last place of each level.
CLOSE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
Vectors = Sequence[np.ndarray]  # one a rank


@pytest.fixture(scope="module", params=KINDS, ids=str)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with crew(request.param, tmp_path_factory.mktemp("adasum")) as together:
        yield together


def job(group: Group, packed: Sequence[Any]) -> list[Any]:
    tensors = [received(one) for one in packed]
    adasum(group, tensors)
    return [sent(tensor) for tensor in tensors]


def transposed(group: Group, packed: Sequence[Any]) -> list[Any]:
    tensors = [received(one).t() for one in packed]
    adasum(group, tensors)
    return [sent(tensor.t()) for tensor in tensors]


def on_ranks(ranks: Crew, by_tensor: Sequence[Sequence[torch.Tensor]], do: Callable[..., Any] = job) -> Any:
    """Of each tensor the result, after a look that all ranks have the same bits. `by_tensor`: of each rank."""
    answers = ranks.tell(do, each=[([sent(of[rank]) for of in by_tensor],) for rank in range(ranks.size)])
    assert all(answer == answers[0] for answer in answers)
    return [received(one) for one in answers[0]]


def formula(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    dot, aa, bb = np.vdot(a, b), np.vdot(a, a), np.vdot(b, b)
    return (1 - (dot / (2 * aa) if aa else 0)) * a + (1 - (dot / (2 * bb) if bb else 0)) * b


def expected(vectors: Vectors) -> np.ndarray:
    """Halves first: a tree over neighbours."""
    if len(vectors) == 1:
        return vectors[0]
    half = len(vectors) // 2
    return formula(expected(vectors[:half]), expected(vectors[half:]))


def random_vectors(size: int, shape: tuple[int, ...], seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    common = random.normal(size=shape)  # gradients of one model are neither orthogonal nor parallel
    return [common + random.normal(size=shape) for _ in range(size)]


def as_tensors(vectors: Vectors, dtype: torch.dtype) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(vector)).to(dtype) for vector in vectors]


def assert_is_formula_of(inputs: Sequence[torch.Tensor], found: torch.Tensor) -> None:
    exact = [tensor.double().numpy() for tensor in inputs]
    assert found.dtype is inputs[0].dtype
    error = np.linalg.norm((found.double().numpy() - expected(exact)).ravel())
    assert error <= CLOSE[found.dtype] * max(np.linalg.norm(vector.ravel()) for vector in exact)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("shape", [(1,), (3,), (17,), (150_001,), (130, 77), ()], ids=str)
def test_it_is_the_formula_of_the_paper(ranks, dtype, shape):
    inputs = as_tensors(random_vectors(ranks.size, shape, seed=len(shape) + 1), dtype)
    (found,) = on_ranks(ranks, [inputs])
    assert_is_formula_of(inputs, found)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from(list(CLOSE)), st.sampled_from([(0,), (1,), (2,), (5, 3), (40,), (2000,), (3, 0, 2)])),
        max_size=20,
    ),
    st.integers(0, 1000),
)
def test_of_many_tensors_of_many_kinds_each_is_done_on_its_own(ranks, kinds, seed):
    by_tensor = [
        as_tensors(random_vectors(ranks.size, shape, seed + number), dtype)
        for number, (dtype, shape) in enumerate(kinds)
    ]
    together = on_ranks(ranks, by_tensor)
    for inputs, found in zip(by_tensor, together, strict=True):
        assert_is_formula_of(inputs, found)


def test_orthogonal_vectors_are_added_up(ranks):
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(500, ranks.size)))[0]
    columns = [basis[:, rank] * (rank + 1) for rank in range(ranks.size)]
    (found,) = on_ranks(ranks, [as_tensors(columns, torch.float64)])
    np.testing.assert_allclose(found.numpy(), np.sum(columns, axis=0), atol=1e-12)


def test_the_same_vector_of_all_is_that_vector_and_parallel_ones_are_averaged(ranks):
    direction = np.random.default_rng(2).normal(size=300)
    same = [direction] * ranks.size
    parallel = [direction * (rank + 1) for rank in range(ranks.size)]
    found = on_ranks(ranks, [as_tensors(same, torch.float64), as_tensors(parallel, torch.float64)])
    np.testing.assert_allclose(found[0].numpy(), direction, rtol=1e-13)
    np.testing.assert_allclose(found[1].numpy(), np.mean(parallel, axis=0), rtol=1e-13)


def test_zeros_of_some_or_of_all_change_nothing(ranks):
    vectors = random_vectors(ranks.size, (64,), seed=3)
    some = [vectors[0] if rank == 0 else np.zeros(64) for rank in range(ranks.size)]
    none = [np.zeros(64)] * ranks.size
    found = on_ranks(ranks, [as_tensors(some, torch.float32), as_tensors(none, torch.float32)])
    assert torch.equal(found[0], torch.from_numpy(vectors[0]).float())
    assert torch.equal(found[1], torch.zeros(64))


@pytest.mark.parametrize("factor", [2.0**-60, 2.0**40])
def test_scaling_all_inputs_scales_the_result(ranks, factor):
    vectors = random_vectors(ranks.size, (100,), seed=4)
    scaled = [vector * factor for vector in vectors]
    plain, large = on_ranks(ranks, [as_tensors(vectors, torch.float32), as_tensors(scaled, torch.float32)])
    assert torch.equal(plain * factor, large)


def test_tensors_that_are_not_contiguous_are_changed_in_place(ranks):
    inputs = as_tensors(random_vectors(ranks.size, (30, 20), seed=5), torch.float32)
    straight, turned = on_ranks(ranks, [inputs]), on_ranks(ranks, [inputs], transposed)
    torch.testing.assert_close(turned[0], straight[0])


def test_numbers_that_are_none_spread_and_harm_no_other_tensor(ranks):
    bad = as_tensors(random_vectors(ranks.size, (50,), seed=6), torch.float32)
    bad[0][7] = float("nan")
    good = as_tensors(random_vectors(ranks.size, (50,), seed=7), torch.float32)
    found = on_ranks(ranks, [bad, good])
    assert found[0].isnan()[7]
    assert_is_formula_of(good, found[1])


def test_whole_numbers_are_refused_and_the_group_stays_whole(ranks):
    for answer in ranks.tell(job, [sent(torch.ones(3)), sent(torch.ones(3, dtype=torch.int32))]):
        assert isinstance(answer, Failure)
        assert "int32" in answer.message
    on_ranks(ranks, [[torch.ones(3)] * ranks.size])


def test_ranks_that_are_no_power_of_two_are_refused(tmp_path):
    three = Group(Membership(rank=0, size=3, rendezvous=tmp_path / "unused"), None)
    with pytest.raises(CollectiveError, match="3 ranks"):
        adasum(three, [torch.ones(3)])


def test_one_rank_keeps_what_it_has():
    tensor = torch.randn(5)
    before = tensor.clone()
    adasum(join(Membership()), [tensor])
    assert torch.equal(tensor, before)
