"""The life of an elastic job as a pure function: what is known, and what happens, to what is known then and is done.

    started --hvd.init()--> ready --> member --a rank is lost, or hosts change--> ready --> member of the next group
                                        \\__ its host is taken away, or the others have finished --> told to leave

A group is formed as soon as every survivor of the last one asks for a place; workers that are still starting are never
waited for, but the others are told when they are ready. Rank 0 is always the longest-living worker that has the
state. Knows no processes, sockets or clocks: `driver` observes and acts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from phalanx.horovod.runner.elastic.roster import (
    NEVER,
    Excluded,
    Failure,
    Host,
    Place,
    Roster,
    Worker,
    places,
)
from phalanx.horovod.runner.elastic.worker import HostUpdateResult

LEAVE_S = 10.0  # for a worker that was told to leave, to end by itself
FAILURES = 3  # in a row, and a host is excluded
STEADY_S = 60.0  # a worker that has lived so long in a group has not failed in a row
TOGETHER_S = 30.0  # those that started together are told of together, if they are ready within this


@dataclass(frozen=True)
class HostsFound:
    """All there are now."""

    at: float
    hosts: tuple[Host, ...]


@dataclass(frozen=True)
class Ready:
    """A worker asks for a place; `needs_sync`: and for the state."""

    at: float
    number: int
    needs_sync: bool


@dataclass(frozen=True)
class Synced:
    """A worker has the state now."""

    at: float
    number: int


@dataclass(frozen=True)
class Ended:
    """A worker's process has. `code`: 0 for success. `jitter`: 0 to 1, drawn."""

    at: float
    number: int
    code: int
    why: str
    jitter: float = 0.0


@dataclass(frozen=True)
class Tick:
    """Time has passed."""

    at: float


Event: TypeAlias = HostsFound | Ready | Synced | Ended | Tick


@dataclass(frozen=True)
class Start:
    """A worker on `host`."""

    number: int
    host: str


@dataclass(frozen=True)
class Form:
    """A group: give each its place. `sync`: somebody in it needs the state."""

    generation: int
    places: tuple[Place, ...]
    sync: bool


@dataclass(frozen=True)
class CallOff:
    """Tell these that the group of `generation` is broken: they may still be forming it."""

    generation: int
    numbers: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class Notify:
    """Tell rank 0 that the group should change."""

    number: int
    result: HostUpdateResult


@dataclass(frozen=True)
class Leave:
    """Tell a worker that asks for a place that there is none."""

    number: int
    why: str


@dataclass(frozen=True)
class Stop:
    """End a worker's process."""

    number: int


@dataclass(frozen=True)
class Say:
    """On the launching terminal."""

    text: str


@dataclass(frozen=True)
class Finish:
    """The job has ended; with `why`, badly. `who`: whose fault it is."""

    why: str = ""
    who: str = ""
    remedy: str = ""


Action: TypeAlias = Start | Form | CallOff | Notify | Leave | Stop | Say | Finish


def transition(roster: Roster, event: Event) -> tuple[Roster, tuple[Action, ...]]:
    """What is known after `event`, and what is to be done, in this order. After a Finish nothing follows."""
    step = _Step(roster, event.at)
    if not roster.over:
        step.take(event)
        for rule in step.rules():
            rule()
            if step.roster.over:
                break
    return step.roster, tuple(step.actions)


