"""What only the shared-memory transport does: what fits into its descriptors, its waits, what it refuses."""

from __future__ import annotations

import signal
import time

import pytest
import torch

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, Mismatch
from tests.collectives.transports.team import CONTEXT, Seat, Team

CONTEXT.set_forkserver_preload([__name__])


def swaps_many_dimensions(seat: Seat) -> None:
    transport = seat.join()
    shape = (4, 1, 2, 1, 3, 1, 1, 2, 5, 1, 2)
    mine = torch.arange(480.0).view(shape) + 1000 * seat.rank
    got, rows = transport.take(transport.alltoall_ragged(mine, [1, 3]))
    other = torch.arange(480.0).view(shape) + 1000 * (1 - seat.rank)
    parts = (mine, other) if seat.rank == 0 else (other, mine)
    expected = torch.cat([part[:1] if seat.rank == 0 else part[1:] for part in parts])
    seat.say((rows, torch.equal(got, expected)))


def test_tensors_of_many_dimensions_are_split_right(team: Team) -> None:
    first, second = team.start(2, swaps_many_dimensions)
    assert first.hear() == ([1, 1], True)
    assert second.hear() == ([3, 3], True)


def swaps_two_calls(seat: Seat) -> None:
    transport = seat.join()
    names = [f"{'_fsdp_wrapped_module.' * 4}layers.{layer}.weight" for layer in range(2)]
    try:
        for name in names if seat.rank else reversed(names):
            transport.allreduce(torch.ones(10), name=name)
    except Mismatch as error:
        seat.say(error.message)


def test_long_names_that_begin_alike_are_told_apart(team: Team) -> None:
    for rank in team.start(2, swaps_two_calls):
        assert "different operations" in rank.hear()


def gives_up_waiting(seat: Seat) -> None:
    transport = seat.join()
    if seat.rank:
        seat.hear()
        return
    ticket = transport.allreduce(torch.ones(10), name="grad", asynchronous=True)
    try:
        transport.wait(ticket, 0.05)
    except CollectiveTimeout as error:
        seat.say((error.message, error.missing))


def test_a_wait_that_ends_says_for_what_and_for_whom(team: Team) -> None:
    first, second = team.start(2, gives_up_waiting)
    assert first.hear() == (
        "allreduce sum float32[10] 'grad' is not finished within 0.05 s: rank 1 has not come to it",
        (1,),
    )
    second.tell("go")


class Interrupted(Exception):
    pass


def is_interrupted(seat: Seat) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    transport = seat.join()
    if seat.rank:
        seat.hear()
        return
    signal.signal(signal.SIGALRM, interrupt)
    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        transport.allreduce(torch.ones(10))
    except Interrupted:
        seat.say(time.monotonic() - begun)
    transport.close()


def test_a_blocking_call_hears_signals_while_it_waits(team: Team) -> None:
    first, second = team.start(2, is_interrupted)
    assert first.hear() < 10  # its operation would take 600 s to give up
    second.tell("go")


def asks_for_what_cannot_be(seat: Seat) -> None:
    transport = seat.join()
    two, four = torch.ones(2), torch.ones(4)
    for refused in (
        lambda: transport.allgather(two, two),
        lambda: transport.reducescatter(two, two),
        lambda: transport.alltoall(two, four),
        lambda: transport.gather(two, two, seat.rank),
        lambda: transport.scatter(two, two, seat.rank),
        lambda: transport.allreduce(two, output=four),
        lambda: transport.allreduce(two, output=two.double()),
        lambda: transport.allreduce_together([two, two], [two, four]),
        lambda: transport.allreduce_together([two, two.double()], [two, two.double()]),
        lambda: transport.allreduce_together([two, torch.ones(2, 2).t()], [two, torch.ones(2, 2)]),
        lambda: transport.broadcast(two, 2),
        lambda: transport.broadcast(two, -1),
        lambda: transport.broadcast(torch.ones(2, 2).t(), 0),
        lambda: transport.broadcast(torch.ones(2, device="meta"), 0),
        lambda: transport.alltoall_ragged(four, [1, 2]),
    ):
        with pytest.raises(CollectiveError):
            refused()
    transport.allreduce(two)
    seat.say(two.tolist())


def test_what_would_write_past_a_tensor_is_refused_and_harms_nobody(team: Team) -> None:
    for rank in team.start(2, asks_for_what_cannot_be):
        assert rank.hear() == [2.0, 2.0]


def reduces_together(seat: Seat) -> None:
    transport = seat.join()
    for most in (3, 2000, 1 << 20):  # with the arrival, in one chunk, in many
        sizes = [most, 0, 1, most // 3, most + 7, 64]
        chance = torch.Generator().manual_seed(seat.rank)
        given = [torch.randn(size, generator=chance) for size in sizes]
        expected = [tensor.clone() for tensor in given]
        for tensor in expected:
            transport.allreduce(tensor, "average", prescale=0.3)
        results = [torch.empty_like(tensor) for tensor in given]
        how = {"op": "average", "prescale": 0.3}
        transport.wait(transport.allreduce_together(given, results, asynchronous=True, **how))
        transport.allreduce_together(given, given, **how)
        for in_place, result, right in zip(given, results, expected, strict=True):
            seat.say(torch.equal(in_place, right) and torch.equal(result, right))
    seat.say("done")


@pytest.mark.parametrize("ranks", [2, 3])
def test_tensors_reduced_together_have_the_bits_of_each_by_itself(team: Team, ranks: int) -> None:
    for rank in team.start(ranks, reduces_together):
        assert [rank.hear() for _ in range(19)] == [True] * 18 + ["done"]
