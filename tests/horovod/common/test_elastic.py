"""The loop that brings a script through changes of its group, against the order in which things must happen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.horovod.common.elastic import ObjectState, State, notification_manager, run_fn
from phalanx.horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt
from phalanx.horovod.runner.elastic.worker import HostUpdateResult

EVENTS = {
    "a rank is lost": HorovodInternalError("lost"),
    "hosts are added": HostsUpdatedInterrupt(skip_sync=False),
    "hosts are removed": HostsUpdatedInterrupt(skip_sync=True),
}


class Told(State):
    """Writes down what is asked of it. `fails`: whether `sync` does, by the number of the group."""

    def __init__(self, happened: list[str], fails: Sequence[bool] = (False,)) -> None:
        super().__init__(bcast_object=lambda value: value, get_rank=lambda: 0)
        self.happened = happened
        self.fails, self.group = fails, 0
        self.register_reset_callbacks([lambda: happened.append("callback")])

    def restore(self) -> None:
        self.happened.append("restore")

    def sync(self) -> None:
        self.happened.append("sync")
        if self.fails[self.group]:
            raise HorovodInternalError("lost while it syncs")

    def reset(self) -> None:
        self.happened.append("reset")


# A group: do others need the state, is a rank lost while they sync, and what happens while they train?
GROUPS = st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(list(EVENTS))), max_size=8)
LAST = (st.booleans(), st.just(False), st.just("the script returns"))


def expected(groups: list[tuple[bool, bool, str]]) -> list[str]:
    order, needs = [], True
    for number, (others_need, lost_in_sync, event) in enumerate(groups):
        if number:
            order += ["leave and form", "reset", "callback"]
        if needs or others_need:
            order.append("sync")
            if lost_in_sync:
                order.append("restore")
                needs = True
                continue
        order.append("train")
        if event == "a rank is lost":
            order.append("restore")
        needs = event != "hosts are removed"
    return order


@given(GROUPS, st.tuples(*LAST))
def test_each_group_begins_with_what_its_reason_makes_necessary(
    before: list[tuple[bool, bool, str]], last: tuple[bool, bool, str]
) -> None:
    groups, number = [*before, last], 0
    happened: list[str] = []
    state = Told(happened, [lost_in_sync for _, lost_in_sync, _ in groups])

    def train(told: State, factor: int, *, more: int) -> int:
        assert told is state
        happened.append("train")
        if groups[number][2] in EVENTS:
            raise EVENTS[groups[number][2]]
        return factor + more

    def reset() -> None:
        nonlocal number
        happened.append("leave and form")
        number += 1
        state.group = number
        if groups[number][0]:
            notification_manager.needs_sync = True  # as hvd.init() does, when the launcher says so

    assert run_fn(train, reset)(state, 40, more=2) == 42
    assert happened == expected(groups)


@pytest.mark.parametrize(("event", "needs"), list(zip(EVENTS, [True, True, False], strict=True)))
def test_the_launcher_is_told_whether_this_rank_needs_the_state(event: str, needs: bool) -> None:
    needed: list[bool] = []
    left = [EVENTS[event]]

    def train(state: State) -> None:
        if left:
            raise left.pop()

    run_fn(train, lambda: needed.append(notification_manager.needs_sync))(Told([]))
    assert needed == [needs]


def test_another_error_of_the_script_ends_it_and_its_state_hears_no_more() -> None:
    state = Told([])
    heard: list[Any] = []
    state.on_hosts_updated = lambda *news: heard.append(news)  # type: ignore[method-assign]

    def train(state: State) -> None:
        """Of the script."""
        notification_manager.handle_hosts_updated(1.0, HostUpdateResult.added)
        raise ZeroDivisionError

    run = run_fn(train, lambda: None)
    assert (run.__name__, run.__doc__) == ("train", "Of the script.")
    with pytest.raises(ZeroDivisionError):
        run(state)
    notification_manager.handle_hosts_updated(2.0, HostUpdateResult.added)
    assert heard == [(1.0, HostUpdateResult.added)]


NEWS = st.tuples(st.integers(0, 9), st.sampled_from([HostUpdateResult.removed, HostUpdateResult.added]))


@given(st.lists(st.lists(NEWS, max_size=4), max_size=5))
def test_only_what_is_newer_than_the_last_change_counts_and_only_removals_need_no_sync(looks: list[list[Any]]) -> None:
    state, last = Told([]), 0
    for news in looks:
        for when, what in news:
            state.on_hosts_updated(float(when), what)
        newer = [(when, what) for when, what in news if when > last]
        last = max([last, *(when for when, _ in newer)])
        told = None
        try:
            state.check_host_updates()
        except HostsUpdatedInterrupt as interrupt:
            told = interrupt.skip_sync
        assert told == (all(what == HostUpdateResult.removed for _, what in newer) if newer else None)


def test_objects_are_kept_by_name_and_synced_as_they_are_now() -> None:
    sent: list[Any] = []

    def broadcast(value: Any) -> Any:
        sent.append(value)
        return {"step": 70, "name": "of rank 0"}

    state = ObjectState(broadcast, lambda: 1, step=1, name="mine")
    state.step, state.other = 2, "not kept"
    state.restore()
    assert (state.step, state.other) == (1, "not kept")
    state.step = 3
    state.save()
    state.step, state.name = 4, "later"
    state.sync()
    assert sent == [{"step": 4, "name": "later"}]
    state.step = 5
    state.restore()
    assert (state.step, state.name) == (70, "of rank 0")


@pytest.mark.parametrize("method", ["save", "restore", "sync"])
def test_a_state_of_a_script_must_say_how(method: str) -> None:
    with pytest.raises(NotImplementedError):
        getattr(State(bcast_object=lambda value: value, get_rank=lambda: 0), method)()
