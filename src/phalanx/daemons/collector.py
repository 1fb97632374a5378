"""The collector: of all processes of a home, the one that holds the lease moves spooled rows into the store.

A thread beside the controller; when its process ends, another run's takes over. The lease's epoch
fences the store: one that was paused too long is refused when it wakes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time

from phalanx.daemons.hold import open_state
from phalanx.events import list_files
from phalanx.foundation import Home, PhalanxError
from phalanx.host.processes import own_identity
from phalanx.state import Lease, SqliteState
from phalanx.telemetry import Collector, Store

LEASE = "collector"
LEASE_S = 10.0
PERIOD_S = 0.5

log = logging.getLogger(__name__)


class CollectorThread:
    """`start`, later `stop`; `flush` waits until what is spooled now has been collected, by whomever."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._store = Store(home.store_dir)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._said = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after one more round."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=60)

    def flush(self, timeout_s: float = 20.0) -> None:
        """Wait until every row that is in the spool now is in the store; gives up after `timeout_s` seconds."""
        wanted = {}
        for file in list_files(self._home.spool_dir):
            with contextlib.suppress(FileNotFoundError):  # collected as a whole already
                wanted[file.source] = (file.number, file.path.stat().st_size)
        deadline = time.monotonic() + timeout_s
        while wanted and time.monotonic() < deadline:
            try:
                reached = self._store.read().sources
            except PhalanxError:  # whoever reads the store says what is wrong with it
                return
            at = {source: (position.number, position.offset) for source, position in reached.items()}
            wanted = {source: end for source, end in wanted.items() if at.get(source, (0, 0)) < end}
            self._wake.set()
            time.sleep(0.05)

    def _run(self) -> None:
        try:
            state = open_state(self._home)
        except PhalanxError as error:
            self._warn(error)
            return
        identity = own_identity()
        stopping = False
        while not stopping:
            stopping = self._stop.is_set()
            try:
                self._round(state, identity)
            except PhalanxError as error:
                self._warn(error)
            if not stopping:
                self._wake.wait(PERIOD_S)
                self._wake.clear()
        with contextlib.suppress(PhalanxError):
            state.release(LEASE, identity)
            state.close()

    def _round(self, state: SqliteState, identity: str) -> None:
        lease = _take(state, identity, self._store)
        if lease is not None:
            Collector(self._home.spool_dir, self._store, lease.epoch).collect_once()

    def _warn(self, error: PhalanxError) -> None:
        """Once: training goes on, and so does the spool."""
        if str(error) != self._said:
            self._said = str(error)
            log.warning("events stay in the spool for now: %s", error)


def collect_if_idle(home: Home) -> None:
    """Collect what lies in the spool if no run does: rows of killed runs, for whoever asks. Raises PhalanxError."""
    if not list_files(home.spool_dir):
        return
    state, identity = open_state(home), own_identity()
    try:
        store = Store(home.store_dir)
        lease = _take(state, identity, store)
        if lease is not None:
            Collector(home.spool_dir, store, lease.epoch).collect_once()
    finally:
        state.release(LEASE, identity)
        state.close()


def _take(state: SqliteState, identity: str, store: Store) -> Lease | None:
    """The lease, or None. A state that was begun anew counts epochs from 1: take until we are past the store's."""
    lease = state.lease(LEASE, identity, LEASE_S)
    while lease is not None and lease.epoch < store.epoch:
        state.release(LEASE, identity)
        lease = state.lease(LEASE, identity, LEASE_S)
    return lease
