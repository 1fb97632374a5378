"""Will it fit, how fast? A job, its data and this host become a plan. Names are loaded on first use: torch is slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phalanx.foundation import lazy_names

if TYPE_CHECKING:
    from phalanx.planning.fitting import NothingFits
    from phalanx.planning.planner import NotCarriedOut, make_plan
    from phalanx.planning.rehearsal import Orders, Rehearsal, RehearsalFailed
    from phalanx.planning.trace import StepTrace, Subject, trace_step
    from phalanx.planning.trials import Trial

_HOMES = {
    "NotCarriedOut": "planner",
    "NothingFits": "fitting",
    "Orders": "rehearsal",
    "Rehearsal": "rehearsal",
    "RehearsalFailed": "rehearsal",
    "StepTrace": "trace",
    "Subject": "trace",
    "Trial": "trials",
    "make_plan": "planner",
    "trace_step": "trace",
}
__all__ = [
    "NotCarriedOut",
    "NothingFits",
    "Orders",
    "Rehearsal",
    "RehearsalFailed",
    "StepTrace",
    "Subject",
    "Trial",
    "make_plan",
    "trace_step",
]
__getattr__ = lazy_names(__name__, _HOMES)
