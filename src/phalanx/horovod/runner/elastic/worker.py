"""A worker's end of its launcher: it asks for a place in the next group, and hears what happens to the others.

    worker -> launcher  {"hello": number, "port": a free one here, "interfaces": {...}}     once
                        {"ready": does it need the state anew?}                              at every hvd.init()
                        {"synced": true}                      it has what rank 0 has
    launcher -> worker  {"place": variables, "formed_at": time, "sync": does anybody?}
                        {"leave": why}                        there is no place for it any more
                        {"over": generation, "why": why}      somebody of that generation has ended
                        {"updated": time, "result": n}        to rank 0: hosts were added or removed

Standard library and `horovod.wire` only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from enum import IntFlag
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from phalanx.horovod import wire
from phalanx.horovod.common.exceptions import HorovodInternalError
from phalanx.horovod.runner import remote

DRIVER = "PHALANX_DRIVER"  # the variable that says where the launcher listens; ":port" where ssh knows its address
WORKER = "PHALANX_WORKER"  # the variable with this worker's number

log = logging.getLogger("phalanx.horovod")

_CONNECT_S = 30.0
_TOLD_S = 2.0  # for the launcher to say that a rank is lost, which the others may notice earlier

T = TypeVar("T")


class HostUpdateResult(IntFlag):
    """What has happened to the hosts."""

    no_update = 0
    removed = 1
    added = 2
    mixed = 3


class Listener(Protocol):
    """What is told of hosts: a State."""

    def on_hosts_updated(self, timestamp: float, update_res: HostUpdateResult) -> None:
        """At `timestamp`, of the launcher's clock."""


class WorkerNotificationManager:
    """What this process's elastic loop tells the launcher, and hears from it; nothing where there is no such launcher.

    `needs_sync`: before `hvd.init()`, whether this rank needs the state anew; after it, whether any rank does.
    """

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self.needs_sync = True

    def init(self) -> None:
        """From now on listeners are told."""
        _managers.add(self)

    def synced(self) -> None:
        """Tell the launcher that this process has the state, which must not get lost."""
        if _link is not None:
            _link.tell({"synced": True})

    @property
    def formed_at(self) -> float:
        """When this process's group was given its places, by the launcher's clock; 0.0 without one."""
        return _link.formed_at if _link is not None else 0.0

    def register_listener(self, listener: Listener) -> None:
        """Tell `listener` as well, and of what came before it."""
        self._listeners.add(listener)
        if _link is not None and _link.updated is not None:
            listener.on_hosts_updated(*_link.updated)

    def remove_listener(self, listener: Listener) -> None:
        """Do not tell it any more."""
        self._listeners.discard(listener)

    def handle_hosts_updated(self, timestamp: float, update_res: HostUpdateResult) -> None:
        """Tell all listeners."""
        for listener in list(self._listeners):
            listener.on_hosts_updated(timestamp, update_res)


def assignment(environment: Mapping[str, str]) -> Mapping[str, str] | None:
    """The variables of this process's place in the next group; waits for it. None: no launcher has to be asked.

    Raises SystemExit(0) when there is no place any more (the host was taken away, or the others have finished), and
    HorovodInternalError when the launcher is gone.
    """
    global _link
    if not environment.get(DRIVER):
        return None
    if _link is None:
        _link = _Link(environment)
    needs_sync = any(manager.needs_sync for manager in _managers) if _managers else True
    answer = _link.ask(needs_sync)
    for manager in _managers:
        manager.needs_sync = bool(answer["sync"])
    place: dict[str, str] = answer["place"]
    return place


def unless_called_off(form: Callable[[], T], undo: Callable[[T], object]) -> T:
    """What `form` returns, or raises. Raises CalledOff when a rank is lost before: `form` may wait for it in vain.

    It is then left alone, in a thread of its own; should it come to an end after all, `undo` is called.
    """
    assert _link is not None
    attempt = _Attempt(form, undo, _link.ring)
    threading.Thread(target=attempt.run, name="phalanx-forming", daemon=True).start()
    if not _link.wait(lambda: attempt.done):
        attempt.abandon()
        raise CalledOff
    if attempt.error is None:
        return attempt.result[0]
    if isinstance(attempt.error, HorovodInternalError) and _link.wait(lambda: False, _TOLD_S) is False:
        raise CalledOff from attempt.error
    raise attempt.error


