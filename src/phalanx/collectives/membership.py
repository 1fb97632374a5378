"""Who is in the group: the token a launcher hands to a worker, and the register in which workers find each other.

The register is a torch FileStore: on one host no port is opened for it. Each member writes down
its process (host, pid, start time), so that a broken connection can later be given a name.
Knows nothing of tensors; `group` moves them.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import FileStore, PrefixStore  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout

_EXITING = 0x4  # PF_EXITING of <linux/sched.h>, in the flags of /proc/<pid>/stat


@dataclass(frozen=True)
class Membership:
    """A worker's place in its group. `rendezvous`: a file that all members can open; new for every generation."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    generation: int = 0
    rendezvous: Path | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.size and 0 <= self.local_rank < self.local_size <= self.size):
            raise CollectiveError(
                f"rank {self.rank} of {self.size} (local {self.local_rank} of {self.local_size}) is impossible",
                remedy="check RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE",
            )
        if self.size % self.local_size:
            raise CollectiveError(
                f"{self.size} workers are not a multiple of {self.local_size} a host",
                remedy="start the same number of workers on every host",
            )
        if self.size > 1 and self.rendezvous is None:
            raise CollectiveError(
                "a group of several workers needs a rendezvous file",
                remedy="set PHALANX_RENDEZVOUS to the path of a new file",
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Membership:
        """The token in the variables that torchrun also sets, and PHALANX_RENDEZVOUS, PHALANX_GENERATION.

        Raises CollectiveError for a value that is no number or an impossible rank.
        """

        def number(name: str, default: int) -> int:
            text = environment.get(name, str(default))
            try:
                return int(text)
            except ValueError:
                raise CollectiveError(f"{name} is {text!r}, not a number", remedy=f"set {name} to an integer") from None

        size = number("WORLD_SIZE", 1)
        rank = number("RANK", 0)
        rendezvous = environment.get("PHALANX_RENDEZVOUS")
        return cls(
            rank=rank,
            size=size,
            local_rank=number("LOCAL_RANK", rank),
            local_size=number("LOCAL_WORLD_SIZE", size),
            generation=number("PHALANX_GENERATION", 0),
            rendezvous=Path(rendezvous) if rendezvous else None,
        )


@dataclass(frozen=True)
class Cause:
    """Why the group broke, in the words of the first that knew. `ranks`: who is lost or gave up; (): unknown."""

    ranks: tuple[int, ...]
    text: str


class Register:
    """The members' process identities, and the one cause that broke the group.

    A member that loses another ends too, and would look like a second victim to whoever looks later. So the
    first to know writes the cause down before it leaves, and all others repeat it.
    """

    def __init__(self, membership: Membership) -> None:
        self._me = membership
        self.store = PrefixStore(
            f"generation-{membership.generation}", FileStore(str(membership.rendezvous), membership.size)
        )

    def meet(self, timeout_s: float) -> None:
        """Sign in and wait until all have. Raises CollectiveTimeout naming the ranks that did not come."""
        self.store.set(f"member/{self._me.rank}", _identity(os.getpid()))
        deadline = time.monotonic() + timeout_s
        missing = list(range(self._me.size))
        while missing := [rank for rank in missing if not self.store.check([f"member/{rank}"])]:
            if time.monotonic() > deadline:
                raise CollectiveTimeout(
                    f"rank {_ranks(missing)} did not join within {timeout_s:g} s",
                    missing=tuple(missing),
                    where=f"generation {self._me.generation}",
                    remedy="look at the log of that rank, or whether its process was started",
                )
            time.sleep(0.005)

    def gone(self, patience_s: float = 1.0) -> list[int]:
        """Ranks of this host whose process has ended or is ending; waits up to `patience_s` for the first to show."""
        deadline = time.monotonic() + patience_s
        while True:
            found = [rank for rank in range(self._me.size) if rank != self._me.rank and self._is_gone(rank)]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.01)

    def pid(self, rank: int) -> int:
        return int(self._identity_of(rank)[1])

    def say_goodbye(self, reason: str) -> None:
        """Tell the others why this member leaves; unheard if the group was broken before."""
        self._write_down(Cause((self._me.rank,), f"rank {self._me.rank}: {reason}"))

    def lost(self, patience_s: float = 1.0) -> Cause:
        """Why a connection broke: what was written down, else who of this host has ended, else that nobody knows.

        From now on this member counts as one that leaves because of a loss: nobody will take it for the loss.
        """
        self.store.set(f"survivor/{self._me.rank}", "")
        if written := self._written():
            return written
        gone = self.gone(patience_s)
        gone = [rank for rank in gone if not self.store.check([f"survivor/{rank}"])]
        if not gone:
            return self._written() or Cause((), "a connection to another rank broke")
        names = ", ".join(f"rank {rank} (pid {self.pid(rank)})" for rank in gone)
        return self._write_down(Cause(tuple(gone), f"{names} ended"))

    def _write_down(self, cause: Cause) -> Cause:
        """The first cause stays, whoever writes it."""
        text = json.dumps({"ranks": cause.ranks, "text": cause.text})
        return _cause(self.store.compare_set("cause", "", text))

    def _written(self) -> Cause | None:
        return _cause(self.store.get("cause")) if self.store.check(["cause"]) else None

    def _identity_of(self, rank: int) -> list[str]:
        return self.store.get(f"member/{rank}").decode().split()

    def _is_gone(self, rank: int) -> bool:
        host, pid, start = self._identity_of(rank)
        return host == _host() and _start_ticks(int(pid)) != start


def _cause(written: bytes) -> Cause:
    fields = json.loads(written)
    return Cause(tuple(fields["ranks"]), fields["text"])


def _host() -> str:
    """Host name and boot, because a pid means something on one boot of one host only."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}".replace(" ", "_")


def _identity(pid: int) -> str:
    return f"{_host()} {pid} {_start_ticks(pid)}"


def _start_ticks(pid: int) -> str:
    """Start time of a live process in clock ticks (field 22 of proc_pid_stat(5)); "" when it has ended or is ending."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat.rpartition(")")[2].split()
    state, flags, start = fields[0], int(fields[6]), fields[19]
    return "" if state in "ZX" or flags & _EXITING else start


def _ranks(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))
