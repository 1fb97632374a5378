"""What an elastic job knows at one moment: its hosts, its workers, and who of them is in which group.

Values only; what follows from them is `transition`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from phalanx.horovod.runner.hosts import HostSlots, Slot, assign

NEVER = float("inf")


@dataclass(frozen=True)
class Rules:
    """What the job is asked to be. `start`, `least`, `most`: processes to begin with, and at any time after.

    `timeout_s`: how long it may have fewer than `least`. `cooldown`: seconds, at first and at most, for which a host is
    excluded after a failure; None: it is excluded for good after several. `discovers`: hosts may come later.
    """

    start: int
    least: int
    most: int | None = None
    timeout_s: float = 600.0
    reset_limit: int | None = None
    cooldown: tuple[float, float] | None = None
    discovers: bool = True


@dataclass(frozen=True)
class Host:
    """`machine`: what several names of one machine have in common."""

    name: str
    slots: int
    machine: str


@dataclass(frozen=True)
class Worker:
    """`number`: in the order of their start; never used again.

    `joined`: the first group it belonged to, 0: none yet. `ready_at`: since when it waits for a place. `holds_state`:
    it has what the job has learned. `leaving`: it gets no place any more; `stop_at`: and is stopped then.
    """

    number: int
    host: str
    machine: str
    started_at: float
    joined: int = 0
    joined_at: float = NEVER
    ready_at: float | None = None
    needs_sync: bool = True
    holds_state: bool = False
    leaving: bool = False
    stop_at: float | None = None

    @property
    def seniority(self) -> tuple[bool, float, int]:
        """Sorts who has the state first, and then who has been there longest."""
        return not self.holds_state, self.joined or NEVER, self.number


@dataclass(frozen=True)
class Excluded:
    """Failures of a host's workers, those that came together counted once; no new worker `until`."""

    count: int
    last_at: float
    until: float


@dataclass(frozen=True)
class Failure:
    """The first worker that failed since the last group was formed, of its members if one of them has."""

    who: str
    why: str
    of_member: bool


@dataclass(frozen=True)
class Roster:
    """`members`: numbers of the workers of the current group, by rank. `told_of`: of whom its rank 0 has been told.

    `ending`: one has finished, and nobody gets a place any more. `over`: all is said.
    """

    rules: Rules
    hosts: tuple[Host, ...] = ()
    workers: tuple[Worker, ...] = ()
    members: tuple[int, ...] = ()
    generation: int = 0
    started: int = 0
    excluded: Mapping[str, Excluded] = field(default_factory=dict)
    told_of: frozenset[int] = frozenset()
    state_exists: bool = False
    short_since: float | None = None
    failure: Failure | None = None
    ending: bool = False
    over: bool = False

    def worker(self, number: int) -> Worker | None:
        """None: it has ended."""
        return next((worker for worker in self.workers if worker.number == number), None)

    def having(self, changed: Worker) -> Roster:
        """With `changed` in the place of the worker of its number."""
        return replace(self, workers=tuple(changed if w.number == changed.number else w for w in self.workers))

    @property
    def staying(self) -> list[Worker]:
        """Those that are not on their way out."""
        return [worker for worker in self.workers if not worker.leaving]

    @property
    def survivors(self) -> list[Worker]:
        """Those of them that have been in a group."""
        return [worker for worker in self.staying if worker.joined]

    @property
    def newcomers(self) -> list[Worker]:
        """Those of them that have not."""
        return [worker for worker in self.staying if not worker.joined]

    def without_slot(self) -> set[int]:
        """Numbers of staying workers for which there is no slot any more, on their host or in all: the youngest."""
        free = {host.name: host.slots for host in self.hosts}
        in_all = NEVER if self.rules.most is None else self.rules.most
        found: set[int] = set()
        for worker in sorted(self.staying, key=lambda worker: worker.seniority):
            if free.get(worker.host, 0) > 0 and in_all > 0:
                free[worker.host] -= 1
                in_all -= 1
            else:
                found.add(worker.number)
        return found

    def who(self, worker: Worker) -> str:
        """Such as `rank 2 (worker 5 on localhost)`."""
        own = f"worker {worker.number} on {worker.host}"
        return f"rank {self.members.index(worker.number)} ({own})" if worker.number in self.members else own


@dataclass(frozen=True)
class Place:
    """Of one worker in a group. `slot`: its host there is the machine."""

    number: int
    host: str
    slot: Slot


def places(workers: Sequence[Worker]) -> tuple[Place, ...]:
    """By rank: the most senior is rank 0, machines follow by their most senior worker, each with all its workers."""
    by_machine: dict[str, list[Worker]] = {}
    for worker in sorted(workers, key=lambda worker: worker.seniority):
        by_machine.setdefault(worker.machine, []).append(worker)
    slots = assign([HostSlots(machine, len(there)) for machine, there in by_machine.items()], len(workers))
    by_rank = [worker for there in by_machine.values() for worker in there]
    return tuple(Place(worker.number, worker.host, slot) for worker, slot in zip(by_rank, slots, strict=True))
