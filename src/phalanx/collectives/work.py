"""What torch.distributed gets back from an operation: a Work that is done, or one that polls its transport's tickets.

The transport makes progress by itself (in C, where it is ours), so nothing here has to run for an operation to
finish: a Work only looks. torch's C++ (DDP's reducer) cannot look, it waits for a Future; one thread a group, started
with the first Future, completes them in the order of their operations. Knows nothing of groups.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor
from torch._C._autograd import _profiler_enabled
from torch.autograd.profiler import record_function
from torch.futures import Future

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.transports.transport import Transport

NO_TIMEOUT = timedelta(0)  # c10d's kNoTimeout; options have -1 ms
_SECOND = timedelta(seconds=1)


class Group(Protocol):
    """What a Work knows of its group. Its transport is another one when the group has been destroyed."""

    transport: Transport
    courier: Courier


class Call:
    """One call of torch's while it is begun: the tickets it got, and what to do with the result when it is there."""

    def __init__(self, title: str, options: Any, result: list[Any]) -> None:
        self.title = title
        self.asynchronous: bool = options.asyncOp
        self.timeout: timedelta = options.timeout
        self.result = result
        self.tickets: list[int] = []
        self.afterwards: list[Callable[[], object]] = []

    def output(self, tensor: Tensor) -> Tensor:
        """`tensor` as a transport takes it, or a copy that will be copied back."""
        flat = plain(tensor)
        if flat.data_ptr() != tensor.data_ptr():
            self.afterwards.append(lambda: tensor.copy_(flat))
        return flat

    def finish(self) -> None:
        for do in self.afterwards:
            do()


def plain(tensor: Tensor) -> Tensor:
    """Contiguous and as its memory says (a conjugate is a flag on another's memory): what a transport takes."""
    return (tensor.resolve_conj() if tensor.is_complex() else tensor).contiguous()


class Done(dist.Work):
    """An operation that has finished. `result` is what its future holds: the output tensors."""

    def __init__(self, result: list[Any]) -> None:
        super().__init__()
        self._result = result

    def wait(self, timeout: timedelta = NO_TIMEOUT) -> bool:
        return True

    def synchronize(self) -> None:
        return None

    def block_current_stream(self) -> None:
        return None

    def is_completed(self) -> bool:
        return True

    def is_success(self) -> bool:
        return True

    def exception(self) -> None:
        return None

    def result(self) -> list[Any]:
        return self._result

    def get_future(self) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(self._result)
        return future


class Pending(dist.Work):
    """An operation under way.

    `wait` raises the operation's CollectiveError. A future has it as a RuntimeError of the same words, which is all
    that torch's C++ can pass on.
    """

    def __init__(self, call: Call, group: Group) -> None:
        super().__init__()
        self._call = call
        self._group = group
        self._finished = False
        self._error: Exception | None = None
        self._once = threading.Lock()
        self._future: Future[Any] | None = None
        if _profiler_enabled():
            self._show()
        elif call.afterwards:
            self.get_future()  # the output gets its values even if nobody waits for this Work

    def wait(self, timeout: timedelta = NO_TIMEOUT) -> bool:
        """Raises CollectiveTimeout after `timeout`, else after that of the call's options, else the group's."""
        if not self._finished:
            timeout = timeout if timeout > NO_TIMEOUT else self._call.timeout
            for ticket in self._call.tickets:
                self._group.transport.wait(ticket, timeout / _SECOND if timeout > NO_TIMEOUT else None)
            self._finish()
        if self._error is not None:
            raise self._error
        return True

    def synchronize(self) -> None:
        self.wait()

    def block_current_stream(self) -> None:
        self.wait()

    def is_completed(self) -> bool:
        if not self._finished:
            if not all(self._group.transport.done(ticket) for ticket in self._call.tickets):
                return False
            if self._call.afterwards:
                with suppress(CollectiveError):  # `wait` and `exception` tell it
                    self.wait()
        return True

    def is_success(self) -> bool:
        return self.is_completed() and self.exception() is None

    def exception(self) -> CollectiveError | None:
        if self.is_completed():
            try:
                self.wait()
            except CollectiveError as error:
                return error
        return None

    def result(self) -> list[Any]:
        """The output tensors, once they have their values."""
        self.wait()
        return self._call.result

    def get_future(self) -> Future[Any]:
        if self._future is None and self.is_success():
            self._future = Done(self._call.result).get_future()
        if self._future is None:
            # What `then` raises is an error for C++ as well; Future.set_exception makes one for Python alone.
            gate: Future[None] = Future()
            self._future = gate.then(lambda _: self.result())
            self._group.courier.bring(gate)
        return self._future

    def _finish(self) -> None:
        with self._once:
            if not self._finished:
                try:
                    self._call.finish()
                except CollectiveError as error:
                    self._error = error
                self._finished = True

    def _show(self) -> None:
        """In a profile, from now until the operation has finished, as gloo's and NCCL's are."""
        with record_function(self._call.title) as span:
            self._future = span._call_end_callbacks_on_future(self.get_future())


class All(Done):
    """Several as one."""

    def __init__(self, works: Sequence[dist.Work]) -> None:
        super().__init__([])
        self._works = works

    def wait(self, timeout: timedelta = NO_TIMEOUT) -> bool:
        for work in self._works:
            work.wait(timeout)
        return True

    def is_completed(self) -> bool:
        return all(work.is_completed() for work in self._works)


class Courier:
    """The thread that completes one group's futures, in order. It starts with the first and ends with `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._gates: SimpleQueue[Future[None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def bring(self, gate: Future[None]) -> None:
        """Complete `gate` after those before it; what hangs on it by `then` waits for its operation in our thread."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        self._gates.put(gate)

    def close(self) -> None:
        """Return when all futures are complete; to be called when their operations have ended, well or badly."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            self._gates.put(None)
            thread.join()

    def _run(self) -> None:
        while (gate := self._gates.get()) is not None:
            gate.set_result(None)
