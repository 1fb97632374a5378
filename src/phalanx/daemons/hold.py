"""Control of a job: a lease that a thread keeps fresh while the controller is at work, however long a step takes.

The lease ends with the process that holds it, and by itself when that process is paused for long; one that
wakes then finds out before it acts again (`Hold.check`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from phalanx.cluster import JobBusy, Key, controller_lease
from phalanx.foundation import Home, PhalanxError
from phalanx.host.processes import is_alive, own_identity
from phalanx.state import SqliteState

LEASE_S = 15.0
RENEW_EVERY_S = 3.0

log = logging.getLogger(__name__)


class ControlLost(PhalanxError):
    """This process was paused for so long that another one took the job over."""


@dataclass(frozen=True)
class Hold:
    """Says who controls which job of which home."""

    home: Home
    key: Key
    identity: str

    def check(self, state: SqliteState) -> None:
        """Raises ControlLost when another process controls the job now."""
        held = state.holder(controller_lease(self.key))
        if held is None:  # paused, and nobody came meanwhile
            held = state.lease(controller_lease(self.key), self.identity, LEASE_S)
        if held is None or held.holder != self.identity:
            raise ControlLost(
                f"job {'/'.join(self.key)} is controlled by another process now",
                remedy=f"`phalanx get job {self.key[1]} -n {self.key[0]} --watch` shows how it goes",
            )


def open_state(home: Home) -> SqliteState:
    """The home's desired state, in which a lease ends with the process that holds it."""
    return SqliteState(home.state_db, is_alive=is_alive)


@contextlib.contextmanager
def hold(home: Home, key: Key) -> Iterator[Hold]:
    """Be the process that controls a job, which need not exist yet. Raises JobBusy when another one is."""
    state, identity = open_state(home), own_identity()
    if state.lease(controller_lease(key), identity, LEASE_S) is None:
        state.close()
        flag = "" if key[0] == "default" else f" --namespace {key[0]}"
        raise JobBusy(
            f"job {'/'.join(key)} is running",
            remedy=f"`phalanx get --watch` shows it; `phalanx stop {key[1]}{flag}` ends it; "
            "or choose another metadata.name",
        )
    done = threading.Event()
    thread = threading.Thread(target=_renew, args=(home, key, identity, done), name="lease", daemon=True)
    thread.start()
    try:
        yield Hold(home, key, identity)
    finally:
        done.set()
        thread.join()
        state.release(controller_lease(key), identity)
        state.close()


def _renew(home: Home, key: Key, identity: str, done: threading.Event) -> None:
    try:
        state = open_state(home)
        while not done.wait(RENEW_EVERY_S):
            state.lease(controller_lease(key), identity, LEASE_S)
        state.close()
    except PhalanxError as error:  # the controller meets it too, and says it
        log.info("the lease is not renewed: %s", error)
