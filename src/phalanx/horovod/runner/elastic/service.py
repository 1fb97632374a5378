"""The launcher's end of its workers' connections: what they say, put into one queue; `worker` has the messages.

Who connects has proved that it knows the job's key. Decides nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.horovod import wire
from phalanx.horovod.wire import Plain, Wire


@dataclass(frozen=True)
class Peer:
    """A worker that has connected. `here`, `there`: addresses of both hosts, "" through a Unix socket; `port`: a free
    one of its host.
    """

    wire: Wire
    here: str
    there: str
    port: int
    interfaces: Mapping[str, str]


class Service:
    """A context. `tell(number, message)` is called for each message of each worker, in threads of its own."""

    def __init__(self, scratch: Path, secret: str, tell: Callable[[int, dict[str, Any]], None]) -> None:
        self.peers: dict[int, Peer] = {}
        self._key = secret.encode()
        self._tell = tell
        self._local = wire.listen(f"unix:{scratch / 'driver'}", self._key)
        self._listeners = [self._local]

    def __enter__(self) -> Service:
        self._accept(self._local)
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()
        for peer in list(self.peers.values()):
            peer.wire.close()

    def address(self, local: bool) -> str:
        """For a worker's environment; for those of other hosts, a port of this one is opened."""
        if local:
            return self._local.address
        if len(self._listeners) == 1:
            self._listeners.append(wire.listen("0.0.0.0:0", self._key))  # only who knows the key is heard
            self._accept(self._listeners[1])
        return ":" + self._listeners[1].address.rpartition(":")[2]

    def send(self, number: int, message: Plain) -> None:
        """To a worker; nothing when it is gone, which its exit says as well."""
        peer = self.peers.get(number)
        if peer is not None:
            with contextlib.suppress(wire.WireClosed):
                peer.wire.send(message)

    def _accept(self, listener: wire.Listener) -> None:
        threading.Thread(target=self._accept_all, args=(listener,), name="workers", daemon=True).start()

    def _accept_all(self, listener: wire.Listener) -> None:
        with contextlib.suppress(wire.WireClosed):  # the job has ended
            while found := listener.accept():
                threading.Thread(target=self._serve, args=(found,), name="worker", daemon=True).start()

    def _serve(self, found: Wire) -> None:
        with contextlib.closing(found), contextlib.suppress(wire.WireError):
            hello = found.receive()
            assert isinstance(hello, dict)
            number, port, interfaces = hello["hello"], hello["port"], hello["interfaces"]
            assert isinstance(number, int)
            assert isinstance(port, int)
            assert isinstance(interfaces, dict)
            if number in self.peers:  # a child of the worker's, with its environment
                return
            names = {name: str(address) for name, address in interfaces.items()}
            self.peers[number] = Peer(found, *_ends(found), port, names)
            while True:
                message = found.receive()
                assert isinstance(message, dict)
                self._tell(number, message)


def _ends(of: Wire) -> tuple[str, str]:
    with socket.socket(fileno=os.dup(of.fileno())) as same:
        if same.family == socket.AF_UNIX:
            return "", ""
        return str(same.getsockname()[0]), str(same.getpeername()[0])
