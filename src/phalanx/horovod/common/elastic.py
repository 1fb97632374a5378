"""What an elastic script keeps of its work, and the loop that brings it through changes of its group.

    sync -> the script's function -> a rank is lost:   restore the last commit, form a new group, sync, again
                                  -> hosts changed:    form a new group, sync unless somebody only left, again

Knows no framework: how an object reaches the other ranks, and how a group is formed anew, are handed in. Who belongs
to the next group is decided by the launcher; see `runner.elastic`.
"""

from __future__ import annotations

import functools
import queue
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from phalanx.horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt
from phalanx.horovod.runner.elastic.worker import HostUpdateResult, WorkerNotificationManager

P = ParamSpec("P")
R = TypeVar("R")

notification_manager = WorkerNotificationManager()


class State:
    """What all ranks have in common, in memory. `bcast_object`: gives every rank the object of rank 0.

    Scripts derive their own; what they leave out raises NotImplementedError, as in Horovod.
    """

    def __init__(self, bcast_object: Callable[[Any], Any], get_rank: Callable[[], int]) -> None:
        self._bcast_object = bcast_object
        self._rank = get_rank
        self._host_messages: queue.SimpleQueue[tuple[float, HostUpdateResult]] = queue.SimpleQueue()
        self._last_updated_timestamp = 0.0
        self._reset_callbacks: list[Callable[[], Any]] = []

    def register_reset_callbacks(self, callbacks: Iterable[Callable[[], Any]]) -> None:
        """Called in this order in each new group before `sync`: for a learning rate that depends on the size."""
        self._reset_callbacks.extend(callbacks)

    def on_reset(self) -> None:
        """A new group has been formed. What was said of hosts before that no longer counts."""
        self._last_updated_timestamp = max(self._last_updated_timestamp, notification_manager.formed_at)
        self.reset()
        for callback in self._reset_callbacks:
            callback()

    def on_hosts_updated(self, timestamp: float, update_res: HostUpdateResult) -> None:
        """Told by the launcher, in a thread of its own."""
        self._host_messages.put((timestamp, update_res))

    def commit(self) -> None:
        """Keep everything as it is now, in this host's memory, and `check_host_updates`."""
        self.save()
        self.check_host_updates()

    def check_host_updates(self) -> None:
        """Raises HostsUpdatedInterrupt, on all ranks at once, when the launcher has told rank 0 of a change."""
        before = newest = self._last_updated_timestamp
        result = HostUpdateResult.no_update
        while not self._host_messages.empty():
            timestamp, update = self._host_messages.get()
            if timestamp > before:
                newest = max(newest, timestamp)
                result |= update
        before, self._last_updated_timestamp, result = self._bcast_object((before, newest, result))
        if self._last_updated_timestamp > before:
            raise HostsUpdatedInterrupt(result == HostUpdateResult.removed)

    def save(self) -> None:
        """Keep a copy of everything in memory."""
        raise NotImplementedError

    def restore(self) -> None:
        """Go back to what was saved last."""
        raise NotImplementedError

    def sync(self) -> None:
        """Give every rank what rank 0 has."""
        raise NotImplementedError

    def reset(self) -> None:
        """Do what a new group makes necessary, before `sync`."""


class ObjectState(State):
    """Python objects, each an attribute of this one. What all ranks get is what rank 0 has, saved or not."""

    def __init__(self, bcast_object: Callable[[Any], Any], get_rank: Callable[[], int], **kwargs: Any) -> None:
        self._saved_state = kwargs
        self._set_attrs()
        super().__init__(bcast_object=bcast_object, get_rank=get_rank)

    def save(self) -> None:
        self._saved_state = {name: getattr(self, name) for name in self._saved_state}

    def restore(self) -> None:
        self._set_attrs()

    def sync(self) -> None:
        if self._saved_state:
            self._saved_state = self._bcast_object({name: getattr(self, name) for name in self._saved_state})
            self._set_attrs()

    def _set_attrs(self) -> None:
        for name, value in self._saved_state.items():
            setattr(self, name, value)


AnyState = TypeVar("AnyState", bound=State)


def run_fn(
    func: Callable[Concatenate[AnyState, P], R], reset: Callable[[], None]
) -> Callable[Concatenate[AnyState, P], R]:
    """`func(state, ...)`, called again in each new group until it returns. `reset` leaves the group, and forms anew."""

    @functools.wraps(func)
    def wrapper(state: AnyState, *args: P.args, **kwargs: P.kwargs) -> R:
        notification_manager.init()
        notification_manager.register_listener(state)
        skip_sync = False
        try:
            while True:
                try:
                    if not skip_sync:
                        state.sync()
                    notification_manager.synced()
                    return func(state, *args, **kwargs)
                except HorovodInternalError:
                    state.restore()
                    skip_sync = False
                except HostsUpdatedInterrupt as interrupt:
                    skip_sync = interrupt.skip_sync
                # Others may have to sync where this rank need not: the launcher hears all, and tells all the same.
                notification_manager.needs_sync = not skip_sync
                reset()
                skip_sync = skip_sync and not notification_manager.needs_sync
                state.on_reset()
        finally:
            notification_manager.remove_listener(state)

    return cast("Callable[Concatenate[AnyState, P], R]", wrapper)
