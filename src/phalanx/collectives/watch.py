"""The watch: one thread a process that says where this rank stands, speaks when an operation hangs, and keeps the log.

Once a second, for every transport that is watched,

    where the main thread's Python stands  -> the other ranks (so that they can say it when this one is stopped)
    an operation that does not end         -> one warning after 3 s, then after 6, 12, 24, ... and a flight dump
    operations that have ended             -> rows of events, when there is somebody to take them

A process that forks leaves its watch behind. Knows nothing of groups: whoever makes a transport calls `watch`, and
`unwatch` before closing it, after which no thread touches it any more.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

from phalanx.collectives import counters, flight, hang, whereabouts
from phalanx.collectives.errors import CollectiveError, CollectiveTimeout, Mismatch, PeerLost
from phalanx.collectives.transports.transport import RankState, Record, Transport
from phalanx.events import Sink
from phalanx.foundation import StorageError

PERIOD_S = 1.0
PATIENCE_S = 3.0  # before the first warning, which therefore comes within 4 s

log = logging.getLogger(__name__)


class _Alarm:
    """Goes off when one thing has lasted PATIENCE_S, then twice that, four times, ..."""

    def __init__(self) -> None:
        self._thing: Hashable = None
        self._next_s = PATIENCE_S

    def goes_off(self, thing: Hashable, lasted_s: float) -> bool:
        if thing != self._thing:
            self._thing, self._next_s = thing, PATIENCE_S
        if thing is None or lasted_s < self._next_s:
            return False
        while self._next_s <= lasted_s:
            self._next_s *= 2
        return True


@dataclass
class _Watched:
    transport: Transport
    group: str
    members: tuple[int, ...]  # the world's ranks
    read: int = 0  # the newest operation that became a row
    is_broken: bool = False
    hangs: _Alarm = field(default_factory=_Alarm)
    lags: _Alarm = field(default_factory=_Alarm)
    # Where this rank stood when others were first seen ahead of it, and when that was.
    lag: tuple[int, float] = (0, 0.0)


class Watch:
    """Of one process; `watch` and its neighbours below are those of the only one there need be."""

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self._period_s = period_s
        self._lock = threading.RLock()
        self._watched: list[_Watched] = []
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._sink: Sink | None = None
        self._prefix: str | None = None

    def add(self, transport: Transport, group: str = "world", members: Sequence[int] | None = None) -> None:
        """Watch `transport`, whose ranks are the `members` of the world (default: all of it, in order)."""
        with self._lock:
            names = {watched.group for watched in self._watched}
            number = 1
            while (name := group if number == 1 else f"{group}#{number}") in names:
                number += 1
            self._watched.append(_Watched(transport, name, tuple(members or range(transport.size))))
            transport.on_failure = partial(self.failed, transport)
            if self._thread is None:
                self._wake = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._wake,), name="phalanx-watch", daemon=True)
                self._thread.start()
                atexit.register(self.leave)  # after, so that it is called before, what frees the transport

    def leave(self) -> None:
        """At the end of the process: forget all transports, and if it ends of an error, tell the others which."""
        reason = why_it_ends()
        with self._lock:
            for watched in list(self._watched):
                self.remove(watched.transport)
                if reason and not watched.is_broken:
                    watched.transport.abort(reason)

    def remove(self, transport: Transport) -> None:
        """Read its last operations and forget it; no thread of the watch touches it after this returns."""
        with self._lock:
            for watched in [one for one in self._watched if one.transport is transport]:
                transport.on_failure = None
                self._read(watched)
                self._watched.remove(watched)
            if not self._watched and self._thread is not None:
                self._wake.set()
                self._thread = None
                atexit.unregister(self.leave)

    def report_to(self, *, sink: Sink | None = None, prefix: str | None = None) -> None:
        """From now on rows go to `sink` and dumps to files `<prefix><rank>`; None: nowhere, and torch's variables."""
        with self._lock:
            for watched in self._watched:
                self._read(watched)
            self._sink, self._prefix = sink, prefix

    def failed(self, transport: Transport, error: CollectiveError) -> None:
        """The transport is about to raise `error`, and the process may end of it: the dump is written now."""
        with self._lock:
            for watched in self._watched:
                if watched.transport is transport and not watched.is_broken:
                    watched.is_broken = True
                    self._read(watched)
                    self._dump(error.message, _states(watched), watched)

    def dump(self, prefix: str | None = None, reason: str = "asked for") -> str | None:
        """Write this rank's flight recorder now; the file, or None where no place for it is known."""
        with self._lock:
            return self._dump(reason, prefix=prefix)

    def forget(self) -> None:
        """In a forked child: its parent's transports are not its own."""
        self.__init__(self._period_s)  # type: ignore[misc]  # locks and threads do not survive a fork

    def _run(self, wake: threading.Event) -> None:
        while not wake.wait(self._period_s):
            with self._lock:
                here = whereabouts.main_thread()
                for watched in self._watched:
                    self._look(watched, here)

    def _look(self, watched: _Watched, here: str) -> None:
        transport = watched.transport
        if watched.is_broken:
            return
        try:
            transport.say_whereabouts(here)
            self._read(watched)
            unfinished = transport.unfinished()
            states = transport.states()
        except CollectiveError:  # it is broken, which those who use it are told
            return
        self._look_for_a_hang(watched, unfinished, states)
        self._look_for_a_lag(watched, states, here)

    def _look_for_a_hang(self, watched: _Watched, unfinished: Sequence[Record], states: Sequence[RankState]) -> None:
        oldest = unfinished[0] if unfinished else None
        lasted_s = (time.time_ns() - (oldest.arrived_ns or oldest.submitted_ns)) / 1e9 if oldest else 0.0
        if watched.hangs.goes_off(oldest and oldest.sequence, lasted_s) and oldest is not None:
            said = hang.report(oldest, states, watched.transport.rank, lasted_s, watched.group, watched.members)
            log.warning("%s", said)
            self._dump(said, states, watched)

    def _look_for_a_lag(self, watched: _Watched, states: Sequence[RankState], here: str) -> None:
        """Others are inside an operation that this rank has not come to."""
        mine = states[watched.transport.rank].sequence if states else 0
        ahead = any(state.sequence > mine and state.inside for state in states)
        now = time.monotonic()
        if not ahead or watched.lag[0] != mine or not watched.lag[1]:
            watched.lag = (mine, now if ahead else 0.0)
        lasted_s = now - watched.lag[1]
        if watched.lags.goes_off(mine if ahead else None, lasted_s):
            said = hang.late_report(states, watched.transport.rank, lasted_s, here, watched.group, watched.members)
            log.warning("%s", said)
            self._dump(said)

    def _read(self, watched: _Watched) -> None:
        """What has ended since the last time, as rows."""
        if self._sink is None:
            return
        records, lost = watched.transport.records(watched.read)
        for row in counters.rows(records, lost, watched.group, watched.transport.size):
            self._sink.emit("collectives", row)
        if records:
            watched.read = records[-1].sequence

    def _dump(
        self,
        reason: str,
        states: Sequence[RankState] = (),
        broken: _Watched | None = None,
        prefix: str | None = None,
    ) -> str | None:
        """This rank's file, and those of the ranks of `broken` that cannot write their own."""
        prefix = prefix or self._prefix or flight.prefix_from(os.environ)
        if prefix is None or not self._watched:
            return None
        try:
            world = self._watched[0]
            parts = [_part(watched) for watched in self._watched]
            frames = whereabouts.main_frames()
            own = flight.write(prefix, world.members[world.transport.rank], parts, reason=reason, frames=frames)
            if broken is world:
                for state in states:
                    if hang.is_silent(state) and state.rank != world.transport.rank:
                        known = flight.Part(world.group, world.members, _known(parts[0], state), parts[0].since)
                        member = world.members[state.rank]
                        flight.write(
                            prefix, member, [known], reason=reason, written_by=world.members[world.transport.rank]
                        )
        except (StorageError, CollectiveError) as error:
            log.warning("the flight recorder could not be written: %s", error)
            return None
        return str(own)


def _states(watched: _Watched) -> list[RankState]:
    try:
        return watched.transport.states()
    except CollectiveError:
        return []


def _part(watched: _Watched) -> flight.Part:
    """The last operations; from where on, all ranks see alike while none goes on."""
    slowest = min((state.sequence for state in _states(watched)), default=0)
    since = max(0, slowest - flight.KEPT)
    finished, _ = watched.transport.records(since)
    return flight.Part(watched.group, watched.members, [*finished, *watched.transport.unfinished()], since)


def _known(part: flight.Part, state: RankState) -> list[Record]:
    """What a silent rank is known to have done: the same as this one, up to where it stands."""
    done = state.sequence - state.inside
    return [record for record in part.records if record.sequence <= done]


def why_it_ends() -> str:
    """The error that nobody caught, for those who leave at the end of a process; "": none, or one the others share."""
    error = getattr(sys, "last_value", None)
    if error is None or isinstance(error, PeerLost | CollectiveTimeout | Mismatch):
        return ""
    return " ".join(f"{type(error).__name__}: {error}".split())


_process = Watch()
os.register_at_fork(after_in_child=_process.forget)

watch = _process.add
unwatch = _process.remove
report_to = _process.report_to
dump_flight_recorder = _process.dump
