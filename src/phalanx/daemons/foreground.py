"""`phalanx run` in one process: the controller and the collector, wired together.

The same code as the daemons, in the foreground. An interrupt asks for a stop (desired state), the
controller makes it so; a second one leaves at once, and the agent finishes the stop by itself.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from types import FrameType

from phalanx.cluster import Key, set_suspend
from phalanx.daemons.agent import CONTROLLER_TIMEOUT_S
from phalanx.daemons.collector import CollectorThread
from phalanx.daemons.controller import Controller, Listener
from phalanx.foundation import Home
from phalanx.host.processes import is_alive
from phalanx.job import Job
from phalanx.state import SqliteState

log = logging.getLogger(__name__)


def open_state(home: Home) -> SqliteState:
    """The home's desired state, in which a lease ends with the process that holds it."""
    return SqliteState(home.state_db, is_alive=is_alive)


def control(
    home: Home,
    key: Key,
    listener: Listener,
    *,
    stopping: Callable[[], None] = lambda: None,
    controller_timeout_s: float = CONTROLLER_TIMEOUT_S,
) -> Job:
    """Control a job until it has ended and its report is written; returns it.

    `stopping` is called when an interrupt (SIGINT, SIGTERM) asked for a stop. Raises KeyboardInterrupt at the second.
    """
    interrupts = 0

    def interrupted(signal_number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            raise KeyboardInterrupt
        stopping()
        set_suspend(open_state(home), key, True)

    before = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    collector = CollectorThread(home)
    collector.start()
    try:
        return Controller(home, key, listener, collector.flush, controller_timeout_s).run()
    finally:
        collector.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
