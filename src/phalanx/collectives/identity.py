"""Names for processes that are never reused, and which of them share a host. Linux only (`/proc`)."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

from phalanx.host.processes import boot_id, stat_of

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
    fields = stat_of(pid)
    if fields is None or fields[0] in "ZX" or int(fields[6]) & _EXITING:
        return ""
    return fields[19]


def ranks_by_host(hosts: Sequence[object]) -> list[list[int]]:
    """The ranks of each host, ascending; `hosts`: of each rank. Hosts in the order of their first rank."""
    ranks: dict[object, list[int]] = {}
    for rank, host in enumerate(hosts):
        ranks.setdefault(host, []).append(rank)
    return list(ranks.values())


@functools.cache
def _machine() -> str:
    return f"{boot_id()} {os.stat('/proc/self/ns/pid').st_ino}"


def _memory() -> str:
    """Which /dev/shm it is: containers may each have their own."""
    try:
        return str(os.stat("/dev/shm").st_dev)
    except FileNotFoundError:
        return ""
