"""What is said of an operation that does not end: which, for how long, who is missing, and where each of them stands.

Facts from shared knowledge and /proc, no accusations: a rank that saves a checkpoint is late as well.
Knows nothing of threads and clocks: `watch` says when to speak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from phalanx.collectives.transports.header import ranks_in_words
from phalanx.collectives.transports.transport import RankState, Record
from phalanx.foundation import duration_in_words
from phalanx.host.processes import stat_of

SILENT_S = 3.0  # a rank says where it stands once a second; after this its Python has not run

# Process states as proc(5) lists them.
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk or a device",
    "T": "stopped by a signal",
    "t": "stopped by a debugger",
    "Z": "ended",
    "X": "ended",
    "I": "idle",
}
_STOPPED = ("stopped by a signal", "stopped by a debugger", "ended")


def process_state(pid: int) -> str:
    """What the kernel says of the main thread of a process of this host: "stopped by a signal", "ended", ..."""
    try:
        fields = stat_of(pid)
    except OSError:  # a /proc that hides other users' processes
        return "in an unknown state"
    return _STATES.get(fields[0], f"in state {fields[0]}") if fields else "ended"


def is_silent(state: RankState, state_of: Callable[[int], str] = process_state) -> bool:
    """Whether the rank can say nothing itself: dead, or stopped on this host."""
    return not state.alive or (state.here and state_of(state.pid) in _STOPPED)


def in_words(record: Record) -> str:
    """The operation as errors name it: `allreduce sum float32[1024] 'grad.a'`."""
    tensor = f"{record.dtype}[{', '.join(map(str, record.shape))}]" if record.dtype else ""
    name = f"'{record.name}'" if record.name else ""
    return " ".join(part for part in (record.kind.removesuffix("_ragged"), record.op, tensor, name) if part)


def waited_on(record: Record, states: Sequence[RankState], me: int) -> list[RankState]:
    """Those who keep `record` of rank `me` from its end: who have not come, else who came and have not finished."""
    others = [state for state in states if state.rank != me]
    missing = [state for state in others if state.sequence < record.sequence]
    return missing or [state for state in others if state.sequence == record.sequence and state.inside]


def report(
    record: Record,
    states: Sequence[RankState],
    me: int,
    waited_s: float,
    group: str = "",
    names: Sequence[int] | None = None,
    state_of: Callable[[int], str] = process_state,
) -> str:
    """The sentence that rank `me` says of its unfinished operation; `names`: what its ranks are called in the world."""
    names = names or range(len(states))
    who = waited_on(record, states, me)
    mine = states[me]
    words = mine.operation if mine.sequence == record.sequence else in_words(record)
    start = f"{_where(group)}{words} (operation {record.sequence}) of rank {names[me]}: "
    waited = duration_in_words(waited_s)
    if not who:
        return f"{start}under way for {waited}; all ranks have come and none is waited for"
    come = all(state.sequence >= record.sequence for state in who)
    what = f"all ranks have come; waiting {waited} for" if come else f"waiting {waited} for"
    return f"{start}{what} " + "; ".join(_of(state, names[state.rank], come, state_of) for state in who)


def late_report(
    states: Sequence[RankState],
    me: int,
    waited_s: float,
    whereabouts: str,
    group: str = "",
    names: Sequence[int] | None = None,
) -> str:
    """The sentence that a rank says of itself when others have waited for it: `whereabouts` is where it stands."""
    called = names or range(len(states))
    mine = states[me].sequence
    waiting = [state for state in states if state.sequence > mine and state.inside]
    who = ranks_in_words([called[state.rank] for state in waiting])
    have = "has" if len(waiting) == 1 else "have"
    furthest = max(waiting, key=lambda state: state.sequence)
    stands = f", which stands at {whereabouts}" if whereabouts else ""
    return (
        f"{_where(group)}{who} {have} waited {duration_in_words(waited_s)} for this rank ({called[me]}){stands}, "
        f"in {furthest.operation} (operation {furthest.sequence})"
    )


def _where(group: str) -> str:
    return f"{group}: " if group else ""


def _of(state: RankState, name: int, come: bool, state_of: Callable[[int], str]) -> str:
    process = "" if not state.here else state_of(state.pid)
    if not state.alive:
        process = "ended"
    rank = f"rank {name} (pid {state.pid}{', ' if process else ''}{process})"
    if come:
        did = "which is inside it"
    elif state.inside:
        did = f"which is still in operation {state.sequence} ({state.operation})"
    elif state.sequence:
        did = f"which finished operation {state.sequence} ({state.operation})"
    else:
        did = "which has begun no operation"
    if not state.whereabouts:
        return f"{rank}, {did}"
    age = duration_in_words(state.whereabouts_age_s)
    silent = state.whereabouts_age_s > SILENT_S and process not in _STOPPED
    since = "; its Python has not run since" if silent else ""
    return f"{rank}, {did} and stood at {state.whereabouts} {age} ago{since}"
