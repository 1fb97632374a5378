"""Names for processes that are never reused, and which of them share a host. Linux only (`/proc`)."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

_EXITING = 0x4  # PF_EXITING of <linux/sched.h>, in the flags of /proc/<pid>/stat


@dataclass(frozen=True)
class Identity:
    """A process. Its pid means something in its `machine` only: one boot, one pid namespace.

    Processes of the same `host` can share memory: same machine, user and /dev/shm. Containers of one machine are
    several hosts unless they share these.
    """

    node: str  # what its host is called
    host: str
    machine: str
    pid: int
    start: str

    @classmethod
    def own(cls, host: str = "") -> Identity:
        """Of the calling process. `host`: a name to count by instead."""
        shared = f"{_machine()} {os.getuid()} {_memory()}"
        return cls(os.uname().nodename, host or shared, _machine(), os.getpid(), start_ticks(os.getpid()))

    def is_gone(self) -> bool:
        """Whether the process has ended or is ending; False for one of another machine, of which nothing is known."""
        return self.machine == _machine() and start_ticks(self.pid) != self.start

    def __str__(self) -> str:
        return f"pid {self.pid}" if self.node == os.uname().nodename else self.on_node()

    def on_node(self) -> str:
        return f"pid {self.pid} on {self.node}"


def start_ticks(pid: int) -> str:
    """Start time of a live process in clock ticks (field 22 of proc_pid_stat(5)); "" when it has ended or is ending."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat.rpartition(")")[2].split()
    state, flags, start = fields[0], int(fields[6]), fields[19]
    return "" if state in "ZX" or flags & _EXITING else start


@functools.cache
def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"


def _memory() -> str:
    """Which /dev/shm it is: containers may each have their own."""
    try:
        return str(os.stat("/dev/shm").st_dev)
    except FileNotFoundError:
        return ""