class _Step:
    """One event, and what follows from it: `take` says what has changed, the rules look at what is, whatever was."""

    def __init__(self, roster: Roster, at: float) -> None:
        self.roster = roster
        self.at = at
        self.actions: list[Action] = []

    def rules(self) -> tuple[Callable[[], None], ...]:
        return (
            self._see_who_leaves,
            self._tell_who_leaves,
            self._start,
            self._form,
            self._see_who_leaves,
            self._notify,
            self._end_what_takes_too_long,
            self._see_the_end,
        )

    # What happens

    def take(self, event: Event) -> None:
        match event:
            case HostsFound(hosts=hosts):
                self._say_changes(hosts)
                known = [host.name for host in self.roster.hosts]
                order = sorted(hosts, key=lambda host: known.index(host.name) if host.name in known else len(known))
                self._set(hosts=tuple(order))
                there, wanted = sum(host.slots for host in hosts), self.roster.rules.start
                if not self.roster.started and there < wanted:
                    self._say_waiting(f"{_of(there, 'slot')} so far, {wanted} to begin with")
            case Ready(number=number, needs_sync=needs_sync):
                if worker := self.roster.worker(number):
                    self._change(worker, ready_at=self.at, needs_sync=needs_sync)
            case Synced(number=number):
                if worker := self.roster.worker(number):
                    self._change(worker, holds_state=True)
                    self._set(state_exists=True)
            case Ended():
                if worker := self.roster.worker(event.number):
                    self._take_end(worker, event)

    def _say_waiting(self, few: str) -> None:
        self._do(Say(f"{few}: waiting for others for {self.roster.rules.timeout_s:g} s (--elastic-timeout)"))

    def _say_changes(self, hosts: tuple[Host, ...]) -> None:
        before, now = ({host.name: host.slots for host in some} for some in (self.roster.hosts, hosts))
        for name, slots in now.items():
            if before.get(name) != slots and self.roster.started:
                text = f"added with {_of(slots, 'slot')}" if name not in before else f"has {_of(slots, 'slot')} now"
                self._do(Say(f"host {name} {text}"))
        for name in before.keys() - now.keys():
            self._do(Say(f"host {name} removed"))

    def _take_end(self, worker: Worker, event: Ended) -> None:
        who = self.roster.who(worker)
        self._set(workers=tuple(other for other in self.roster.workers if other is not worker))
        member = worker.number in self.roster.members
        if worker.leaving:
            self._do(Say(f"{who} has left"))
        elif event.code == 0 and (worker.joined or not self.roster.generation):
            if not self.roster.ending:
                self._do(Say(f"{who} has finished"))
            self._set(ending=True)
            return
        else:
            why = event.why if event.code else "ended before it joined the others"
            self._do(Say(f"{who} is lost: it {why}"))
            if self.roster.failure is None or (member and not self.roster.failure.of_member):
                self._set(failure=Failure(who, why, member))
            self._exclude(worker, event.jitter)
        if member:
            left = tuple(other.number for other in self.roster.workers if other.number in self.roster.members)
            self._do(CallOff(self.roster.generation, left, f"{who} has ended"))

    def _exclude(self, worker: Worker, jitter: float) -> None:
        """A host is given no new worker for a while, or for good."""
        before = self.roster.excluded.get(worker.host, Excluded(0, -NEVER, -NEVER))
        if worker.started_at < before.last_at:  # it fell with others
            return
        steady = self.at - worker.joined_at > STEADY_S
        count = 1 if steady else before.count + 1
        until = -NEVER
        if self.roster.rules.cooldown is not None:
            first, most = self.roster.rules.cooldown
            until = self.at + min(most, first * 2.0 ** (count - 1) + jitter * first)
            self._do(Say(f"no new worker on {worker.host} for {until - self.at:.0f} s"))
        elif count >= FAILURES:
            until = NEVER
            self._do(Say(f"no new worker on {worker.host}: {count} failed there one after the other"))
        excluded = dict(self.roster.excluded) | {worker.host: Excluded(count, self.at, until)}
        self._set(excluded=excluded)

    # What follows

    def _see_who_leaves(self) -> None:
        """Workers without a slot, unless they are the last that have the state: then others get it first."""
        roster = self.roster
        if roster.ending:
            return
        without = roster.without_slot()
        holders = [worker for worker in roster.survivors if worker.holds_state or not roster.state_exists]
        if roster.generation and not holders:  # those that were about to go are needed after all
            for worker in roster.workers:
                if worker.leaving and worker.stop_at is None and worker.joined:
                    self._change(worker, leaving=False)
            return
        if all(holder.number in without for holder in holders):
            without -= {holder.number for holder in holders}
        for worker in roster.staying:
            if worker.number in without and worker.joined:
                self._change(worker, leaving=True)
            elif worker.number in without:
                self._stop(worker)

    def _tell_who_leaves(self) -> None:
        """Those that ask for a place and get none; and once others have finished, whoever has yet to begin is ended."""
        roster = self.roster
        for worker in roster.workers:
            ready = worker.ready_at is not None and worker.stop_at != NEVER  # also after the others have left it
            if roster.ending and not roster.generation and ready:
                self._finish("has called hvd.init(), but another ended well without", roster.who(worker))
                return
            if ready and worker.joined and (worker.leaving or roster.ending):
                why = "others have finished" if roster.ending else f"{worker.host} has no slot for it"
                self._change(worker, leaving=True, ready_at=None, stop_at=self.at + LEAVE_S)
                self._do(Leave(worker.number, why))
            elif roster.ending and roster.generation and not worker.joined and not worker.leaving:
                self._stop(worker)

    def _start(self) -> None:
        roster = self.roster
        if roster.ending or (not roster.started and sum(host.slots for host in roster.hosts) < roster.rules.start):
            return
        for host in roster.hosts:
            for _ in range(self._free(host)):
                number = self.roster.started
                new = Worker(number, host.name, host.machine, self.at)
                self._set(workers=(*self.roster.workers, new), started=number + 1)
                self._do(Start(number, host.name))

    def _free(self, host: Host) -> int:
        """How many workers may be started there now."""
        roster = self.roster
        excluded = roster.excluded.get(host.name)
        if excluded is not None and (excluded.until > self.at or not (roster.generation or roster.rules.cooldown)):
            return 0
        free = host.slots - sum(worker.host == host.name for worker in roster.workers)
        if roster.rules.most is not None:
            with_slot = {worker.number for worker in roster.staying} - roster.without_slot()
            free = min(free, roster.rules.most - len(with_slot))
        return max(free, 0)

    def _form(self) -> None:
        roster = self.roster
        waited_for = roster.survivors if roster.generation else roster.staying
        ready = [worker for worker in roster.staying if worker.ready_at is not None]
        if roster.ending or not waited_for or any(worker.ready_at is None for worker in waited_for):
            return
        if len(ready) < roster.rules.least or self._state_is_lost():
            return
        limit = roster.rules.reset_limit
        if limit is not None and roster.generation > limit:
            self._finish(
                f"the group has changed {limit} times, and would again",
                roster.failure.who if roster.failure else "",
                "raise --reset-limit, or find out why workers come and go",
            )
            return
        chosen = places(self._choose(ready))
        generation = roster.generation + 1
        sync = any(worker.needs_sync for worker in ready)
        for worker in ready:
            if any(place.number == worker.number for place in chosen):
                joined = {} if worker.joined else {"joined": generation, "joined_at": self.at}
                self._change(worker, ready_at=None, **joined)
            elif worker.joined:
                self._change(worker, leaving=True, ready_at=None, stop_at=self.at + LEAVE_S)
                self._do(Leave(worker.number, f"{worker.host} has no slot for it"))
        for worker in self.roster.workers:
            if worker.leaving and worker.stop_at is None:  # the others have left it
                self._change(worker, stop_at=self.at + LEAVE_S)
        members = tuple(place.number for place in chosen)
        self._set(generation=generation, members=members, told_of=frozenset(), failure=None, short_since=None)
        self._do(Form(generation, chosen, sync))
        self._do(Say(f"group {generation}: {_of(len(chosen), 'worker')}: {_by_host(chosen)}"))

    def _choose(self, ready: list[Worker]) -> list[Worker]:
        """Who has a slot, no more than may be; and the most senior always, until others have what it has."""
        without = self.roster.without_slot()
        eldest = min(ready, key=lambda worker: worker.seniority)
        order = sorted(ready, key=lambda w: (w is not eldest, w.number in without, w.seniority))
        if self.roster.rules.most is None:
            return order
        return order[: self.roster.rules.most + (eldest.number in without)]

    def _state_is_lost(self) -> bool:
        """Nobody is left that has what the job has learned."""
        roster = self.roster
        if not roster.generation:
            return False
        return not any(worker.holds_state or not roster.state_exists for worker in roster.survivors)

    def _notify(self) -> None:
        """Tell an unbroken group, once of each, who has come and who should go."""
        roster = self.roster
        members = [worker for worker in roster.workers if worker.number in roster.members]
        whole = bool(members) and len(members) == len(roster.members)
        left = any(worker.ready_at is not None or worker.stop_at is not None for worker in members)
        if roster.ending or not whole or left:
            return
        removed = {worker.number for worker in members if worker.leaving}
        since = {worker.number: worker.ready_at for worker in roster.staying if worker.ready_at is not None}
        complete = all(worker.number in since for worker in roster.newcomers)
        added = set(since) if complete or self.at - min(since.values(), default=self.at) > TOGETHER_S else set()
        if (removed | added) - roster.told_of:
            result = HostUpdateResult.no_update
            result |= HostUpdateResult.removed if removed else result
            result |= HostUpdateResult.added if added else result
            self._set(told_of=roster.told_of | removed | added)
            self._do(Notify(roster.members[0], result))

    def _end_what_takes_too_long(self) -> None:
        roster = self.roster
        left_at = min((w.ready_at for w in roster.survivors if w.ready_at is not None), default=NEVER)
        for worker in roster.workers:
            if worker.stop_at is not None and self.at >= worker.stop_at:
                self._stop(worker)
            elif not worker.leaving and worker.ready_at is None:
                since = left_at if worker.joined else worker.started_at
                if self.at - since > roster.rules.timeout_s:
                    what = "did not come back to the others" if worker.joined else "did not call hvd.init()"
                    self._do(Say(f"{roster.who(worker)} {what} within {roster.rules.timeout_s:g} s"))
                    self._exclude(worker, 0.0)
                    self._stop(worker)

    def _see_the_end(self) -> None:
        roster = self.roster
        if roster.ending:
            if not roster.workers and roster.failure is not None and roster.failure.of_member:
                self._finish(roster.failure.why, roster.failure.who)
            elif not roster.workers:
                self._finish()
            return
        if roster.generation and self._state_is_lost():
            self._fail("no worker is left that has the state of the job")
            return
        ready = [worker for worker in roster.newcomers if worker.ready_at is not None]
        without = roster.without_slot()  # of these, the last that have the state stay: until there are hosts again
        there = sum(worker.number not in without for worker in (*roster.survivors, *ready))
        if there >= roster.rules.least:
            self._set(short_since=None)
            return
        if not self._more_may_come():
            self._fail(f"fewer than the {roster.rules.least} workers of --min-np are left, and no host takes another")
            return
        since = self.at if roster.short_since is None else roster.short_since
        if roster.short_since is None and roster.generation:
            self._say_waiting(f"{_of(there, 'worker')} left, --min-np {roster.rules.least}")
        self._set(short_since=since)
        if self.at - since > roster.rules.timeout_s:
            slots = sum(host.slots for host in roster.hosts)
            least, lower = _of(roster.rules.least, "worker"), "--min-np"
            if not roster.started:
                least, lower = _of(roster.rules.start, "slot"), "-np"
            self._fail(
                f"there were fewer than {least} for {roster.rules.timeout_s:g} s",
                f"the hosts have {_of(slots, 'slot')}: name more, or lower {lower}, or raise --elastic-timeout",
            )

    def _more_may_come(self) -> bool:
        """Without a failure there is nothing to despair of; after one, as long as a host may take a new worker."""
        roster = self.roster
        if not roster.excluded or any(worker.ready_at is None for worker in roster.newcomers):
            return True
        if roster.generation and roster.rules.discovers:
            return True
        free = [host for host in roster.hosts if host.slots > sum(w.host == host.name for w in roster.workers)]
        waiting = [host for host in free if roster.excluded.get(host.name, Excluded(0, 0, 0)).until < NEVER]
        if roster.generation or roster.rules.cooldown:
            return bool(waiting)
        return any(host.name not in roster.excluded for host in free)

    # How it is written down

    def _set(self, **changes: object) -> None:
        self.roster = replace(self.roster, **changes)  # type: ignore[arg-type]

    def _change(self, worker: Worker, **changes: object) -> None:
        self.roster = self.roster.having(replace(worker, **changes))  # type: ignore[arg-type]

    def _stop(self, worker: Worker) -> None:
        self._change(worker, leaving=True, stop_at=NEVER)
        self._do(Stop(worker.number))

    def _do(self, action: Action) -> None:
        self.actions.append(action)

    def _fail(self, why: str, remedy: str = "") -> None:
        """Whoever failed first is to blame, if somebody did."""
        failure = self.roster.failure
        if failure is None:
            self._finish(why, remedy=remedy)
        else:
            self._finish(f"{failure.why}; {why}", failure.who, remedy)

    def _finish(self, why: str = "", who: str = "", remedy: str = "") -> None:
        self._set(over=True)
        self._do(Finish(why, who, remedy))


def _of(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _by_host(chosen: tuple[Place, ...]) -> str:
    """Such as `ranks 0-1 on a, rank 2 on b`."""
    names = dict.fromkeys(place.host for place in chosen)
    ranks = {name: [place.slot.rank for place in chosen if place.host == name] for name in names}
    return ", ".join(f"rank{'s' * (len(r) > 1)} {', '.join(map(str, r))} on {name}" for name, r in ranks.items())
