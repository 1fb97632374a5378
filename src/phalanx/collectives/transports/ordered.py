"""A queue of operations that one thread at a time runs in the order of their submission, and what is known of them.

The base of transports written in Python. A blocking operation runs in its caller when nothing is pending; all others
on one thread, started with the first asynchronous one. The first error kills the transport: every later operation
and every waiter gets it. Knows nothing of tensors: a call is a function and a header.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout
from phalanx.collectives.transports.header import Header
from phalanx.collectives.transports.transport import Record, Transport

RECORDS = 4096  # as many as the shared-memory transport keeps
Gathered = tuple[torch.Tensor, list[int]]


@dataclass(slots=True)
class Call:
    """One operation of this rank. `run` does it, and returns what `take` fetches, if anything."""

    sequence: int
    header: Header
    bytes: int
    run: Callable[[Call], Gathered | None]
    in_caller: bool
    submitted_ns: int
    arrived_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0

    def started(self) -> None:
        """All ranks have arrived."""
        self.started_ns = time.time_ns()

    def record(self) -> Record:
        does = self.header
        times = (self.submitted_ns, self.arrived_ns, self.started_ns, self.finished_ns)
        return Record(self.sequence, does.kind, does.name, does.op, does.dtype, does.shape, self.bytes, *times)


class InOrder(Transport):
    """`_submit` calls; subclasses say in `_give_up` and `_shut` how connections end."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self._changed = threading.Condition()
        self._open: deque[Call] = deque()
        self._submitted = 0
        self._completed = 0
        self._error: CollectiveError | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self._records: deque[Record] = deque(maxlen=RECORDS)
        self._results: dict[int, Gathered] = {}
        self._last = Header("")

    def _submit(
        self, header: Header, size_bytes: int, run: Callable[[Call], Gathered | None], *, asynchronous: bool
    ) -> int:
        """The ticket of the call: 0 when it has been completed here and left nothing to `take`."""
        with self._changed:
            if self._error is not None:
                raise self._error
            in_caller = not asynchronous and not self._open
            self._submitted += 1
            call = Call(self._submitted, header, size_bytes, run, in_caller, time.time_ns())
            self._open.append(call)
            if not in_caller:
                self._start_thread()
                self._changed.notify_all()
        if in_caller:
            self._run(call)
        elif not asynchronous:
            self.wait(call.sequence)
        return call.sequence if asynchronous or call.sequence in self._results else 0

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"phalanx-collectives-{self.rank}", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._error is not None or (bool(self._open) and not self._open[0].in_caller)
                )
                if self._error is not None:
                    return
                call = self._open[0]
            try:
                self._run(call)
            except CollectiveError:
                return  # it is kept for those who wait

    def _run(self, call: Call) -> None:
        call.arrived_ns = time.time_ns()
        self._last = call.header
        try:
            result = call.run(call)
        except CollectiveError as error:
            self._break(error)
            assert self._error is not None
            if self._error is error:
                raise
            raise self._error from error  # it was closed or aborted meanwhile
        except BaseException as error:  # hides nothing: who waits must not wait for ever, and then it goes on
            self._break(CollectiveError(f"{call.header.kind}: {str(error) or type(error).__name__}"))
            raise
        with self._changed:
            call.finished_ns = time.time_ns()
            self._records.append(call.record())
            if result is not None:
                self._results[call.sequence] = result
                while len(self._results) > RECORDS:  # nobody came for them
                    del self._results[next(iter(self._results))]
            self._open.popleft()
            self._completed = call.sequence
            self._changed.notify_all()

    def _count(self, call: Call) -> None:
        """`call` was one operation of the others already, and goes on: numbers stay alike on all ranks."""
        with self._changed:
            if call.sequence == self._submitted:
                self._submitted += 1
                call.sequence += 1

    def _break(self, error: CollectiveError) -> None:
        """Nothing works from now on; the first error stays."""
        with self._changed:
            first = self._error is None
            if first:
                self._error = error
            self._changed.notify_all()
        if first:
            if self.on_failure is not None and not self._closed:
                self.on_failure(error)
            self._shut(error)

    def take(self, ticket: int) -> Gathered:
        self.wait(ticket)
        if ticket not in self._results:
            raise CollectiveError("the result of a ragged operation was fetched too late, or twice")
        return self._results.pop(ticket)

    def done(self, ticket: int) -> bool:
        return ticket <= self._completed or self._error is not None

    def wait(self, ticket: int, timeout_s: float | None = None) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self.done(ticket), timeout_s):
                words = next((call.header.in_words() for call in self._open if call.sequence == ticket), "operation")
                raise CollectiveTimeout(
                    f"{words}: not finished by all ranks within {timeout_s:g} s",
                    remedy="see which rank is stopped or far behind; its log tells what it does",
                )
            if ticket > self._completed and self._error is not None:
                raise self._error

    def abort(self, reason: str) -> None:
        if self._error is None:
            self._give_up(reason)
        self._break(CollectiveError(f"this rank left the group: {reason}"))
        self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._break(CollectiveError("the group is closed"))
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)

    @abstractmethod
    def _give_up(self, reason: str) -> None:
        """Tell the others why this rank leaves."""

    @abstractmethod
    def _shut(self, error: CollectiveError) -> None:
        """Close the connections, also those that another thread waits on."""

    def records(self, after: int) -> tuple[list[Record], int]:
        with self._changed:
            found = [record for record in self._records if record.sequence > after]
            first = found[0].sequence if found else self._completed + 1
        return found, first - after - 1

    def unfinished(self) -> list[Record]:
        with self._changed:
            return [call.record() for call in self._open]
