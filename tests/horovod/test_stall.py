"""Ranks that keep others waiting, by a clock that the test moves."""

from __future__ import annotations

import logging

import pytest

from phalanx.horovod.negotiation import Negotiation, Request
from phalanx.horovod.stall import Stalls


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "phalanx.horovod")
    return caplog


def test_nothing_is_said_of_what_waits_for_no_longer_than_the_limit(clock, said):
    stalls = Stalls(60, clock=clock)
    for _ in range(61):
        assert stalls.look({"grad": ([0], [1])}) == []
        clock.now += 1
    assert said.messages == []


def test_the_warning_names_for_each_rank_what_it_owes(clock, said):
    stalls = Stalls(60, clock=clock)
    waiting = {"a": ([0], [1, 2]), "b": ([0, 1], [2])}
    stalls.look(waiting)
    clock.now += 61
    stalls.look({**waiting, "young": ([0], [1])})
    (message,) = said.messages
    assert "for 61.0 s" in message
    assert message.splitlines()[1:] == ["  rank 1 is missing for: a", "  rank 2 is missing for: a, b"]


def test_one_name_for_two_kinds_of_operation_is_told_as_what_each_rank_owes(clock, said):
    negotiation = Negotiation(2)
    negotiation.announce(0, Request("allreduce", "allreduce.x", op="sum"))
    negotiation.announce(1, Request("allgather", "allgather.x"))
    assert negotiation.take() == []  # each may still ask for the other
    stalls = Stalls(60, clock=clock)
    stalls.look(negotiation.waiting())
    clock.now += 61
    stalls.look(negotiation.waiting())
    assert said.messages[0].splitlines()[1:] == [
        "  rank 0 is missing for: allgather.x",
        "  rank 1 is missing for: allreduce.x",
    ]


def test_it_warns_once_a_period_for_as_long_as_it_lasts(clock, said):
    stalls = Stalls(10, clock=clock)
    for _ in range(41):
        stalls.look({"a": ([0], [1])})
        clock.now += 1
    assert len(said.messages) == 3  # at 11, 21 and 31 seconds
    stalls.look({})
    clock.now += 100
    stalls.look({})
    assert len(said.messages) == 3


def test_a_name_that_is_used_again_and_again_waits_anew_each_time(clock, said):
    stalls = Stalls(10, shutdown_s=20, clock=clock)
    for _ in range(30):  # every look finds rank 0 a little ahead
        assert stalls.look({"a": ([0], [1])}) == []
        clock.now += 5
        stalls.done(["a"])
    assert said.messages == []


def test_a_name_that_was_gone_at_a_look_waits_anew(clock, said):
    stalls = Stalls(10, clock=clock)
    stalls.look({"a": ([0], [1])})
    clock.now += 9
    stalls.look({})
    clock.now += 9
    stalls.look({"a": ([0], [1])})
    assert said.messages == []


def test_many_names_are_counted_and_not_all_written(clock, said):
    stalls = Stalls(10, clock=clock)
    waiting = {f"layer.{number}": ([0], [1]) for number in range(10)}
    stalls.look(waiting)
    clock.now += 11
    stalls.look(waiting)
    assert said.messages[0].endswith("layer.0, layer.1, layer.2, layer.3, layer.4, layer.5 and 4 more")


def test_what_waits_beyond_the_end_has_failed_and_the_reason_names_the_ranks(clock):
    stalls = Stalls(10, shutdown_s=20, clock=clock)
    waiting = {"old": ([0], [1, 3])}
    assert stalls.look(waiting) == []
    clock.now += 15
    assert stalls.look({**waiting, "young": ([1], [0])}) == []
    clock.now += 6
    ((name, reason),) = stalls.look({**waiting, "young": ([1], [0])})
    assert name == "old"
    assert "rank 1, 3" in reason
    assert "20.0 s" in reason
    assert "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS" in reason


def test_an_end_before_the_warning_means_nothing_and_says_so(clock, said):
    stalls = Stalls(60, shutdown_s=30, clock=clock)
    assert "no effect" in said.messages[0]
    stalls.look({"a": ([0], [1])})
    clock.now += 1000
    assert stalls.look({"a": ([0], [1])}) == []


def test_it_does_not_look_if_told_so(clock, said):
    stalls = Stalls(None, shutdown_s=1, clock=clock)
    stalls.look({"a": ([0], [1])})
    clock.now += 1000
    assert stalls.look({"a": ([0], [1])}) == []
    assert said.messages == []