class CalledOff(Exception):
    """The group will not come about. A place in the next can be asked for."""


class _Attempt(Generic[T]):
    def __init__(self, form: Callable[[], T], undo: Callable[[T], object], ring: Callable[[], None]) -> None:
        self._form = form
        self._undo = undo
        self._ring = ring
        self._lock = threading.Lock()
        self._abandoned = False
        self.done = False
        self.result: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result.append(self._form())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self.error = error
        with self._lock:
            self.done = True
            unwanted = self.result if self._abandoned else []
        for result in unwanted:
            self._undo(result)
        self._ring()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            unwanted = self.result if self.done else []
        for result in unwanted:
            self._undo(result)


class _Link:
    """The connection, and the thread that listens to it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        key = Path(environment[remote.KEY_FILE]).read_bytes()
        self.formed_at = 0.0
        self.updated: tuple[float, HostUpdateResult] | None = None  # the last since then
        self._generation = -1
        self._over = ""
        self._answers: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._gone = ""
        try:
            self._wire = wire.connect(_address(environment), key, _CONNECT_S)
            facts = remote.facts()
            number = int(environment[WORKER])
            self._wire.send({"hello": number, "port": facts["port"], "interfaces": facts["interfaces"]})
        except wire.WireError as error:
            raise HorovodInternalError(f"the launcher cannot be reached: {error}") from error
        threading.Thread(target=self._listen, name="phalanx-launcher", daemon=True).start()

    def ask(self, needs_sync: bool) -> dict[str, Any]:
        with self._changed:
            self._answers.clear()
            try:
                self._wire.send({"ready": needs_sync})
            except wire.WireClosed as error:
                raise HorovodInternalError(f"the launcher is gone: {error}") from error
            while not self._answers and not self._gone:
                self._changed.wait()
            if not self._answers:
                raise HorovodInternalError(self._gone)
            answer = self._answers.pop()
        if "leave" in answer:
            log.info("this worker is no longer needed: %s", answer["leave"])
            sys.exit(0)
        return answer

    def tell(self, message: wire.Plain) -> None:
        with contextlib.suppress(wire.WireClosed):  # without its launcher this process ends as well
            self._wire.send(message)

    def wait(self, done: Callable[[], bool], timeout_s: float | None = None) -> bool | None:
        """True once `done()`, False once somebody of this group is lost, None after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: done() or self._over, timeout_s)
            return True if done() else False if self._over else None

    def ring(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _listen(self) -> None:
        try:
            while True:
                message = self._wire.receive()
                assert isinstance(message, dict)
                self._hear(message)
        except wire.WireError as error:
            with self._changed:
                self._gone = f"the launcher is gone: {error}"
                self._changed.notify_all()

    def _hear(self, message: dict[str, Any]) -> None:
        if "updated" in message:
            self.updated = message["updated"], HostUpdateResult(message["result"])
            for manager in list(_managers):
                manager.handle_hosts_updated(*self.updated)
            return
        with self._changed:
            if message.get("over") == self._generation:
                self._over = message["why"]
            elif "place" in message:
                self.formed_at = message["formed_at"]
                self._generation = int(message["place"]["PHALANX_GENERATION"])
                self._over, self.updated = "", None
                self._answers.append(message)
            elif "leave" in message:
                self._answers.append(message)
            self._changed.notify_all()


def _address(environment: Mapping[str, str]) -> str:
    address = environment[DRIVER]
    return environment["SSH_CONNECTION"].split()[0] + address if address.startswith(":") else address


def _forget() -> None:
    """In a forked child: the connection, and the place, are the parent's."""
    global _link
    _link = None


_link: _Link | None = None
_managers: set[WorkerNotificationManager] = set()
os.register_at_fork(after_in_child=_forget)
