"""Every rank's connection to rank 0, made through the group that they already form. Carries messages; reads none."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import tempfile
import time

from phalanx.collectives import CollectiveError, Group
from phalanx.horovod import wire
from phalanx.horovod.wire import Plain, Wire, WireClosed


class Star:
    """Rank 0 has a wire to every other rank (`wires`), the others one to rank 0. Made by all ranks of `group` together.

    Raises CollectiveError naming the ranks that did not connect within `timeout_s`.
    """

    def __init__(self, group: Group, timeout_s: float) -> None:
        self.wires: dict[int, Wire] = {}
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._rank_of: dict[int, int] = {}
        self._behind: dict[int, int] = {}  # ranks whose connection is asked whether it has room
        try:
            if group.size > 1:
                self._connect(group, timeout_s)
        except BaseException:  # raised on: what was opened is closed before
            for found in self.wires.values():
                found.close()
            os.close(self._bell)
            raise

    def _connect(self, group: Group, timeout_s: float) -> None:
        if group.rank == 0:
            self._gather(group, timeout_s)
        else:
            told = group.broadcast_object(root=0, name="where rank 0 listens")
            assert isinstance(told, dict)
            found = wire.connect(str(told["address"]), bytes.fromhex(str(told["key"])), timeout_s)
            found.send(group.rank)
            self.wires[0] = found
        for rank, found in self.wires.items():
            self._poll.register(found.fileno(), select.POLLIN)
            self._rank_of[found.fileno()] = rank

    def _gather(self, group: Group, timeout_s: float) -> None:
        key = secrets.token_bytes(32)
        directory = tempfile.mkdtemp(prefix="phalanx-horovod-")  # 0700
        try:
            # Without an address all are on this machine, if under names of several.
            here = group.local_size == group.size or not group.address
            where = f"unix:{directory}/rank-0" if here else f"{group.address}:0"
            listener = wire.listen(where, key)
            with contextlib.closing(listener):
                group.broadcast_object({"address": listener.address, "key": key.hex()}, name="where rank 0 listens")
                deadline = time.monotonic() + timeout_s
                while missing := set(range(1, group.size)) - self.wires.keys():
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise CollectiveError(f"rank {', '.join(map(str, sorted(missing)))} did not connect to rank 0")
                    found = listener.accept(left)
                    if found is not None:
                        rank = found.receive(left)
                        if isinstance(rank, int) and rank in missing:
                            self.wires[rank] = found
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def ring(self) -> None:
        """Make `wait` return."""
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)

    def wait(self, timeout_s: float | None) -> list[int]:
        """The ranks that have sent something, or are gone. Returns early, perhaps with none, when somebody rings."""
        for rank, known in self.wires.items():
            behind = select.POLLOUT if known.is_behind else 0
            if behind != self._behind.get(rank, 0):
                self._poll.modify(known.fileno(), select.POLLIN | behind)
                self._behind[rank] = behind
        found = []
        for descriptor, what in self._poll.poll(None if timeout_s is None else max(timeout_s, 0.0) * 1000):
            if descriptor == self._bell:
                os.eventfd_read(self._bell)
                continue
            rank = self._rank_of[descriptor]
            if what & select.POLLOUT:
                with contextlib.suppress(WireClosed):
                    self.wires[rank].push()
            if what & ~select.POLLOUT:
                found.append(rank)
        return found

    def send(self, message: Plain) -> None:
        """To all that are still there, without waiting; who is gone is found out by `wait`."""
        for found in list(self.wires.values()):
            with contextlib.suppress(WireClosed):
                found.send_soon(message)
                if found.is_behind:
                    self.ring()  # the thread that waits sends the rest

    def receive(self, rank: int) -> Plain:
        """Raises WireClosed, after which the rank is no longer listened to."""
        try:
            return self.wires[rank].receive()
        except WireClosed:
            self.drop(rank)
            raise

    def drop(self, rank: int) -> None:
        """No longer listen to `rank`."""
        gone = self.wires.pop(rank, None)
        if gone is not None:
            self._poll.unregister(gone.fileno())
            del self._rank_of[gone.fileno()]
            gone.close()

    def close(self) -> None:
        """Idempotent, but not while somebody waits."""
        for rank in list(self.wires):
            self.drop(rank)
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1
