"""A function that every rank calls, and what it returned: from the launcher to the processes of its job, and back.

Both are pickled (cloudpickle), and go over connections whose ends have both proved that they know the job's key. The
launcher listens; a process asks for the function, calls it, and answers with what it returned or the traceback.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phalanx.foundation import PhalanxError
from phalanx.horovod import wire
from phalanx.horovod.runner import remote

ADDRESS = "PHALANX_CALLS"  # the variable that says where the launcher listens
_PIECE = 24 << 20  # bytes in a message, which has a limit
_CONNECT_S = 30.0


class CallFailed(PhalanxError, RuntimeError):
    """The function raised an exception on a rank; its traceback is in the message. `rank`: whose."""

    rank: int = -1


def run_function(function: Callable[[], Any], values: Mapping[str, Any], executable: str | None) -> list[Any]:
    """Call `function` in every process of the job that the options `values` describe; see `runner.run`."""
    from phalanx.horovod.runner.elastic.driver import run_elastic
    from phalanx.horovod.runner.hosts import is_local
    from phalanx.horovod.runner.launch import Job, WorkerFailed, new_secret
    from phalanx.horovod.runner.options import checked, without_effect
    from phalanx.horovod.runner.settings import settle

    given = checked(values)
    for line in without_effect(given):
        _say(line)
    settings = settle(given, os.environ)
    data, key = dump(function), new_secret()
    argv = [executable or sys.executable, "-m", __name__]
    with contextlib.ExitStack() as stack:
        try:
            if settings.elastic:
                known = settings.hosts and all(is_local(host.host) for host in settings.hosts)
                calls = stack.enter_context(Calls(data, "127.0.0.1:0" if known else "0.0.0.0:0", key))
                run_elastic(settings, argv, _say, {ADDRESS: calls.address.removeprefix("0.0.0.0")}, key)
                return [calls.result(rank) for rank in range(settings.min_num_proc or settings.num_proc)]
            job = stack.enter_context(Job(settings, _say))
            where = f"{job.address}:0" if job.scratch is None else f"unix:{job.scratch / 'calls'}"
            calls = stack.enter_context(Calls(data, where, key))
            job.run(argv, {ADDRESS: calls.address}, key)
            return [calls.result(slot.rank) for slot in job.slots]
        except WorkerFailed:
            error = calls.first_error()
            if error is None:
                raise
            raise error from None


def _say(line: str) -> None:
    print(f"phalanx: {line}", file=sys.stderr, flush=True)  # noqa: T201 - where Horovod says it, too


class Calls:
    """A context: the launcher's end. `results`: by rank, of those that have answered; `errors`: tracebacks."""

    def __init__(self, function: bytes, where: str, key: str) -> None:
        self.results: dict[int, bytes] = {}
        self.errors: dict[int, str] = {}
        self._function = function
        self._listener = wire.listen(where, key.encode())
        self.address = self._listener.address
        self._thread = threading.Thread(target=self._accept, name="calls", daemon=True)

    def __enter__(self) -> Calls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join()

    def result(self, rank: int) -> object:
        """What the function returned there. Raises PhalanxError when the process ended without saying."""
        if rank not in self.results:
            raise PhalanxError(f"rank {rank} ended before the function returned", remedy="it must not end its process")
        return pickle.loads(self.results[rank])  # noqa: S301 - of a process that we started, and that knows the key

    def first_error(self) -> CallFailed | None:
        """The exception that was told first."""
        for rank, text in self.errors.items():
            last = text.strip().splitlines()[-1]
            error = CallFailed(f"{last}\n{text.strip()}", where=f"rank {rank}", remedy="look at its traceback, above")
            error.rank = rank
            return error
        return None

    def _accept(self) -> None:
        with contextlib.suppress(wire.WireClosed):  # at the end
            while found := self._listener.accept():
                threading.Thread(target=self._serve, args=(found,), daemon=True).start()

    def _serve(self, process: wire.Wire) -> None:
        with contextlib.closing(process), contextlib.suppress(wire.WireError):
            _send(process, self._function)
            answer = process.receive()
            assert isinstance(answer, dict)
            rank, data = int(str(answer["rank"])), _receive(process)
            if answer["good"]:
                self.results[rank] = data
            else:
                self.errors[rank] = data.decode(errors="replace")
            process.send("thanks")


def call(environment: Mapping[str, str]) -> int:
    """The process's end: call the function. The exit status: 0, or 1 for an exception, which is written as well.

    A call of sys.exit in the function ends the process as it would any other.
    """
    key = Path(environment[remote.KEY_FILE]).read_bytes()
    address = environment[ADDRESS]
    if address.startswith(":"):  # on the host that ssh came from
        address = environment.get("SSH_CONNECTION", "127.0.0.1").split()[0] + address
    with contextlib.closing(wire.connect(address, key, _CONNECT_S)) as launcher:
        try:
            function = pickle.loads(_receive(launcher))  # noqa: S301 - of our launcher, which knows the key
            value = dump(function())
        except Exception:  # noqa: BLE001 - whatever the function raises is told, here and to the launcher
            _answer(launcher, False, traceback.format_exc().encode(errors="replace"))
            traceback.print_exc()
            return 1
        _answer(launcher, True, value)
    return 0


def dump(value: object) -> bytes:
    """`value` pickled, functions of a script or notebook by what they are. Raises PhalanxError when it cannot be."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise PhalanxError(
            f"{value!r} cannot be pickled: {error}", remedy="give and return values that can be"
        ) from error


def _answer(launcher: wire.Wire, good: bool, data: bytes) -> None:
    rank = os.environ.get("HOROVOD_RANK") or os.environ["PHALANX_WORKER"]  # of an elastic job: as it is now
    launcher.send({"rank": int(rank), "good": good})
    _send(launcher, data)
    launcher.receive()  # it has it: the connection may end


def _send(to: wire.Wire, data: bytes) -> None:
    pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
    to.send(len(pieces))
    for piece in pieces:
        to.send(base64.b64encode(piece).decode())


def _receive(source: wire.Wire) -> bytes:
    count = source.receive()
    assert isinstance(count, int)
    return b"".join(base64.b64decode(str(source.receive())) for _ in range(count))


if __name__ == "__main__":
    sys.exit(call(os.environ))
