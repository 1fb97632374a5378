"""Who belongs to an elastic job: cases one by one, and a world of made-up processes in which anything may happen."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from phalanx.horovod.runner.elastic.roster import Host, Roster, Rules
from phalanx.horovod.runner.elastic.transition import (
    LEAVE_S,
    Action,
    CallOff,
    Ended,
    Event,
    Finish,
    Form,
    HostsFound,
    Leave,
    Notify,
    Ready,
    Say,
    Start,
    Stop,
    Synced,
    Tick,
    transition,
)
from phalanx.horovod.runner.elastic.worker import HostUpdateResult

ADDED, REMOVED, MIXED = HostUpdateResult.added, HostUpdateResult.removed, HostUpdateResult.mixed


def host(name: str, slots: int) -> Host:
    return Host(name, slots, name)


class Job:
    """A job that is told what happens, a second after the other, and remembers what it did."""

    def __init__(self, **rules: object) -> None:
        self.roster = Roster(Rules(**({"start": 3, "least": 2} | rules)))  # type: ignore[arg-type]
        self.at = 0.0

    def take(self, event: Event) -> list[Action]:
        self.roster, actions = transition(self.roster, event)
        return [action for action in actions if not isinstance(action, Say | CallOff)]

    def passes(self, seconds: float = 1.0) -> float:
        self.at += seconds
        return self.at

    def hosts(self, *hosts: Host) -> list[Action]:
        return self.take(HostsFound(self.passes(), hosts))

    def ready(self, *numbers: int, needs_sync: bool = False) -> list[Action]:
        return [action for number in numbers for action in self.take(Ready(self.passes(), number, needs_sync))]

    def synced(self, *numbers: int) -> None:
        for number in numbers:
            assert self.take(Synced(self.passes(), number)) == []

    def ends(self, number: int, code: int = -9) -> list[Action]:
        return self.take(Ended(self.passes(), number, code, "was killed" if code else "ended"))

    def waits(self, seconds: float) -> list[Action]:
        return self.take(Tick(self.passes(seconds)))


def training(**rules: object) -> Job:
    """Workers 0, 1 and 2 on a host, with the state."""
    job = Job(**rules)
    assert job.hosts(host("a", 3)) == [Start(0, "a"), Start(1, "a"), Start(2, "a")]
    assert members(job.ready(0, 1, 2)) == [0, 1, 2]
    job.synced(0, 1, 2)
    return job


def members(actions: list[Action]) -> list[int]:
    """Of the one group that is formed, by rank."""
    forms = [action for action in actions if isinstance(action, Form)]
    assert len(forms) == 1, actions
    return [place.number for place in forms[0].places]


def finish(actions: list[Action]) -> Finish:
    assert isinstance(actions[-1], Finish), actions
    return actions[-1]


def test_nothing_is_started_before_there_are_as_many_slots_as_were_asked_for():
    job = Job(start=3)
    assert job.hosts(host("a", 2)) == []
    assert job.hosts(host("a", 2), host("b", 2)) == [Start(0, "a"), Start(1, "a"), Start(2, "b"), Start(3, "b")]


def test_the_first_group_waits_for_all_that_were_started():
    job = Job(start=3, least=2)
    job.hosts(host("a", 3))
    assert job.ready(2, 0) == []
    assert members(job.ready(1)) == [0, 1, 2]


def test_survivors_form_a_group_at_once_while_another_worker_starts():
    job = training()
    assert job.ends(1) == [Start(3, "a")]
    assert job.ready(2) == []
    assert members(job.ready(0)) == [0, 2]
    assert job.ready(3) == [Notify(0, ADDED)]
    assert members(job.ready(0, 2)) == [0, 2, 3]


def test_a_survivor_that_asks_before_the_loss_is_known_waits_for_the_others():
    job = training()
    assert job.ready(0, 2) == []
    assert members(job.ends(1)[1:]) == [0, 2]


def test_those_that_are_forming_a_group_are_told_that_one_of_them_is_lost():
    job = training()
    job.roster, actions = transition(job.roster, Ended(9.0, 1, -9, "was killed by SIGKILL"))
    assert CallOff(1, (0, 2), "rank 1 (worker 1 on a) has ended") in actions
    assert Say("rank 1 (worker 1 on a) is lost: it was killed by SIGKILL") in actions


def test_rank_0_is_who_has_the_state_longest():
    job = training()
    job.ends(0)
    assert members(job.ready(1, 2)) == [1, 2]
    job.ready(3)
    assert members(job.ready(2, 1)) == [1, 2, 3]
    job.ends(1)
    assert members(job.ready(3, 2)) == [2, 3], "3 has no state yet, had it been alone"


def test_the_job_ends_when_nobody_is_left_that_has_the_state():
    job = training(least=1)
    job.ends(1)
    job.ends(2)
    assert members(job.ready(0)) == [0]
    job.ready(3, 4)
    assert members(job.ready(0)) == [0, 3, 4]
    assert "no worker is left that has the state" in finish(job.ends(0)).why


def test_the_first_to_fail_is_named_when_all_do():
    job = training()
    job.ends(2, code=1)
    job.ends(0, code=1)
    assert finish(job.ends(1, code=1)).who == "rank 2 (worker 2 on a)"


def test_fewer_than_the_least_wait_for_others_and_not_for_ever():
    job = training(least=3, timeout_s=600)
    job.ends(2)
    assert job.ready(0, 1) == []
    assert job.waits(500) == []
    assert members(job.ready(3)) == [0, 1, 3]
    job.ends(3)
    job.ready(0, 1)
    assert "fewer than 3 workers for 600 s" in finish(job.waits(700)).why


def test_a_job_that_never_has_slots_enough_to_begin_says_what_it_waits_for_and_then_how_many_there_were():
    job = Job(start=3, least=1, timeout_s=600)
    job.roster, actions = transition(job.roster, HostsFound(0.0, (host("a", 1),)))
    assert actions == (Say("1 slot so far, 3 to begin with: waiting for others for 600 s (--elastic-timeout)"),)
    ended = finish(job.waits(601))
    assert ended.why == "there were fewer than 3 slots for 600 s"
    assert ended.remedy == "the hosts have 1 slot: name more, or lower -np, or raise --elastic-timeout"


def test_no_more_workers_than_may_be():
    job = training(most=3)
    assert job.hosts(host("a", 3), host("b", 3)) == []
    assert job.ends(0) == [Start(3, "a")]


def test_workers_of_an_added_host_are_told_of_together_when_they_are_ready():
    job = training()
    assert job.hosts(host("a", 3), host("b", 2)) == [Start(3, "b"), Start(4, "b")]
    assert job.ready(4) == []
    assert job.ready(3) == [Notify(0, ADDED)]
    assert members(job.ready(0, 1, 2)) == [0, 1, 2, 3, 4]


def test_one_that_does_not_become_ready_keeps_no_other_waiting():
    job = training()
    job.hosts(host("a", 3), host("b", 2))
    assert job.ready(4) == []
    assert job.waits(60) == [Notify(0, ADDED)]


def test_workers_of_a_removed_host_leave_when_the_others_have_left_them():
    job = training(least=1)
    job.hosts(host("a", 3), host("b", 1))
    job.ready(3)
    job.ready(0, 1, 2)
    job.synced(3)
    assert job.hosts(host("a", 3)) == [Notify(0, REMOVED)]
    assert job.ready(3) == [Leave(3, "b has no slot for it")]
    actions = job.ready(0, 1, 2)
    assert members(actions) == [0, 1, 2]
    assert not next(action for action in actions if isinstance(action, Form)).sync
    assert job.ends(3, code=0) == []


def test_one_that_does_not_leave_by_itself_is_stopped():
    job = training(least=1)
    job.hosts(host("a", 2))
    assert members(job.ready(0, 1)) == [0, 1]
    assert job.waits(LEAVE_S + 1) == [Stop(2)]


def test_one_that_asks_for_a_place_after_the_others_have_left_it_is_told_at_once():
    job = training(least=1)
    job.hosts(host("a", 1))
    assert members(job.ready(0)) == [0]
    assert job.ready(1) == [Leave(1, "a has no slot for it")]
    assert job.ready(2) == [Leave(2, "a has no slot for it")]


def test_hosts_added_and_removed_at_once_are_told_at_once():
    job = training(least=1)
    job.hosts(host("a", 3), host("b", 1))
    job.ready(3)
    job.ready(0, 1, 2)
    job.synced(3)
    job.hosts(host("a", 3), host("b", 1), host("c", 1))
    job.ready(4)
    assert job.hosts(host("a", 3), host("c", 1)) == [Notify(0, MIXED)]


def test_the_last_that_have_the_state_stay_until_others_have_it():
    job = training(least=1, most=3)
    assert job.hosts(host("b", 2)) == [Start(3, "b"), Start(4, "b")]
    assert job.ready(3, 4) == [Notify(0, ADDED)]
    assert members(job.ready(0, 1, 2))[0] == 0
    assert job.take(Synced(job.passes(), 3)) == [Notify(0, REMOVED)]
    assert job.take(Synced(job.passes(), 4)) == []
    actions = job.ready(3, 4)
    assert members([*actions, *job.ready(0)]) == [3, 4]


def test_if_one_needs_the_state_all_sync():
    job = training()
    job.ready(0, needs_sync=False)
    job.ready(1, needs_sync=True)
    form = next(action for action in job.ends(2) if isinstance(action, Form))
    assert form.sync


def test_a_worker_that_has_finished_ends_the_job_when_all_have():
    job = training()
    assert job.ends(0, code=0) == []
    assert job.ends(2, code=0) == []
    assert finish(job.ends(1, code=0)) == Finish()


def test_nobody_gets_a_place_after_one_has_finished():
    job = training()
    job.ends(0, code=0)
    assert job.ready(1) == [Leave(1, "others have finished")]
    assert job.ends(1, code=0) == []
    assert finish(job.ends(2, code=0)) == Finish()


def test_a_failure_after_others_have_finished_is_one():
    job = training()
    job.ends(0, code=0)
    job.ends(1, code=1)
    assert finish(job.ends(2, code=0)).who == "rank 1 (worker 1 on a)"


def test_a_worker_that_is_still_starting_is_stopped_when_others_have_finished():
    job = training()
    job.ends(2)
    job.ready(0, 1)
    assert job.ends(0, code=0) == [Stop(3)]
    job.ends(1, code=0)
    assert finish(job.ends(3)) == Finish()


def test_a_program_that_never_calls_init_is_none_of_ours():
    job = Job()
    job.hosts(host("a", 3))
    assert job.ends(0, code=0) == []
    assert job.ends(1, code=0) == []
    assert finish(job.ends(2, code=0)) == Finish()


def test_one_that_ends_well_before_the_others_call_init_is_told_of():
    job = Job()
    job.hosts(host("a", 3))
    job.ends(0, code=0)
    assert "another ended well without" in finish(job.ready(1)).why


def test_a_script_that_dies_at_once_is_not_started_again_and_again():
    job = Job()
    job.hosts(host("a", 3))
    assert job.ends(1, code=1) == []
    assert job.ends(0, code=1) == []
    ended = finish(job.ends(2, code=1))
    assert "no host takes another" in ended.why
    assert ended.who == "worker 1 on a"


def test_one_that_dies_before_init_is_done_without_if_there_are_enough():
    job = Job(start=3, least=2)
    job.hosts(host("a", 3))
    job.ends(1, code=1)
    actions = job.ready(0, 2)
    assert members(actions) == [0, 2]


def test_a_host_whose_workers_fail_one_after_the_other_is_given_no_more():
    job = training()
    assert job.ends(2) == [Start(3, "a")]
    assert job.ends(3) == [Start(4, "a")]
    assert job.ends(4) == []
    assert members(job.ready(0, 1)) == [0, 1]


def test_workers_that_fall_together_count_once():
    job = training(least=1)
    for number in (2, 1):
        job.ends(number)
    assert job.roster.excluded["a"].count == 1


def test_a_host_is_excluded_for_longer_each_time_and_comes_back():
    job = training(cooldown=(10.0, 25.0), least=1)
    assert job.ends(2) == []
    assert job.waits(9) == []
    assert job.waits(2) == [Start(3, "a")]
    assert job.ends(3) == []
    assert job.waits(19) == []
    assert job.waits(2) == [Start(4, "a")]
    job.ends(4)
    assert job.waits(24) == []
    assert job.waits(2) == [Start(5, "a")]


def test_the_group_changes_only_as_often_as_allowed():
    job = training(reset_limit=1, least=1)
    job.ends(2)
    assert members(job.ready(0, 1)) == [0, 1]
    job.ends(1)
    assert "changed 1 times" in finish(job.ready(0)).why


def test_a_survivor_that_does_not_come_back_is_stopped():
    job = training(least=1, timeout_s=600)
    job.ends(2)
    job.ready(0)
    assert Stop(1) in job.waits(601)
    assert members(job.ends(1)) == [0]


def test_ranks_of_one_machine_follow_each_other_the_oldest_first():
    job = Job(start=2, least=1)
    job.hosts(host("a", 1), host("b", 1))
    job.ready(0, 1)
    job.synced(0, 1)
    job.hosts(host("a", 2), host("b", 1))
    job.ready(2)
    assert members(job.ready(0, 1)) == [0, 2, 1]


def test_a_host_that_comes_back_does_not_make_more_than_may_be():
    job = Job(start=2, least=1, most=2)
    job.hosts(host("a", 1), host("b", 1))
    job.ready(0, 1)
    job.synced(0)
    assert Start(2, "b") in job.ends(1)
    job.ready(0)
    assert job.hosts(host("b", 1), host("c", 1)) == [Start(3, "c")]  # 0 stays: it alone has the state
    job.hosts(host("a", 1), host("b", 1), host("c", 1))
    staying = [worker.number for worker in job.roster.staying]
    assert staying == [0, 2]


def test_all_that_have_a_slot_get_a_place_while_one_hands_over_what_it_has():
    job = Job(start=3, least=1, most=3)
    job.hosts(host("a", 1), host("b", 2))
    job.ready(0, 1, 2)
    job.synced(0)
    assert job.ends(1) + job.ends(2) == [Start(3, "b"), Start(4, "b")]
    job.ready(0)
    assert job.hosts(host("b", 3)) == [Start(5, "b")]
    assert not any(isinstance(action, Notify) for action in job.ready(3, 4))
    (told,) = job.ready(5)
    assert told == Notify(0, ADDED)
    assert members(job.ready(0)) == [0, 3, 4, 5]
    assert job.waits(1) == []
    assert job.take(Synced(job.passes(), 3)) == [Notify(0, REMOVED)]


def test_the_only_worker_moves_to_another_host_and_hands_over_what_it_has():
    job = Job(start=1, least=1, most=1)
    job.hosts(host("a", 1))
    job.ready(0)
    job.synced(0)
    assert job.hosts(host("b", 1)) == [Start(1, "b")]
    assert job.ready(1) == [Notify(0, ADDED)]
    assert members(job.ready(0)) == [0, 1]
    assert job.take(Synced(job.passes(), 1)) == [Notify(0, REMOVED)]
    assert job.ready(0) == [Leave(0, "a has no slot for it")]
    assert members(job.ready(1)) == [1]


def test_when_all_hosts_are_taken_away_the_job_waits_for_others_and_then_ends():
    job = training(least=1, timeout_s=20)
    job.hosts()
    assert job.waits(19) == []
    assert "fewer than 1 worker for 20 s" in finish(job.waits(2)).why
    job = training(least=1, timeout_s=20)
    job.hosts()
    assert job.hosts(host("b", 1)) == [Start(3, "b")]
    job.ready(3)
    assert job.waits(30) == []


def test_a_group_that_somebody_has_left_is_told_nothing():
    job = training()
    job.hosts(host("a", 2))
    assert job.ready(2) == [Leave(2, "a has no slot for it")]
    assert not any(isinstance(action, Notify) for action in job.hosts(host("a", 2), host("b", 1)) + job.ready(3))


class World(RuleBasedStateMachine):
    """Processes that start, train, fail, finish and leave in any order; whatever the job does must fit them."""

    @initialize(
        start=st.integers(1, 4), more=st.integers(0, 3), cooldown=st.sampled_from([None, (1.0, 4.0)]), data=st.data()
    )
    def begin(self, start, more, cooldown, data):
        least = data.draw(st.integers(1, start))
        most = data.draw(st.sampled_from([None, start + more]))
        self.rules_ = Rules(start, least, most, timeout_s=100.0, cooldown=cooldown)
        self.roster = Roster(self.rules_)
        self.at = 0.0
        self.slots: dict[str, int] = {}
        self.where: dict[int, str] = {}
        self.alive: dict[int, str] = {}  # starting, waiting, training, leaving
        self.has_state: set[int] = set()
        self.joined: dict[int, int] = {}
        self.group: list[int] = []
        self.broken = False
        self.asked = False  # rank 0 has been told
        self.finished = False
        self.over: Finish | None = None

    def tell(self, event: Event) -> None:
        self.roster, actions = transition(self.roster, event)
        if self.over:
            assert actions == ()
        for action in actions:
            assert self.over is None, "nothing follows the end"
            self.do(action)
        if not self.over:
            in_vain = [number for number, phase in self.alive.items() if phase == "waiting" and self.leaves(number)]
            assert not in_vain, "they wait for a place that they will not get"

    def do(self, action: Action) -> None:
        match action:
            case Start(number, name):
                assert number not in self.where
                there = sum(self.where[other] == name for other in self.alive)
                assert there < self.slots.get(name, 0), "a slot is used twice"
                assert not self.finished
                self.where[number], self.alive[number] = name, "starting"
            case Form():
                self.check_group(action)
            case Notify(number, result):
                assert result
                assert number == self.group[0]
                assert not self.broken
                self.asked = True
            case Leave(number):
                assert self.alive[number] == "waiting"
                self.alive[number] = "leaving"
            case Stop(number):
                if number in self.alive:
                    self.alive[number] = "leaving"
            case Finish():
                self.over = action
                if not action.why:
                    assert self.finished
                    assert not self.alive

    def check_group(self, form: Form) -> None:
        numbers = [place.number for place in form.places]
        assert len(set(numbers)) == len(numbers)
        assert all(self.alive[number] == "waiting" for number in numbers)
        assert self.rules_.least <= len(numbers)
        if self.rules_.most is not None:
            here = Counter(self.where[number] for number in numbers)
            with_slot = sum(min(count, self.slots.get(name, 0)) for name, count in here.items())
            assert with_slot <= self.rules_.most
            assert len(numbers) <= self.rules_.most + 1, "more than the one that hands over what it has"
        assert not any(self.alive.get(number) == "training" and not self.leaves(number) for number in self.group)
        if self.has_state:
            eldest = min((number for number in numbers if number in self.has_state), key=lambda n: (self.joined[n], n))
            assert numbers[0] == eldest
            if any(number not in self.has_state for number in numbers):
                assert form.sync
        self.check_slots(form)
        for number in numbers:
            self.alive[number] = "training"
            self.joined.setdefault(number, form.generation)
        self.group, self.broken, self.asked = numbers, False, False

    def check_slots(self, form: Form) -> None:
        """Ranks of a machine follow each other; each is counted there, and among the machines that have as many."""
        machines = [self.where[place.number] for place in form.places]
        names = list(dict.fromkeys(machines))
        assert machines == sorted(machines, key=names.index)
        for rank, place in enumerate(form.places):
            local_rank = machines[:rank].count(machines[rank])
            column = [name for name in names if machines.count(name) > local_rank]
            assert (place.slot.host, place.slot.rank, place.slot.size) == (machines[rank], rank, len(machines))
            assert (place.slot.local_rank, place.slot.local_size) == (local_rank, machines.count(machines[rank]))
            assert (place.slot.cross_rank, place.slot.cross_size) == (column.index(machines[rank]), len(column))

    def leaves(self, number: int) -> bool:
        worker = self.roster.worker(number)
        return worker is None or worker.leaving

    def has_reason_to_leave(self, number: int) -> bool:
        return self.broken or self.asked or number not in self.group

    def later(self, seconds: float = 0.1) -> float:
        self.at += seconds
        return self.at

    def some(self, data: st.DataObject, *phases: str) -> int | None:
        """A worker that is in one of these phases, if there is one."""
        found = sorted(number for number, now in self.alive.items() if now in phases)
        return data.draw(st.sampled_from(found)) if found else None

    @rule(slots=st.dictionaries(st.sampled_from("abc"), st.integers(1, 3), max_size=3))
    def hosts_change(self, slots):
        self.slots = slots
        self.tell(HostsFound(self.later(), tuple(host(name, count) for name, count in slots.items())))

    @rule(data=st.data())
    def one_calls_init(self, data):
        if (number := self.some(data, "starting")) is None:
            return
        self.alive[number] = "waiting"
        self.tell(Ready(self.later(), number, True))

    @rule(data=st.data())
    def one_has_the_state(self, data):
        number = self.some(data, "training")
        if number is None or self.broken or self.group[0] not in self.has_state | {number}:
            return
        self.has_state.add(number)
        self.tell(Synced(self.later(), number))

    @precondition(lambda self: self.group)
    @rule(data=st.data())
    def one_leaves_the_group(self, data):
        if (number := self.some(data, "training")) is None or not self.has_reason_to_leave(number):
            return
        self.broken |= number in self.group
        self.alive[number] = "waiting"
        self.tell(Ready(self.later(), number, number not in self.has_state))

    @rule(data=st.data(), code=st.sampled_from([-9, 1]))
    def one_fails(self, data, code):
        if (number := self.some(data, "starting", "waiting", "training", "leaving")) is not None:
            self.ends(number, code)

    @rule(data=st.data(), code=st.sampled_from([0, 0, 1]))
    def one_has_left(self, data, code):
        if (number := self.some(data, "leaving")) is not None:
            self.ends(number, code)

    @precondition(lambda self: self.group and not self.broken)
    @rule(data=st.data(), really=st.integers(0, 4))
    def one_finishes(self, data, really):
        number = self.some(data, "training")
        if number is None or really or self.leaves(number):
            return
        self.finished = True
        self.ends(number, 0)

    def ends(self, number: int, code: int) -> None:
        del self.alive[number]
        if number in self.group:
            self.broken = True
        self.has_state.discard(number)
        self.tell(Ended(self.later(), number, code, "ended"))

    @rule(seconds=st.sampled_from([0.1, 1.0, 11.0, 31.0]))
    def time_passes(self, seconds):
        self.tell(Tick(self.later(seconds)))

    @precondition(lambda self: not self.over and not self.finished)
    @rule()
    def all_goes_well_for_a_while(self):
        """Nobody fails, everybody answers: what is possible comes about."""
        for _ in range(60):
            for number, phase in sorted(self.alive.items()):
                if self.over:
                    return
                match self.alive.get(number), phase:
                    case "starting", "starting":
                        self.alive[number] = "waiting"
                        self.tell(Ready(self.later(), number, True))
                    case "training", "training" if self.has_reason_to_leave(number):
                        self.broken |= number in self.group
                        self.alive[number] = "waiting"
                        self.tell(Ready(self.later(), number, number not in self.has_state))
                    case "training", "training" if number not in self.has_state:
                        self.has_state.add(number)
                        self.tell(Synced(self.later(), number))
                    case "leaving", "leaving":
                        self.ends(number, 0)
            self.tell(Tick(self.later(1.0)))
        if self.over:
            return
        takes = {name for name in self.slots if not self.roster.excluded.get(name)}
        there = Counter(self.where[number] for number in self.alive)
        room = self.rules_.most is None or len(self.alive) < self.rules_.most
        if self.group and room:
            assert all(there[name] >= self.slots[name] for name in takes), "slots are left unused"
        if len(self.alive) >= self.rules_.least and self.roster.started:
            assert set(self.alive.values()) == {"training"} or not self.group or not room
            if takes:  # else the last that have the state stay
                assert all(there[name] <= self.slots.get(name, 0) for name in there), "workers without a slot"

    @invariant()
    def every_living_worker_is_known(self):
        if hasattr(self, "alive") and not self.over:
            assert {worker.number for worker in self.roster.workers} == set(self.alive)

    @invariant()
    def there_are_never_more_than_may_be(self):
        if hasattr(self, "alive") and self.rules_.most is not None and not self.over and not self.finished:
            staying = [n for n, phase in self.alive.items() if phase != "leaving" and not self.leaves(n)]
            there = Counter(self.where[number] for number in staying)
            assert sum(min(count, self.slots.get(name, 0)) for name, count in there.items()) <= self.rules_.most


World.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_whatever_happens_to_processes_no_rank_or_slot_is_given_twice = World.TestCase


def test_after_the_end_nothing_happens():
    job = training()
    for number in (0, 1, 2):
        job.ends(number, code=0)
    assert job.roster.over
    assert job.hosts(host("b", 9)) == []


@pytest.mark.parametrize("slots", [0, 1])
def test_a_host_with_fewer_slots_keeps_its_oldest_workers(slots):
    job = training(least=1)
    if slots:
        assert job.hosts(host("a", slots)) == [Notify(0, REMOVED)]
        assert members(job.ready(0)) == [0]
    else:
        assert job.hosts(host("a", slots)) == [], "they are all that have the state"
