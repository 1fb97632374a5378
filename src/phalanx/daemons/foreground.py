"""`phalanx run` in one process: the controller and the collector, wired together.

The same code as the daemons, in the foreground. An interrupt asks for a stop (desired state), the
controller makes it so; a second one leaves at once, and the agent finishes the stop by itself.
"""

from __future__ import annotations

import signal
from types import FrameType

from phalanx.daemons.agent import CONTROLLER_TIMEOUT_S
from phalanx.daemons.collector import CollectorThread
from phalanx.daemons.controller import Controller, Listener
from phalanx.daemons.hold import Hold
from phalanx.job import Job


def control(hold: Hold, listener: Listener, *, controller_timeout_s: float = CONTROLLER_TIMEOUT_S) -> Job:
    """Control a job until it has ended and its report is written; returns it.

    SIGINT or SIGTERM asks for a stop, the second one raises KeyboardInterrupt. Raises what Controller.run raises.
    """
    collector = CollectorThread(hold.home)
    controller = Controller(hold, listener, collector.flush, controller_timeout_s)

    def interrupted(signal_number: int, frame: FrameType | None) -> None:
        # Only this: the handler may run in the middle of a write to state, which would wait for itself.
        if controller.stop_requested:
            raise KeyboardInterrupt
        controller.stop_requested = True

    before = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    collector.start()
    try:
        return controller.run()
    finally:
        collector.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
