"""Which processes are there: so that a test can say that none was left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from phalanx.host import identity_of


def with_argument(text: str) -> dict[int, str]:
    """Command lines of living processes, this one not among them, that have `text` in them; by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if text in line and identity_of(int(entry.name)) is not None:
            found[int(entry.name)] = line
    return found


def left_behind(home: Path, patience_s: float = 10.0) -> dict[int, str]:
    """Processes that name `home` and are still there after a while; they are killed, so that one test harms no other."""
    deadline = time.monotonic() + patience_s
    while (found := with_argument(str(home))) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Return once `holds()` is true; fails saying `what` did not come about."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
