"""Hosts and their slots as a person writes them, and which rank goes where.

The ranks of a host follow each other, hosts in the order they were given. Starts nothing and knows nothing of ssh.
"""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phalanx.foundation import UsageError

# A name or address; not one that ssh would read as an option.
NAME = r"(\w[\w.-]*|\[[0-9a-fA-F:.%\w]+\])"
_HOST = re.compile(NAME + r":([0-9]+)", re.ASCII)
_LINE = re.compile(r"(\w[\w.:-]*)\s+slots\s*=\s*([0-9]+)(\s.*)?", re.ASCII)


@dataclass(frozen=True)
class HostSlots:
    """A host, and how many processes it takes."""

    host: str
    slots: int


@dataclass(frozen=True)
class Slot:
    """The place of one rank: `cross` counts the hosts that have such a local rank."""

    host: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int


def parse_hosts(text: str) -> list[HostSlots]:
    """`a:2,b:4`. A host that is named twice has the slots of both. Raises UsageError."""
    return _merged([_parse_host(part.strip()) for part in text.split(",")])


def parse_hostfile(path: Path | str) -> list[HostSlots]:
    """Lines `a slots=2`; empty ones and what follows a # do not count. Raises UsageError naming the line."""
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"cannot be read: {reason}", where=str(path), remedy="check --hostfile") from error
    found = []
    for number, line in enumerate(lines, start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _LINE.fullmatch(content)
        if match is None:
            raise UsageError(
                f"{content!r} is not like `worker-0 slots=2`",
                where=f"{path}:{number}",
                remedy="write a host and its slots on each line",
            )
        found.append(HostSlots(match[1], int(match[2])))
    if not found:
        raise UsageError("there is no host in this file", where=str(path), remedy="write lines like `worker-0 slots=2`")
    return _merged(found)


def assign(hosts: Sequence[HostSlots], size: int) -> list[Slot]:
    """The places of `size` ranks, in the order of ranks: a host is filled before the next.

    Raises UsageError when there are fewer slots.
    """
    available = sum(host.slots for host in hosts)
    if size < 1:
        raise UsageError(f"{size} processes were asked for", remedy="ask for one or more: -np 1")
    if size > available:
        there = ", ".join(f"{host.host}:{host.slots}" for host in hosts) or "no host"
        slots_there = "is 1 slot" if available == 1 else f"are {available} slots"
        raise UsageError(
            f"{size} processes were asked for, but there {slots_there} ({there})",
            remedy="lower -np and --min-np, or name more hosts or slots with -H or --hostfile",
        )
    left, counts = size, []
    for host in hosts:
        counts.append(min(host.slots, left))
        left -= counts[-1]
    slots: list[Slot] = []
    for index, (host, count) in enumerate(zip(hosts, counts, strict=True)):
        for local_rank in range(count):
            column = [other for other, filled in enumerate(counts) if filled > local_rank]
            place = Slot(host.host, len(slots), size, local_rank, count, column.index(index), len(column))
            slots.append(place)
    return slots


@functools.cache  # names are asked for at each start of a process, and some answer slowly
def is_local(host: str) -> bool:
    """Whether `host` is this machine: a name that means one of its addresses. A name that means nothing is not."""
    if host == "localhost":
        return True
    try:
        addresses = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_is_ours(family, address) for family, _, _, _, address in addresses)


def _is_ours(family: int, address: tuple[object, ...]) -> bool:
    """Only an address of this machine can be bound."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _parse_host(text: str) -> HostSlots:
    match = _HOST.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is no host with its slots",
            remedy="write hosts as in `-H worker-0:2,worker-1:2`, or `localhost:4`",
        )
    return HostSlots(match[1].strip("[]"), int(match[2]))


def _merged(hosts: Sequence[HostSlots]) -> list[HostSlots]:
    slots: dict[str, int] = {}
    for host in hosts:
        slots[host.host] = slots.get(host.host, 0) + host.slots
    return [HostSlots(host, count) for host, count in slots.items()]
