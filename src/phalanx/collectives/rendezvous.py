"""Where the members of a group find each other: a file on one host, a TCP store between hosts.

A file is torch's FileStore and opens no port. A TCP store is held by rank 0, or by torchrun's agent. Left to itself
torch listens on every address of the host; it takes over a socket that is listening already, so we bind that to
MASTER_ADDR's address alone. Nothing is encrypted, and whoever reaches that port can read and write the store: it must
be a network that only the job's hosts reach. Knows nothing of what is written into a store.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from torch.distributed import DistError, FileStore, Store, TCPStore  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout
from phalanx.collectives.launchers import Address

log = logging.getLogger(__name__)

_EVERY_S = 0.05
_PATIENCE_S = 3.0  # then it is said whom this rank waits for


@dataclass(frozen=True)
class Meeting:
    """An open store. `address`: of this host, as the store's host sees it; "" for a file."""

    store: Store
    address: str = ""


# A process keeps its connection, and rank 0 the store itself, for the next group: closing and binding the port anew
# would drop the members that are ahead of others. A child that was forked has none of it.
_open: dict[Address, Meeting] = {}
os.register_at_fork(after_in_child=_open.clear)


def meet_at(where: Path | Address, rank: int, several_hosts: bool, timeout_s: float) -> Meeting:
    """Open the store at `where`. Raises CollectiveTimeout when rank 0 does not, CollectiveError when it cannot."""
    if isinstance(where, Path):
        try:
            where.parent.stat()
            return Meeting(FileStore(str(where), -1))  # -1: never removed by the member that happens to leave last
        except OSError as error:
            raise CollectiveError(f"the file to meet in cannot be opened: {error.strerror}", where=str(where)) from None
    if where not in _open:
        held = None
        if rank == 0 and not where.held_by_agent:
            held = _listen(where, several_hosts)
        _open[where] = _connect(where, held, timeout_s)
    return _open[where]


def _listen(where: Address, several_hosts: bool) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise CollectiveError(
            f"{where.host} is no host that is known here: {error.strerror}",
            remedy="set MASTER_ADDR to an address of this host, that of rank 0",
        ) from None
    if several_hosts and (str(address[0]).startswith("127.") or address[0] == "::1"):
        raise CollectiveError(
            f"{where.host} is {address[0]} on its own host, where other hosts do not reach it",
            remedy="set MASTER_ADDR to the address by which the other hosts reach this one, that of rank 0",
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        raise CollectiveError(
            f"rank 0 cannot listen at {where}: {error.strerror}",
            remedy="set MASTER_ADDR to an address of this host, that of rank 0, and MASTER_PORT to a free port of it",
        ) from None
    return listener


def _connect(where: Address, held: socket.socket | None, timeout_s: float) -> Meeting:
    address = str(held.getsockname()[0]) if held is not None else _reach(where, timeout_s)
    try:
        store = TCPStore(
            where.host,
            where.port,
            is_master=held is not None,
            timeout=timedelta(seconds=timeout_s),
            wait_for_workers=False,
            master_listen_fd=held.detach() if held is not None else None,
        )
    except DistError as error:
        reason = str(error).splitlines()[0]
        raise CollectiveError(f"what answers at {where} is no store of torch: {reason}") from error
    return Meeting(store, address)


def _reach(where: Address, timeout_s: float) -> str:
    """Wait until somebody listens there; our own address. torch would wait as well, but deaf to Ctrl-C and loudly."""
    begun = time.monotonic()
    deadline, speaks_at = begun + timeout_s, begun + _PATIENCE_S
    who = "the launcher" if where.held_by_agent else "rank 0"
    while True:
        try:
            with socket.create_connection((where.host, where.port), timeout=max(timeout_s, 1)) as connection:
                return str(connection.getsockname()[0])
        except OSError as error:
            if time.monotonic() > speaks_at:
                log.warning("waiting for %s to answer at %s", who, where)
                speaks_at = deadline
            if time.monotonic() > deadline:
                raise CollectiveTimeout(
                    f"{who} did not answer at {where} within {timeout_s:g} s: {error.strerror or error}",
                    missing=() if where.held_by_agent else (0,),
                    remedy="look at its log; check MASTER_ADDR, MASTER_PORT and the firewall between the hosts",
                ) from None
        time.sleep(_EVERY_S)
