"""The collector: of all processes of a home, the one that holds the lease moves spooled rows into the store.

A thread beside the controller; when its process ends, another run's takes over. The lease's epoch
fences the store: one that was paused too long is refused when it wakes.
"""

from __future__ import annotations

import logging
import threading

from phalanx.foundation import Home, PhalanxError
from phalanx.host.processes import is_alive, own_identity
from phalanx.state import SqliteState
from phalanx.telemetry import Collector, Store

LEASE = "collector"
LEASE_S = 10.0
PERIOD_S = 0.5

log = logging.getLogger(__name__)


class CollectorThread:
    """`start`, later `stop`; `flush` waits until what is spooled now has been collected, by whomever."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._rounds = 0
        self._round_done = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._said: str = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after one more round."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=60)

    def flush(self, timeout_s: float = 20.0) -> None:
        """Two whole rounds from now on: everything that was spooled when this was called is in the store then."""
        with self._round_done:
            goal = self._rounds + 2
            self._wake.set()
            self._round_done.wait_for(lambda: self._rounds >= goal, timeout_s)

    def _run(self) -> None:
        state = SqliteState(self._home.state_db, is_alive=is_alive)
        identity = own_identity()
        while True:
            stopping = self._stop.is_set()
            try:
                lease = state.lease(LEASE, identity, LEASE_S)
                if lease is not None:
                    store = Store(self._home.store_dir)
                    Collector(self._home.spool_dir, store, lease.epoch).collect_once()
            except PhalanxError as error:
                if str(error) != self._said:
                    log.warning("events stay in the spool for now: %s", error)
                    self._said = str(error)
            with self._round_done:
                self._rounds += 1
                self._round_done.notify_all()
            if stopping:
                state.release(LEASE, identity)
                state.close()
                return
            self._wake.wait(0.05 if self._wake.is_set() else PERIOD_S)
            self._wake.clear()
