"""Small messages between the processes of one job: JSON in frames, over Unix or TCP sockets.

Both ends prove that they know the job's key (HMAC challenges of multiprocessing.connection) before anything is read
as a message; nothing is unpickled, and a frame has at most MOST_BYTES. Nothing is encrypted. Knows no ranks.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection as mp
import os
import select
import socket
import struct
import threading
import time
from typing import TypeAlias

from phalanx.foundation import PhalanxError

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

MOST_BYTES = 64 << 20
_HANDSHAKE_S = 5.0  # for the other end to prove itself
_AGAIN_S = 0.02


class WireError(PhalanxError):
    """A connection between processes of a job."""


class WireClosed(WireError):
    """The other end has closed it, or is gone."""


class WireTimeout(WireError):
    """Nothing came, or nobody answered, in time."""


class Wire:
    """One connection. Threads may send at the same time; one at a time receives."""

    def __init__(self, connection: mp.Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._backlog = bytearray()  # of `send_soon`: what the other end has no room for yet
        self._socket = socket.socket(fileno=connection.fileno())  # the same descriptor, for writing without waiting

    def send(self, message: Plain) -> None:
        """Raises WireClosed."""
        data = json.dumps(message, separators=(",", ":")).encode()
        try:
            with self._sending:
                self._connection.send_bytes(data)
        except OSError as error:  # closed by either end
            raise WireClosed(f"the connection is closed: {error.strerror or error}") from error

    def send_soon(self, message: Plain) -> None:
        """As `send`, but never waits: what does not fit is kept for `push`. Raises WireClosed."""
        data = json.dumps(message, separators=(",", ":")).encode()
        with self._sending:
            self._backlog += struct.pack("!i", len(data)) + data  # as multiprocessing.connection frames it
            self._push()

    def push(self) -> bool:
        """Send on what was kept; whether there is still something left. Raises WireClosed."""
        with self._sending:
            self._push()
            return bool(self._backlog)

    @property
    def is_behind(self) -> bool:
        """Whether `push` has something to send."""
        return bool(self._backlog)

    def _push(self) -> None:
        try:
            while self._backlog:
                sent = self._socket.send(self._backlog, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                del self._backlog[:sent]
        except BlockingIOError:
            return
        except OSError as error:
            raise WireClosed(f"the connection is closed: {error.strerror or error}") from error

    def receive(self, timeout_s: float | None = None) -> Plain:
        """The next message. Raises WireClosed; WireTimeout when none begins within `timeout_s`; WireError for none."""
        try:
            if timeout_s is not None and not self._connection.poll(timeout_s):
                raise WireTimeout(f"no message within {timeout_s:g} s")
            data = self._connection.recv_bytes(MOST_BYTES)
        except (EOFError, ConnectionError) as error:
            raise WireClosed("the other end closed the connection") from error
        except OSError as error:
            raise WireClosed(f"the connection is closed: {error.strerror or error}") from error
        try:
            message: Plain = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise WireError("what came is no message") from error
        return message

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        """Idempotent."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.detach()
            self._connection.close()


class Listener:
    """Where others connect. `address` is what `connect` takes."""

    def __init__(self, sock: socket.socket, address: str, key: bytes) -> None:
        self._socket = sock
        self.address = address
        self._key = key

    def accept(self, timeout_s: float | None = None) -> Wire | None:
        """The next that knows the key; None when none came within `timeout_s`, or who came did not know it."""
        try:
            self._socket.settimeout(timeout_s)
            accepted, _ = self._socket.accept()
        except TimeoutError:
            return None
        except OSError as error:
            raise WireClosed(f"no longer listening at {self.address}: {error.strerror or error}") from error
        try:
            return _prove(accepted, self._key, listening=True)
        except WireError:
            return None

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()
        if self.address.startswith("unix:"):
            with contextlib.suppress(OSError):
                os.unlink(self.address.removeprefix("unix:"))


def listen(where: str, key: bytes) -> Listener:
    """At `unix:/path`, which is made readable by this user only, or `host:port` (0: a free one).

    Raises WireError when that cannot be had.
    """
    try:
        if where.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            path = where.removeprefix("unix:")
            sock.bind(path)
            os.chmod(path, 0o600)
            address = where
        else:
            host, port = _host_and_port(where)
            family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(found)
            address = f"{host}:{sock.getsockname()[1]}"
        sock.listen(socket.SOMAXCONN)
    except OSError as error:
        raise WireError(f"cannot listen at {where}: {error.strerror or error}") from error
    return Listener(sock, address, key)


def connect(address: str, key: bytes, timeout_s: float) -> Wire:
    """Raises WireTimeout when nobody answers within `timeout_s`, WireError when who answers does not know the key."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            sock = _open(address, max(deadline - time.monotonic(), _AGAIN_S))
        except OSError as error:
            if time.monotonic() > deadline:
                reason = error.strerror or str(error)
                raise WireTimeout(f"nobody answers at {address} within {timeout_s:g} s: {reason}") from error
            time.sleep(_AGAIN_S)
            continue
        return _prove(sock, key, listening=False)


def _open(address: str, timeout_s: float) -> socket.socket:
    if not address.startswith("unix:"):
        return socket.create_connection(_host_and_port(address), timeout=timeout_s)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(address.removeprefix("unix:"))
    except OSError:
        sock.close()
        raise
    return sock


def _prove(sock: socket.socket, key: bytes, *, listening: bool) -> Wire:
    """Each end challenges the other. A stranger that says nothing, or too slowly, is dropped."""
    sock.setblocking(True)
    watch = socket.socket(fileno=os.dup(sock.fileno()))
    patience = threading.Timer(_HANDSHAKE_S, _hang_up, (watch,))
    patience.daemon = True
    patience.start()
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection = mp.Connection(sock.detach())
    steps = [mp.deliver_challenge, mp.answer_challenge]
    try:
        for step in steps if listening else reversed(steps):
            step(connection, key)
    except (multiprocessing.AuthenticationError, EOFError, OSError, ValueError, AssertionError) as error:
        connection.close()
        raise WireError("who is at the other end does not know the key of this job") from error
    finally:
        patience.cancel()
        watch.close()
    return Wire(connection)


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def readable(descriptors: list[int], timeout_s: float | None) -> list[int]:
    """Which of them can be read from now, or within `timeout_s`."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return [found for found, _ in poller.poll(None if timeout_s is None else max(timeout_s, 0) * 1000)]


def _host_and_port(where: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    return host.strip("[]"), int(port)
