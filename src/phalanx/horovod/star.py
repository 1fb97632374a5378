"""Every rank's connection to rank 0, made through the group that they already form. Carries messages; reads none."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import tempfile
import time
from collections.abc import Sequence

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
        if group.size > 1:
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
                    rank = found.receive(left) if found is not None else None
                    if found is not None and isinstance(rank, int):
                        self.wires[rank] = found
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def ring(self) -> None:
        """Make `wait` return."""
        os.eventfd_write(self._bell, 1)

    def wait(self, timeout_s: float | None) -> list[int]:
        """The ranks that have sent something, or are gone. Returns early, perhaps with none, when somebody rings."""
        found = []
        for descriptor, _ in self._poll.poll(None if timeout_s is None else max(timeout_s, 0.0) * 1000):
            if descriptor == self._bell:
                os.eventfd_read(self._bell)
            else:
                found.append(self._rank_of[descriptor])
        return found

    def send(self, ranks: Sequence[int], message: Plain) -> None:
        """To those of them that are still there; who is gone is found out by `wait`."""
        for rank in ranks:
            if found := self.wires.get(rank):
                with contextlib.suppress(WireClosed):
                    found.send(message)

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
