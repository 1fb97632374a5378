"""What the survivors are told, and what is left behind, when ranks of a shared buffer die, stop or leave at any moment.

Moments are drawn at random from a seed; `PHALANX_FAULT_TRIALS` draws more of them (the slow tests draw many).
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from phalanx.collectives.errors import CollectiveError
from phalanx.foundation import write_atomic
from tests.collectives.transports.team import CONTEXT, Failure, Rank, Seat, Team, left_by
from tests.processes import wait_until

WITHIN_S = 5.0  # a second is what is asked for; the machine that runs the tests may be busy
TRIALS = int(os.environ.get("PHALANX_FAULT_TRIALS", "4"))
MANY_TRIALS = int(os.environ.get("PHALANX_FAULT_TRIALS", "100"))
CONTEXT.set_forkserver_preload([__name__])
FLAVOURS = ["small", "large", "asynchronous"]


# ---- what ranks do


def works(seat: Seat, flavour: str, away: int = -1, options: dict[str, float] | None = None) -> None:
    """Operations without end; rank `away` never comes to the first one."""
    transport = seat.join(**(options or {}))
    large, small = torch.ones(4_000_000), torch.ones(100)
    seat.say("joined")
    if seat.rank == away:
        time.sleep(600)
    for number in range(10**9):
        if flavour == "small":
            transport.allreduce(small, "max", name="gradients")
        elif flavour == "large":
            transport.allreduce(large, "max", name="gradients")
        else:
            tickets = [transport.allreduce(large, "max", name="gradients", asynchronous=True) for _ in range(3)]
            tickets.append(transport.allreduce(small, "max", name="bias", asynchronous=True))
            for ticket in tickets:
                transport.wait(ticket)
        if number == 2:
            seat.say("works")


def comes_and_goes(seat: Seat) -> None:
    """Groups without end: formed, used, closed."""
    seat.say("begins")
    for number in range(10**9):
        seat.meeting = seat.meeting.with_name(f"{seat.meeting.name.split('.')[0]}.{number}")
        transport = seat.join(timeout_s=3.0)
        transport.allreduce(torch.ones(10))
        transport.close()


def judge(killed: Rank, at: float, failure: Failure) -> None:
    assert failure.kind == "PeerLost", failure
    assert failure.ranks == (killed.rank,), failure
    assert f"rank {killed.rank} (pid {killed.pid}) ended" in failure.message, failure
    assert failure.at - at < WITHIN_S, failure


# ---- killed


def kill_one(team: Team, flavour: str, rng: random.Random) -> float:
    """A rank is killed at a random moment; how long it took until the last survivor knew."""
    ranks = team.start(3, works, flavour)
    for rank in ranks:
        assert rank.hear() == "joined"
    victim = rng.choice(ranks)
    if rng.random() < 0.8:
        victim.hear()
    time.sleep(rng.random() * 0.03)
    at = victim.kill()
    failures = [rank.fails() for rank in ranks if rank is not victim]
    for failure in failures:
        judge(victim, at, failure)
    team.dismiss()
    return max(failure.at for failure in failures) - at


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_rank_killed_at_any_moment_is_named_by_every_survivor(team: Team, flavour: str) -> None:
    for trial in range(TRIALS):
        kill_one(team, flavour, random.Random(f"{flavour} {trial}"))


@pytest.mark.slow
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_many_times_over_survivors_know_within_about_a_second(team: Team, flavour: str) -> None:
    took = sorted(kill_one(team, flavour, random.Random(f"many {flavour} {trial}")) for trial in range(MANY_TRIALS))
    assert took[len(took) // 2] < 1.0, took


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_rank_killed_before_it_arrives_is_named(team: Team, flavour: str) -> None:
    ranks = team.start(3, works, flavour, 1)
    for rank in ranks:
        assert rank.hear() == "joined"
    at = ranks[1].kill()
    judge(ranks[1], at, ranks[0].fails())
    judge(ranks[1], at, ranks[2].fails())


def test_two_that_are_killed_at_once_blame_no_survivor(team: Team) -> None:
    for trial in range(TRIALS):
        rng = random.Random(trial)
        ranks = team.start(4, works, rng.choice(FLAVOURS))
        for rank in ranks:
            assert rank.hear() == "joined"
        time.sleep(rng.random() * 0.05)
        victims = rng.sample(ranks, 2)
        for victim in victims:
            victim.kill()
        for survivor in ranks:
            if survivor not in victims:
                failure = survivor.fails()
                assert failure.kind == "PeerLost", failure
                assert set(failure.ranks) <= {victim.rank for victim in victims}, failure
        team.dismiss()


# ---- stopped


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_stopped_rank_is_named_when_the_time_is_up_and_told_when_it_goes_on(team: Team, flavour: str) -> None:
    ranks = team.start(3, works, flavour, -1, {"operation_timeout_s": 1.0})
    for rank in ranks:
        assert rank.hear() == "joined"
        assert rank.hear() == "works"
    ranks[2].kill(signal.SIGSTOP)
    for survivor in ranks[:2]:
        failure = survivor.fails()
        assert failure.kind == "CollectiveTimeout", failure
        assert failure.ranks == (2,), failure
        assert f"rank 2 (pid {ranks[2].pid})" in failure.message, failure
    ranks[2].kill(signal.SIGCONT)
    failure = ranks[2].fails()
    assert failure.kind in {"CollectiveTimeout", "PeerLost"}, failure
    assert set(failure.ranks) <= {2}, failure


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_stopped_rank_that_goes_on_in_time_is_waited_for(team: Team, flavour: str) -> None:
    first, second = team.start(2, counts, flavour)
    for _ in range(4):
        assert second.hear() == "one more"
        second.kill(signal.SIGSTOP)
        time.sleep(0.2)
        second.kill(signal.SIGCONT)
        second.tell("go on")
    assert first.hear() == [16.0] * 3
    assert second.hear() == [16.0] * 3


def counts(seat: Seat, flavour: str) -> None:
    transport = seat.join()
    tensors = [torch.ones(4_000_000 if flavour == "large" else 100) for _ in range(3)]
    for _ in range(4):
        if seat.rank == 1:
            seat.say("one more")
        tickets = [transport.allreduce(tensor, asynchronous=flavour == "asynchronous") for tensor in tensors]
        for ticket in tickets:
            if ticket:
                transport.wait(ticket)
        if seat.rank == 1:
            assert seat.hear() == "go on"
    transport.barrier()
    seat.say([tensor[-1].item() for tensor in tensors])
    transport.close()


# ---- while groups are formed and closed


def harm_comers_and_goers(team: Team, rng: random.Random) -> None:
    ranks = team.start(3, comes_and_goes)
    for rank in ranks:
        assert rank.hear() == "begins"
    time.sleep(rng.random() * 0.1)
    victims = rng.sample(ranks, rng.choice([1, 1, 2, 3]))
    for victim in victims:
        victim.kill()
    for survivor in ranks:
        if survivor not in victims:
            failure = survivor.fails()
            assert failure.kind in {"PeerLost", "CollectiveTimeout"}, failure
            assert failure.ranks, failure
            assert set(failure.ranks) <= {victim.rank for victim in victims}, failure
    team.dismiss()


def test_a_rank_killed_while_groups_are_formed_and_closed_is_named_and_leaves_nothing(team: Team) -> None:
    for trial in range(TRIALS):
        harm_comers_and_goers(team, random.Random(f"forming {trial}"))
    assert_nothing_is_left(team)


@pytest.mark.slow
def test_many_ranks_killed_while_groups_are_formed_and_closed(team: Team) -> None:
    for trial in range(MANY_TRIALS):
        harm_comers_and_goers(team, random.Random(f"many forming {trial}"))
    assert_nothing_is_left(team)


def assert_nothing_is_left(team: Team) -> None:
    """A group that is formed later sweeps what the dead have left."""
    pids = team.pids()
    for rank in team.start(2, once):
        assert rank.hear() == "done"
    assert left_by(pids + team.pids()) == []


def once(seat: Seat) -> None:
    transport = seat.join()
    tensor = torch.ones(100_000)
    transport.allreduce(tensor)
    assert tensor[-1] == seat.size
    transport.close()
    seat.say("done")


def test_the_name_a_dead_maker_left_goes_with_the_next_group(team: Team) -> None:
    """Rank 0 is killed after it made the buffer and before anybody came."""
    maker = team.start_one(0, 2, team.meeting(), once)
    wait_until(lambda: left_by([maker.pid]), "no buffer was made")
    maker.kill()
    maker.process.join()
    assert left_by([maker.pid])
    assert_nothing_is_left(team)


def test_who_never_comes_is_named_and_who_comes_too_late_is_told(team: Team) -> None:
    meeting = team.meeting()
    first = team.start_one(0, 3, meeting, waits_a_second_to_meet)
    third = team.start_one(2, 3, meeting, waits_a_second_to_meet)
    for rank in (first, third):
        failure = rank.fails()
        assert (failure.kind, failure.ranks) == ("CollectiveTimeout", (1,)), failure
    failure = team.start_one(1, 3, meeting, waits_a_second_to_meet).fails()
    assert failure.kind in {"CollectiveError", "CollectiveTimeout"}, failure
    assert left_by(team.pids()) == []


def waits_a_second_to_meet(seat: Seat) -> None:
    seat.join(timeout_s=1.0)


# ---- left


def leaves(seat: Seat, how: str) -> None:
    transport = seat.join()
    transport.barrier()
    seat.say("joined")
    if seat.rank == 1:
        if how == "closes":
            transport.close()
            seat.hear()
        elif how == "aborts":
            transport.abort("its disk is full")
            seat.hear()
        elif how == "raises":
            raise RuntimeError("a bug of the user")
        elif how == "exits":
            sys.exit(0)
        return
    transport.allreduce(torch.ones(1000), name="gradients")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("closes", "rank 1 (pid {pid}) closed the group"),
        ("aborts", "rank 1: its disk is full"),
        ("exits", "rank 1 (pid {pid}) "),
        ("raises", "rank 1 (pid {pid}) "),
    ],
)
def test_a_rank_that_leaves_while_others_wait_is_named_with_the_reason(
    team: Team, capfd: pytest.CaptureFixture[str], how: str, said: str
) -> None:
    ranks = team.start(3, leaves, how)
    for rank in ranks:
        assert rank.hear() == "joined"
    for survivor in (ranks[0], ranks[2]):
        failure = survivor.fails()
        assert failure.kind == "PeerLost", failure
        assert failure.ranks == (1,), failure
        assert said.format(pid=ranks[1].pid) in failure.message, failure


def test_ranks_go_on_when_the_process_that_started_them_is_gone(team: Team) -> None:
    (launcher,) = team.start(1, launches)
    results = [Path(name) for name in launcher.hear()]
    launcher.kill()
    wait_until(lambda: all(result.exists() for result in results), "the orphans did not finish")
    assert [result.read_text() for result in results] == ["2.0", "2.0"]


def launches(seat: Seat) -> None:
    """Forks two ranks that work once their parent is gone."""
    results = [seat.meeting.with_name(f"result-{rank}") for rank in range(2)]
    parent = os.getpid()
    for rank in range(2):
        if not os.fork():
            transport = Seat(rank, 2, seat.meeting, seat.pipe).join()
            while os.getppid() == parent:
                time.sleep(0.01)
            tensor = torch.ones(1_000_000)
            transport.allreduce(tensor)
            write_atomic(results[rank], str(tensor[-1].item()))
            os._exit(0)
    seat.say([str(result) for result in results])
    time.sleep(600)


def closes_with_work_under_way(seat: Seat) -> None:
    transport = seat.join()
    if seat.rank == 1:
        seat.hear()
        return
    transport.allreduce(torch.ones(1_000_000), asynchronous=True)
    transport.close()
    seat.say("closed")


def test_closing_does_not_wait_for_those_who_do_not_come(team: Team) -> None:
    first, second = team.start(2, closes_with_work_under_way)
    assert first.hear() == "closed"
    second.tell("end")


def uses_what_is_closed(seat: Seat) -> None:
    transport = seat.join()
    ticket = transport.allreduce(torch.ones(10), asynchronous=True)
    transport.wait(ticket)
    transport.close()
    transport.close()
    transport.abort("too late")
    transport.say_whereabouts("nowhere")
    told = []
    for use in (
        lambda: transport.allreduce(torch.ones(10)),
        lambda: transport.allreduce(torch.ones(10), asynchronous=True),
        lambda: transport.allgather_ragged(torch.ones(3)),
        lambda: transport.sum_in_place(torch.ones(10)),
        transport.barrier,
        transport.join,
        lambda: transport.wait(ticket),
        lambda: transport.take(ticket),
        lambda: transport.done(ticket),
        transport.states,
        transport.unfinished,
        lambda: transport.records(0),
    ):
        try:
            use()
        except CollectiveError as error:
            told.append("closed" in error.message)
        else:
            told.append(None)
    seat.say(told)


def test_what_is_closed_says_so_and_never_crashes(team: Team) -> None:
    for rank in team.start(2, uses_what_is_closed):
        told = rank.hear()
        assert told[:6] == [True] * 6
        assert False not in told


# ---- forks: DataLoader's workers, subprocesses


def forks(seat: Seat) -> None:
    transport = seat.join()
    tensors = [torch.ones(1_000_000) for _ in range(4)]
    tickets = [transport.allreduce(tensor, asynchronous=True) for tensor in tensors]
    child = os.fork()
    if not child:
        told = 0
        for use in (transport.barrier, lambda: transport.abort("in a child"), lambda: transport.wait(tickets[-1])):
            try:
                use()
            except CollectiveError as error:
                told += "forked" in error.message
        transport.states()
        transport.say_whereabouts("in a child")
        transport.close()
        os._exit(told)
    _, status = os.waitpid(child, 0)
    loader = DataLoader(list(range(32)), batch_size=4, num_workers=2)  # type: ignore[arg-type, var-annotated]
    for batch in loader:
        transport.allreduce(batch)
    for ticket in tickets:
        transport.wait(ticket)
    transport.barrier()
    seat.say((os.waitstatus_to_exitcode(status), [tensor[-1].item() for tensor in tensors], batch.tolist()))
    transport.close()


def test_a_fork_cannot_use_its_parents_group_and_does_not_harm_it(team: Team) -> None:
    for rank in team.start(2, forks):
        status, sums, last = rank.hear()
        assert sums == [2.0] * 4
        assert last == [56, 58, 60, 62]
        assert status == 2, "barrier and wait are refused, the rest does nothing"
