"""What this process holds of the machine's memory, by the kernel's own counters (proc_pid_status(5))."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


class ResidentSet:
    """Resident bytes of this process; `read` costs one system call."""

    def __init__(self) -> None:
        self._descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> int:
        return int(os.pread(self._descriptor, 128, 0).split()[1]) * _PAGE

    def close(self) -> None:
        os.close(self._descriptor)


def peak_bytes() -> int:
    """Largest resident set since the start or the last `reset_peak` (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM line")


def reset_peak() -> bool:
    """Let `peak_bytes` start anew from what is resident now. False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
