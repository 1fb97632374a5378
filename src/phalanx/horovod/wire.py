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
import queue
import socket
import struct
import threading
import time
from typing import TypeAlias

from phalanx.foundation import PhalanxError

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

MOST_BYTES = 64 << 20
MOST_AT_ONCE = 64  # whose proofs are waited for
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

    def __del__(self) -> None:
        self._socket.detach()  # the connection closes the descriptor of both; twice, it may be another's by then


class Listener:
    """Where others connect. `address` is what `connect` takes.

    Everybody who comes is asked for a proof at once, in a thread each, so that a stranger who is silent keeps nobody
    waiting; beyond MOST_AT_ONCE of them the next wait until one has been sent away.
    """

    def __init__(self, sock: socket.socket, address: str, key: bytes) -> None:
        self.address = address
        self._socket = sock
        self._key = key
        self._proved: queue.SimpleQueue[Wire | None] = queue.SimpleQueue()  # None: closed
        self._room = threading.Semaphore(MOST_AT_ONCE)
        self._lock = threading.Lock()
        self._is_closed = False
        threading.Thread(target=self._open_the_door, name="phalanx-door", daemon=True).start()

    def accept(self, timeout_s: float | None = None) -> Wire | None:
        """The next that knows the key; None when there was none within `timeout_s`. Raises WireClosed after `close`."""
        try:
            found = self._proved.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if found is None:
            self._proved.put(None)  # for whoever asks next
            raise WireClosed(f"no longer listening at {self.address}")
        return found

    def close(self) -> None:
        """Idempotent. Who waits in `accept` is told; who has come and was not accepted is sent away."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        _hang_up(self._socket)  # which wakes the thread at the door
        self._socket.close()
        if self.address.startswith("unix:"):
            with contextlib.suppress(OSError):
                os.unlink(self.address.removeprefix("unix:"))
        with contextlib.suppress(queue.Empty):
            while found := self._proved.get_nowait():
                found.close()
        self._proved.put(None)

    def _open_the_door(self) -> None:
        while True:
            self._room.acquire()
            try:
                sock, _ = self._socket.accept()
            except OSError:
                if self._is_closed:
                    return
                time.sleep(_AGAIN_S)  # such as no descriptor left for one more
                self._room.release()
                continue
            threading.Thread(target=self._ask, args=(sock,), name="phalanx-visitor", daemon=True).start()

    def _ask(self, sock: socket.socket) -> None:
        try:
            found = _prove(sock, self._key, _HANDSHAKE_S, listening=True)
        except WireError:
            return
        finally:
            self._room.release()
        with self._lock:
            if not self._is_closed:
                self._proved.put(found)
                return
        found.close()


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
        return _prove(sock, key, max(deadline - time.monotonic(), _HANDSHAKE_S), listening=False)


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


def _prove(sock: socket.socket, key: bytes, within_s: float, *, listening: bool) -> Wire:
    """Each end challenges the other. A stranger that says nothing, or too slowly, is dropped."""
    deadline = time.monotonic() + within_s
    steps = [mp.deliver_challenge, mp.answer_challenge]
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as after:
        undo.callback(sock.close)
        try:
            sock.setblocking(True)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            watch = after.enter_context(sock.dup())
            patience = threading.Timer(within_s, _hang_up, (watch,))
            patience.daemon = True
            patience.start()
            after.callback(patience.cancel)
            connection = undo.enter_context(mp.Connection(sock.detach()))
            for step in steps if listening else reversed(steps):
                step(connection, key)
        except (multiprocessing.AuthenticationError, EOFError, OSError, ValueError, AssertionError) as error:
            if time.monotonic() >= deadline:
                raise WireTimeout(f"who is at the other end proved nothing within {within_s:g} s") from error
            raise WireError("who is at the other end does not know the key of this job") from error
        undo.pop_all()
        return Wire(connection)


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _host_and_port(where: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    return host.strip("[]"), int(port)
