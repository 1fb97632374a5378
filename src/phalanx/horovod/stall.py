"""Who keeps the others waiting: rank 0's look at operations that some ranks have announced and some have not.

Told by `look` what waits now, and by `done` what no longer does. Pure: the clock is handed in. Knows no sockets; the
coordinator does what `look` says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from phalanx.foundation import duration_in_words

log = logging.getLogger("phalanx.horovod")

_NAMES_AT_MOST = 6  # of one rank, in a message


class Stalls:
    """Warns of what waits for `warn_s` (None: does not look), and says what has failed after `shutdown_s` (0: nothing).

    Like Horovod, it does not end what it has not warned of: `shutdown_s` below `warn_s` means nothing, and is said.
    """

    def __init__(
        self, warn_s: float | None = 60.0, shutdown_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.warn_s = warn_s
        self.shutdown_s = shutdown_s
        if warn_s is not None and 0 < shutdown_s < warn_s:
            log.warning(
                "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS (%g) has no effect: it is less than "
                "HOROVOD_STALL_CHECK_TIME_SECONDS (%g)",
                shutdown_s,
                warn_s,
            )
            self.shutdown_s = 0.0
        self._clock = clock
        self._since: dict[str, float] = {}
        self._warned_at = -float("inf")

    def done(self, names: Iterable[str]) -> None:
        """These wait no longer; what is announced under such a name from now on waits anew."""
        if self._since:
            for name in names:
                self._since.pop(name, None)

    def look(self, waiting: Mapping[str, tuple[Sequence[int], Sequence[int]]]) -> list[tuple[str, str]]:
        """What has waited for too long, with the reason. `waiting`: by name, who has announced it and who has not.

        Warns in the log once in `warn_s` at most, of everything that has waited for longer than that.
        """
        if self.warn_s is None:
            return []
        now = self._clock()
        self._since = {name: self._since.get(name, now) for name in waiting}
        late = {name: missing for name, (_, missing) in waiting.items() if now - self._since[name] > self.warn_s}
        if late and now - self._warned_at >= self.warn_s:
            self._warned_at = now
            log.warning("%s", _warning(late, max(now - self._since[name] for name in late)))
        if self.shutdown_s <= 0:
            return []
        over = [name for name in late if now - self._since[name] > self.shutdown_s]
        return [(name, self._reason(name, late[name])) for name in over]

    def _reason(self, name: str, missing: Sequence[int]) -> str:
        return (
            f"{name} has waited for rank {_ranks(missing)} for longer than {duration_in_words(self.shutdown_s)} "
            "(HOROVOD_STALL_SHUTDOWN_TIME_SECONDS)"
        )


def _warning(late: Mapping[str, Sequence[int]], longest_s: float) -> str:
    """By rank, as that is where to look: the names that it has not announced."""
    owed: dict[int, list[str]] = {}
    for name, missing in late.items():
        for rank in missing:
            owed.setdefault(rank, []).append(name)
    first = (
        f"Operations wait, the first for {duration_in_words(longest_s)}, for ranks that have not asked for them. "
        "Ranks that ask for different tensors, or only some of which ask, wait for ever."
    )
    lines = [first]
    for rank in sorted(owed):
        names = sorted(owed[rank])
        more = f" and {len(names) - _NAMES_AT_MOST} more" if len(names) > _NAMES_AT_MOST else ""
        lines.append(f"  rank {rank} is missing for: {', '.join(names[:_NAMES_AT_MOST])}{more}")
    return "\n".join(lines)


def _ranks(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))
