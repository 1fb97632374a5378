"""How samples are dealt out among ranks that change within an epoch, judged by sets of indices."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import phalanx.horovod.torch as hvd
from tests.horovod.crew import Crews


def process(length: int, options: dict[str, Any], state: dict[str, Any], batch: int, count: int) -> Any:
    """Go on from `state` for `count` batches: what was dealt to this rank, what it has processed, and where it is."""
    sampler = hvd.elastic.ElasticSampler(range(length), **options)
    sampler.load_state_dict(state)
    dealt = list(sampler)
    assert len(sampler) == len(dealt)
    processed = []
    for number in range(count):
        mine = dealt[number * batch : (number + 1) * batch]
        if mine:
            processed += mine
            sampler.record_batch(number, len(mine))
    return dealt, processed, sampler.state_dict()


@settings(max_examples=30, deadline=None)
@given(
    length=st.integers(0, 40),
    options=st.fixed_dictionaries({"shuffle": st.booleans(), "seed": st.integers(0, 9)}),
    epoch=st.integers(0, 3),
    parts=st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=4),
)
def test_what_groups_of_any_size_leave_over_is_dealt_to_the_next_all_of_it_and_nothing_else(
    crew: Crews, length: int, options: dict[str, Any], epoch: int, parts: list[tuple[int, int, int]]
) -> None:
    state = {"epoch": epoch, "processed_num": 0}
    seen: set[int] = set()
    for size, batch, count in parts:
        told = crew(size).tell(process, length, options, state, batch, count)
        dealt = Counter(index for mine, _, _ in told for index in mine)
        assert dealt.keys() == set(range(length)) - seen
        assert len({len(mine) for mine, _, _ in told}) == 1, "all have as many"
        assert dealt.total() - len(dealt) < size, "no more twice than it takes"
        seen |= {index for _, processed, _ in told for index in processed}
        state = told[0][2]
        assert all(other == state for _, _, other in told)


# What a real Horovod 0.28.1 said, for 12 samples and seed 3.
FIRST = [1, 7, 10, 0, 6, 11, 4, 5, 2, 8, 9, 3]
THIRD = [10, 2, 11, 7, 1, 3, 6, 0, 8, 5, 4, 9]


def order_of_horovod() -> None:
    sampler = hvd.elastic.ElasticSampler(range(12), seed=3)
    assert list(sampler) == FIRST
    sampler.set_epoch(2)
    assert list(sampler) == THIRD
    sampler.record_batch(0, 5)
    assert list(sampler) == THIRD, "until it is dealt out anew"
    sampler.reset()
    assert list(sampler) == THIRD[5:]
    sampler.set_epoch(0)
    assert list(sampler) == FIRST
    assert list(hvd.elastic.ElasticSampler(range(12), shuffle=False)) == list(range(12))


def test_the_order_is_that_of_horovod_and_another_in_each_epoch(crew: Crews) -> None:
    crew(1).tell(order_of_horovod)


def loaded() -> list[int]:
    sampler = hvd.elastic.ElasticSampler(list(range(100, 121)))
    loader = DataLoader(sampler.dataset, batch_size=4, sampler=sampler)  # type: ignore[arg-type]
    assert len(loader) == 2
    return [int(value) for batch in loader for value in batch]


def test_a_loader_takes_it_as_any_sampler(crew: Crews) -> None:
    assert sorted(value for mine in crew(3).tell(loaded) for value in mine) == list(range(100, 121))
