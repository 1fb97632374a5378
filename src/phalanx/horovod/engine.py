"""One rank's engine: what is in flight, and the thread that begins it when all ranks are ready for it.

    submit ---- announced to rank 0, by name ----> Coordinator: who is ready for what
    wait   <--- the same order on every rank ----- begun on the process set's group, in that order

Announcements of one cycle travel together: the first at once, those that follow it within the cycle at its end, when
they are large together, or when somebody waits. Knows torch tensors only as what `execution` takes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from phalanx.collectives import CollectiveError, Group
from phalanx.horovod.common.exceptions import HorovodInternalError
from phalanx.horovod.coordinator import Coordinator, decode, encode
from phalanx.horovod.execution import Operation, Work, begin, zeros_for
from phalanx.horovod.negotiation import End, Fail, Joined, Request, Response, Run, Sets, shown
from phalanx.horovod.stall import Stalls
from phalanx.horovod.star import Star
from phalanx.horovod.wire import Plain, WireClosed

if TYPE_CHECKING:
    from phalanx.horovod.timeline import Timeline

log = logging.getLogger("phalanx.horovod")

_LOOK_S = 0.02  # how often what is under way is looked at while nobody waits for it
_ENOUGH = 8 << 20  # bytes that are worth an operation of their own, while backward computes others
_MOST_SEEN, _MOST_NUMBERS = 1 << 16, 1 << 16  # names that are remembered
_STALLS_S = 1.0  # how often rank 0 looks for who keeps the others waiting
_LEAVE_S = 10.0  # for the others to leave as well
JOIN = Request("barrier", "join")


class Engine:
    """Of one process, from init to shutdown. `group`: all ranks; it and its subgroups are the engine's alone."""

    def __init__(self, group: Group, *, fuse_bytes: int, cycle_s: float, stalls: Stalls, timeout_s: float) -> None:
        self.group = group
        self.groups: dict[int, Group | None] = {0: group}  # by process set; None: this rank is no member
        self.sets: dict[int, tuple[int, ...]] = {0: tuple(range(group.size))}
        self.timeline: Timeline | None = None
        self._cycle_s = cycle_s
        self._star = Star(group, timeout_s)
        self._coordinator = Coordinator(group.size, fuse_bytes, stalls) if group.rank == 0 else None
        self._changed = threading.Condition(threading.RLock())
        self._in_flight: dict[tuple[int, str], Operation] = {}
        self._under_way: deque[Work] = deque()
        self._seen: dict[tuple[int, str], Request] = {}  # once; what is announced again, and alike, gets a number
        self._numbers: dict[tuple[int, str], tuple[Request, int]] = {}
        self._count = 0
        self._unnamed: dict[tuple[str, int], int] = {}
        self._outbox: list[Plain] = []
        self._waiting_bytes = 0
        self._inbox: deque[Response] = deque()  # of rank 0: what it has told the others and has yet to do itself
        self._sent_at = 0.0
        self._stalls_at = 0.0
        self._end: End | None = None
        self._thread = threading.Thread(target=self._run, name="phalanx-horovod", daemon=True)
        self._thread.start()

    # What callers do

    def submit(self, operation: Operation) -> None:
        """Announce it. Raises ValueError for a name that is in flight already, HorovodInternalError after the end."""
        request = operation.request
        key = request.process_set, request.name
        with self._changed:
            self._refuse_after_end()
            before = self._in_flight.get(key)
            if before is not None and not before.is_over():
                raise ValueError(
                    f"{request.name} is in flight already on rank {self.group.rank}: "
                    "give each operation a name of its own, or wait for the first"
                )
            self._in_flight[key] = operation
            self._announce(operation)

    def wait(self, operation: Operation) -> Any:
        """Its result. Raises HorovodInternalError, which names the ranks that are to blame."""
        with self._changed:
            self._flush()
            while operation.work is None and operation.error is None:
                self._changed.wait()
        if operation.work is not None and operation.error is None:
            try:
                operation.work.finish()
            except CollectiveError as error:
                raise HorovodInternalError(str(error)) from None
        with self._changed:
            self._forget(operation)
        if operation.error is not None:
            if isinstance(operation.error, HorovodInternalError):
                raise operation.error
            raise HorovodInternalError(str(operation.error)) from operation.error
        return operation.result

    def poll(self, operation: Operation) -> bool:
        """Whether `wait` would return, or raise, at once."""
        if operation.work is None:
            with self._changed:
                self._flush()
        over = operation.is_over()
        if over and operation.work is not None:  # who is told so may look at a tensor that is reduced in place
            with contextlib.suppress(CollectiveError):  # `wait` raises it
                operation.work.finish()
        return over

    def join(self) -> int:
        """This rank has no more data; who came last."""
        operation = Operation(JOIN)
        with self._changed:
            self._refuse_after_end()
            if (0, JOIN.name) in self._in_flight:
                raise ValueError(f"rank {self.group.rank} has joined already, and waits for the others")
            self._in_flight[0, JOIN.name] = operation
            self._outbox.append(["join"])
            self._flush()
        last: int = self.wait(operation)
        return last

    def add_set(self, ranks: Sequence[int]) -> int | None:
        """Of a new process set of `ranks`, the id; None when there is one of these. All ranks call it."""
        request = Request("add set", "process_set.add", members=tuple(sorted(ranks)))
        made: int = self._ask(request)
        return None if made < 0 else made

    def remove_set(self, number: int) -> bool:
        """Whether there was such a process set. All ranks call it."""
        made: int = self._ask(Request("remove set", "process_set.remove", members=(number,)))
        return made >= 0

    def _ask(self, request: Request) -> Any:
        operation = Operation(request)
        self.submit(operation)
        return self.wait(operation)

    def automatic_name(self, kind: str, process_set: int) -> str:
        """For an operation without one: by its number among those alike, which is the same on all ranks."""
        with self._changed:
            number = self._unnamed[kind, process_set] = self._unnamed.get((kind, process_set), 0) + 1
        return f"noname.{number}"

    def shutdown(self, reason: str = "") -> None:
        """Leave, all ranks together: whoever calls this first ends it for all. Idempotent; never raises."""
        with self._changed:
            if self._end is None:
                self._outbox.append(["bye", reason or f"rank {self.group.rank} has shut down"])
                self._flush()
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            self._thread.join(_LEAVE_S + 5.0)

    def disown(self) -> None:
        """In a forked child: the thread and the connections are the parent's. Who we are can still be asked."""
        self._changed = threading.Condition(threading.RLock())
        self._end = End("this is a forked child of a process that called hvd.init()")

    def begin_timeline(self, timeline: Timeline | None) -> None:
        """Draw from now on into `timeline`; None: no longer. The one before is closed."""
        with self._changed:
            before, self.timeline = self.timeline, timeline
            if self._coordinator is not None:
                self._coordinator.timeline = timeline
        if before is not None:
            before.close()

    def _refuse_after_end(self) -> None:
        if self._end is not None:
            raise HorovodInternalError(self._why(self._end))

    def _why(self, end: End) -> str:
        if end.lost >= 0 or not end.reason.startswith("rank "):
            return f"Horovod has been shut down: {end.reason}"
        return (
            f"Horovod has been shut down: {end.reason.rstrip('.')}. This happens when one rank ends, or raises an "
            "error, while others still have work"
        )

    # Announcements

    def _announce(self, operation: Operation) -> None:
        request = operation.request
        self._outbox.append(request.encode() if operation.unnamed else self._said(request))
        self._waiting_bytes += request.nbytes
        if self._waiting_bytes >= _ENOUGH or time.monotonic() - self._sent_at >= self._cycle_s:
            self._flush()
        elif len(self._outbox) == 1:
            self._star.ring()  # the thread sends it at the end of the cycle

    def _said(self, request: Request) -> Plain:
        """Its number, from the second time on that it is announced alike."""
        key = request.process_set, request.name
        known = self._numbers.get(key)
        if known is not None and known[0] == request:
            return known[1]
        if self._seen.get(key) != request or self._count >= _MOST_NUMBERS:
            self._seen.pop(key, None)
            self._seen[key] = request
            if len(self._seen) > _MOST_SEEN:
                del self._seen[next(iter(self._seen))]
            return request.encode()
        del self._seen[key]
        self._numbers[key] = request, self._count
        self._count += 1
        return ["number", request.encode()]

    def _flush(self) -> None:
        """With the lock held."""
        if not self._outbox or self._end is not None:  # after which nobody listens
            return
        message, self._outbox, self._waiting_bytes = self._outbox, [], 0
        self._sent_at = time.monotonic()
        if self._coordinator is None:
            self._star.send(message)
        else:
            self._tell(self._coordinator.hear(0, message))

    def _tell(self, responses: list[Response]) -> None:
        """Rank 0: to all ranks, with the lock held, so that all are told the same in the same order."""
        if responses:
            self._star.send(encode(responses))
            self._inbox.extend(responses)
            if threading.current_thread() is not self._thread:
                self._star.ring()

    # The thread

    def _run(self) -> None:
        try:
            while self._end is None:
                for rank in self._star.wait(self._patience()):
                    self._read(rank)
                self._act()
                with self._changed:
                    if self._outbox and time.monotonic() - self._sent_at >= self._cycle_s:
                        self._flush()
                self._look_after()
        except BaseException as error:  # of ours: it goes to the log, and all are told
            reason = f"the engine of rank {self.group.rank} failed ({type(error).__name__}: {error})"
            with self._changed:
                if self._coordinator is None:
                    self._star.send([["failed", reason]])
                else:
                    self._star.send(encode([End(reason, lost=0)]))
            self._stop(End(reason, lost=self.group.rank))
            raise
        finally:
            self.begin_timeline(None)
            self._star.close()

    def _patience(self) -> float | None:
        """For how long there is nothing to do but to listen, in seconds."""
        if self._inbox:
            return 0.0
        if self._outbox:
            return max(self._sent_at + self._cycle_s - time.monotonic(), 0.0)
        if self._under_way:
            return _LOOK_S
        return _STALLS_S if self._coordinator is not None else None

    def _read(self, rank: int) -> None:
        try:
            message = self._star.receive(rank)
        except WireClosed:
            if self._coordinator is None:
                self._inbox.append(End("rank 0 is gone", lost=0))
            elif rank not in self._coordinator.left:
                with self._changed:
                    self._tell(self._coordinator.lose(rank))
            return
        if self._coordinator is None:
            self._inbox.extend(decode(message))
        else:
            with self._changed:
                self._tell(self._coordinator.hear(rank, message))

    def _act(self) -> None:
        """Do what has been told, in its order."""
        while self._inbox and self._end is None:
            response = self._inbox.popleft()
            match response:
                case Run():
                    self._begin(response)
                case Fail(process_set, name, reason):
                    self._settle(process_set, name, error=HorovodInternalError(reason))
                case Joined(last):
                    self._unnamed.clear()  # who joined early has issued fewer: all count anew
                    self._settle(0, JOIN.name, result=last)
                case Sets():
                    self._change_sets(response)
                case End():
                    self._stop(response)

    def _begin(self, run: Run) -> None:
        group = self.groups.get(run.process_set)
        if group is None:
            return
        operations = []
        for index, name in enumerate(run.names):
            operation = self._in_flight.get((run.process_set, name))
            operations.append(operation if operation is not None else zeros_for(run.requests[index]))
        timeline = self.timeline if self._coordinator is not None else None
        kind = operations[0].request.kind.upper()
        lanes = [shown(run.process_set, name) for name in run.names] if timeline is not None else []
        if timeline is not None:
            for lane in lanes:
                timeline.start(lane, kind)
                timeline.activity(lane, f"{type(group.transport).__name__.upper()}_{kind}")
        try:
            work = begin(group, operations)
            if timeline is not None:
                work.finish()
        except CollectiveError as error:
            with self._changed:
                for operation in operations:
                    operation.error = error
                self._changed.notify_all()
            return
        finally:
            if timeline is not None:
                for lane, operation in zip(lanes, operations, strict=True):
                    timeline.end(lane, operation.request.nbytes)
        self._under_way.append(work)
        with self._changed:
            for operation in operations:
                operation.work = work
            self._changed.notify_all()

    def _settle(self, process_set: int, name: str, *, result: Any = None, error: Exception | None = None) -> None:
        with self._changed:
            operation = self._in_flight.pop((process_set, name), None)
            if operation is not None:
                operation.result, operation.error = result, error
                if error is None:
                    operation.work = Work([operation], [], lambda: None)
                self._changed.notify_all()

    def _change_sets(self, sets: Sets) -> None:
        for number in self.groups.keys() - sets.ranks.keys():
            gone = self.groups.pop(number)
            if gone is not None:
                self._drain()
                gone.close()
        try:
            for number, ranks in sets.ranks.items():
                if number not in self.groups:
                    self.groups[number] = self.group.subgroup(ranks)
        except CollectiveError as error:
            self._settle(0, sets.name, error=error)
            return
        self.sets = dict(sets.ranks)
        self._settle(0, sets.name, result=sets.made)

    def _look_after(self) -> None:
        """Finish what nobody waits for, and forget it; rank 0 also looks for who keeps the others waiting."""
        while self._under_way and self._under_way[0].poll():
            work = self._under_way.popleft()
            try:
                work.finish()
            except CollectiveError as error:
                log.debug("an operation failed: %s", error)  # whoever waits for it is told
            with self._changed:
                for operation in work.operations:
                    self._forget(operation)
        if self._coordinator is not None and time.monotonic() >= self._stalls_at:
            self._stalls_at = time.monotonic() + _STALLS_S
            with self._changed:
                self._tell(self._coordinator.look_for_stalls())

    def _forget(self, operation: Operation) -> None:
        """With the lock held."""
        key = operation.request.process_set, operation.request.name
        if self._in_flight.get(key) is operation:
            del self._in_flight[key]

    def _drain(self) -> None:
        while self._under_way:
            try:
                self._under_way.popleft().finish()
            except CollectiveError as error:
                log.debug("an operation failed: %s", error)  # whoever waits for it is told

    def _stop(self, end: End) -> None:
        """What has begun is finished, the rest fails. Who is gone cannot finish anything: then all fails at once."""
        error = HorovodInternalError(self._why(end))
        with self._changed:
            self._end = end
            for operation in self._in_flight.values():
                if operation.work is None:
                    operation.error = error
            self._changed.notify_all()
        if end.lost >= 0:
            for group in self.groups.values():
                if group is not None:
                    group.transport.abort(end.reason)
        self._drain()  # also: nobody is inside an operation when the group is closed
        if end.lost < 0:
            try:
                self.group.transport.wait(self.group.transport.barrier(name="shutdown", asynchronous=True), _LEAVE_S)
            except CollectiveError as problem:
                log.debug("leaving: %s", problem)
        self.group.close()
