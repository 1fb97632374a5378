"""How a process ended, for people: the end of its log, the name of a signal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

TAIL_BYTES = 8192


def last_words(log_file: Path) -> str:
    """The last line that says something, at most 1,000 characters; empty when there is none."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return next((line.strip()[:1000] for line in reversed(lines) if line.strip()), "")


def signal_name(number: int) -> str:
    """Such as SIGKILL; a real-time signal has no name of its own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
