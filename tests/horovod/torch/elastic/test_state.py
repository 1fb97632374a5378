"""What an elastic script keeps: on real ranks, whatever they do, against copies that the test makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import phalanx.horovod.torch as hvd
from phalanx.horovod.torch.elastic.state import StateHandler, get_handler_registry, set_handler_registry
from tests.horovod.crew import Crews
from tests.horovod.torch.test_functions import values

CALLS = ("train", "replace", "assign", "save", "commit", "restore", "sync")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


def kept(state: Any) -> dict[str, Any]:
    """All of it, as what can be compared."""
    found = {name: values(getattr(state, name).state_dict()) for name in ("model", "optimizer", "sampler", "other")}
    return found | {"step": state.step}


def replay(calls: list[str]) -> None:
    """Each rank has values of its own until they sync."""
    me = hvd.rank()
    model, sampler = network(me), hvd.elastic.ElasticSampler(range(100))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * (1 + me), momentum=0.9)
    state = hvd.elastic.TorchState(model, optimizer, sampler=sampler, other=network(10 + me), step=me)
    saved = kept(state)
    for number, call in enumerate(calls):
        before = kept(state)
        if call == "train":
            optimizer.zero_grad()
            model(torch.randn(4, 2)).square().sum().backward()
            optimizer.step()
            sampler.record_batch(number, 1)
            assert all(kept(state)[name] != before[name] for name in ("model", "optimizer", "sampler"))
        elif call == "replace":  # what takes the place of another is saved as it comes
            state.other = network(100 + 2 * number + me)
            saved["other"] = values(state.other.state_dict())
        elif call == "assign":
            state.step += 2
        elif call == "save":
            state.save()
            saved = kept(state)
        elif call == "commit":
            state.commit()
            saved = kept(state)
        elif call == "restore":
            state.restore()
            assert kept(state) == saved
        else:
            state.sync()
            of_rank_0 = hvd.broadcast_object(before)
            saved = kept(state)
            assert saved == of_rank_0
        if call in ("save", "commit"):
            assert kept(state) == before
        assert state.model is model, "objects stay the same, and only what is in them changes"
        assert state.optimizer is optimizer


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(CALLS), max_size=12))
@example(["train", "save", "restore", "train", "restore"])  # twice to the same
def test_it_goes_back_to_what_was_saved_last_and_all_get_what_rank_0_has(crew: Crews, calls: list[str]) -> None:
    crew(2).tell(replay, calls)


def told_of_hosts() -> list[Any]:
    """Rank 0 is told, and all hear of it at the next commit."""
    from phalanx.horovod.common.exceptions import HostsUpdatedInterrupt
    from phalanx.horovod.runner.elastic.worker import HostUpdateResult

    state = hvd.elastic.TorchState(step=0)
    heard: list[Any] = []
    for said in ([], ["removed"], ["added"], ["removed", "added"], []):
        if hvd.rank() == 0:
            for number, what in enumerate(said):
                state.on_hosts_updated(len(heard) * 10.0 + number + 1, HostUpdateResult[what])
        state.step += 1
        try:
            state.commit()
            heard.append(None)
        except HostsUpdatedInterrupt as interrupt:
            heard.append(interrupt.skip_sync)
        state.step = -1
        state.restore()
        assert state.step == len(heard), "saved before it is told"
    return heard


def test_what_rank_0_hears_of_hosts_interrupts_all_ranks_at_their_commit(crew: Crews) -> None:
    assert crew(2).tell(told_of_hosts) == [[None, True, False, False, None]] * 2


def in_a_new_group() -> None:
    sampler = hvd.elastic.ElasticSampler(range(10), shuffle=False)
    state = hvd.elastic.TorchState(sampler=sampler, step=3)
    seen: list[Any] = []
    state.register_reset_callbacks([lambda: seen.append(len(sampler)), lambda: seen.append("second")])
    state.register_reset_callbacks([lambda: seen.append("third")])
    sampler.record_batch(0, 1)
    state.on_reset()
    assert seen == [(10 - hvd.size() + 1) // hvd.size(), "second", "third"]


def test_in_a_new_group_samples_are_dealt_anew_and_then_callbacks_are_called_in_their_order(crew: Crews) -> None:
    crew(2).tell(in_a_new_group)


class Counted:
    number = 0


class CountedHandler(StateHandler):
    """Of a script."""

    def save(self) -> None:
        self.saved = self.value.number

    def restore(self) -> None:
        self.value.number = self.saved

    def sync(self) -> None:
        self.value.number = hvd.broadcast_object(self.value.number) + 100


@contextmanager
def registered(*handlers: tuple[type, type[StateHandler]]) -> Iterator[None]:
    before = get_handler_registry()
    set_handler_registry([*handlers, *before])
    try:
        yield
    finally:
        set_handler_registry(before)


def kept_by_a_handler() -> None:
    with registered((Counted, CountedHandler), (Counted, StateHandler)):
        state = hvd.elastic.TorchState(count=Counted())
    state.count.number = 7 + hvd.rank()
    state.save()
    state.count.number = 8
    state.restore()
    assert state.count.number == 7 + hvd.rank()
    state.sync()
    assert state.count.number == 107


def test_a_script_may_say_how_its_objects_are_kept_and_the_first_handler_that_fits_counts(crew: Crews) -> None:
    crew(2).tell(kept_by_a_handler)


@pytest.mark.parametrize("method", ["save", "restore", "sync"])
def test_a_handler_must_say_how(method: str) -> None:
    with pytest.raises(NotImplementedError):
        getattr(StateHandler(1), method)()


def without_anything() -> None:
    state = hvd.elastic.TorchState()
    for call in (state.save, state.restore, state.sync, state.commit, state.on_reset):
        call()
    assert (state.model, state.optimizer) == (None, None)


def test_a_state_of_nothing_can_be_kept(crew: Crews) -> None:
    crew(2).tell(without_anything)
