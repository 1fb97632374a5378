"""One worker on one host: started here or through ssh, read from, and stopped with all that it started.

Both ways run `runner.remote` beside the worker; this end holds its input open, and the worker ends when that ends.
Knows no ranks: who is started where, and what follows from an exit status, is for the caller.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import selectors
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.horovod.runner import remote
from phalanx.horovod.runner.hosts import is_local

# Called with "stdout" or "stderr" and what came, b"" for its end, from a thread of the worker's own.
Output = Callable[[str, bytes], None]

# What belongs to the launcher's shell or host; Horovod leaves out some of these, too.
_NOT_EXPORTED = re.compile(r"BASH_FUNC_|OLDPWD$|.*CUDA_VISIBLE_DEVICES$|SSH_|XDG_|HOSTNAME$|TMPDIR$|_$")
# What another launcher told us: we may be a worker ourselves.
_NOT_PASSED_ON = re.compile(
    r"PHALANX_(CALLS|DRIVER|GENERATION|HOST|KEY_FILE|RENDEZVOUS|WORKER)$|MASTER_(ADDR|PORT)$|TORCHELASTIC_"
)
_MARK = re.compile(re.escape(remote.MARK) + rb"(\d+)\n")
_SSH = ("ssh", "-o", "PasswordAuthentication=no", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes")
# A host that loses power is noticed after a minute.
_KEEP_ALIVE = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")
_SSH_FAILED = 255
# sshd refuses some of many that come at once (MaxStartups), and does so at once.
_FURTHER_ATTEMPTS = 3
_AT_ONCE_S = 3.0
_LAST_BYTES = 8192  # of the errors, kept to say why it ended
_PATIENCE_S = 5.0  # beyond the grace, for the guardian, or ssh, to end


@dataclass(frozen=True)
class Ssh:
    """How other hosts are reached."""

    port: int | None = None
    identity_file: str | None = None
    connect_timeout_s: int = 10

    def command(self, host: str, arguments: Sequence[str]) -> list[str]:
        """Runs `runner.remote` with `arguments` on `host`, by the Python that we are."""
        port = [] if self.port is None else ["-p", str(self.port)]
        identity = [] if self.identity_file is None else ["-i", self.identity_file]
        timeout = ["-o", f"ConnectTimeout={self.connect_timeout_s}"]
        there = shlex.join([sys.executable, "-m", remote.__name__, *arguments])
        return [*_SSH, *_KEEP_ALIVE, *timeout, *port, *identity, "--", host, f"exec {there}"]


class Worker:
    """A worker that was started. `pid`, on its host: once it has begun; None before."""

    pid: int | None = None
    ended_at: float = float("inf")  # by time.monotonic

    def __init__(self, host: str, name: str, command: Sequence[str], order: bytes, output: Output) -> None:
        self.host = host
        self.name = name
        self.remote = command[0] == _SSH[0]
        self._command = command
        self._order = order
        self._output = output
        self._before = b""  # what ssh said before the worker began
        self._errors = b""  # the last that the worker said
        self._input = threading.Lock()
        self._input.acquire()  # until the order is given: nothing may come before it
        self._stopped = threading.Event()
        self._process = self._open()
        self._pump = threading.Thread(target=self._run, name=f"output of {name}", daemon=True)
        self._pump.start()

    def poll(self) -> int | None:
        """The exit status, -n for signal n, once it has ended and all its output was handed on; None before."""
        code = None if self._pump.is_alive() else self._process.poll()
        if code is None:
            return None
        return 128 - code if 128 < code <= 128 + signal.NSIG else code

    def last_words(self) -> str:
        """The last line of its errors, or of ssh's when it did not begin; "" for none."""
        return last_line((self._errors if self.pid is not None else self._before).decode(errors="replace"))

    def ask_to_stop(self, grace_s: float) -> None:
        """SIGTERM to all of it, SIGKILL after `grace_s` seconds. Does not wait."""
        self._stopped.set()
        if not self._input.acquire(timeout=1):  # ssh takes nothing: it has not got through
            self._process.terminate()
            return
        try:
            if self.pid is None and self.remote:  # ssh may still be trying
                self._process.terminate()
            assert self._process.stdin is not None
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.write(b"stop %.3f\n" % grace_s)
                self._process.stdin.flush()
        finally:
            self._input.release()

    def stop(self, grace_s: float) -> None:
        """The same, and wait until it has ended."""
        stop_all([self], grace_s)

    def _end(self, deadline: float) -> None:
        """Wait until `deadline` for a worker that was asked to stop, then end the guardian or ssh itself."""
        try:
            self._process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pump.join(_PATIENCE_S)

    def _open(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us: we stop the workers in an order of our own
        )

    def _run(self) -> None:
        begun = time.monotonic()
        self._give_order()
        self._input.release()
        self._listen()
        for _ in range(_FURTHER_ATTEMPTS):
            refused = self.remote and self.pid is None and self._process.wait() == _SSH_FAILED
            if not refused or time.monotonic() - begun > _AT_ONCE_S or not self._open_again():
                break
            begun = time.monotonic()
            self._listen()
        with self._input, contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        for stream in ("stdout", "stderr"):
            self._output(stream, b"")
        self.ended_at = time.monotonic()

    def _open_again(self) -> bool:
        """After a while; unless a stop was asked for."""
        time.sleep(random.uniform(0.1, 0.5))
        with self._input:
            if not self._stopped.is_set():
                self._before = b""
                self._process = self._open()
                self._give_order()
            return not self._stopped.is_set()

    def _give_order(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # who does not read will say why
            self._process.stdin.write(self._order)
            self._process.stdin.flush()

    def _listen(self) -> None:
        """Hand on all output, to its end."""
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as streams, process.stdout, process.stderr:
            streams.register(process.stdout, selectors.EVENT_READ, "stdout")
            streams.register(process.stderr, selectors.EVENT_READ, "stderr")
            while streams.get_map():
                for key, _ in streams.select():
                    data = os.read(key.fd, 65536)
                    if not data:
                        streams.unregister(key.fileobj)
                    elif key.data == "stderr":
                        self._take_errors(data)
                    else:
                        self._output("stdout", data)

    def _take_errors(self, data: bytes) -> None:
        if self.pid is None:
            self._before = (self._before + data)[-_LAST_BYTES:]
            found = _MARK.search(self._before)
            if found is None:
                return
            data = self._before[found.end() :]
            self._before = self._before[: found.start()]
            self.pid = int(found[1])
        if data:
            self._errors = (self._errors + data)[-_LAST_BYTES:]
            self._output("stderr", data)


def start(
    host: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    name: str,
    output: Output,
    secret: str = "",
    ssh: Ssh | None = None,
    scratch: Path | None = None,
) -> Worker:
    """Start `argv` on `host` in this directory, with `env` over our own environment (`exported` of it elsewhere).

    `secret` reaches the worker as a file that PHALANX_KEY_FILE names, on no command line and in no environment.
    `scratch`: a directory to remove if we are killed. Whoever reads `env` reads PYTHONUNBUFFERED, too.
    What goes wrong is seen by `poll`: an exit status, and `last_words`.
    """
    here = is_local(host)
    own = {name: value for name, value in os.environ.items() if not _NOT_PASSED_ON.match(name)}
    order: dict[str, Any] = {
        "argv": list(argv),
        "cwd": os.getcwd(),
        "env": (own if here else exported(own)) | {"PYTHONUNBUFFERED": "1"} | dict(env),
        "inherit": not here,
        "secret": secret,
        "scratch": str(scratch) if scratch is not None and here else "",
    }
    command = [sys.executable, "-I", "-S", remote.__file__] if here else (ssh or Ssh()).command(host, [])
    return Worker(host, name, command, json.dumps(order).encode() + b"\n", output)


def stop_all(workers: Iterable[Worker], grace_s: float) -> None:
    """Stop all of them at the same time, and return when none of their processes is left."""
    running = [worker for worker in workers if worker.poll() is None]
    for worker in running:
        worker.ask_to_stop(grace_s)
    deadline = time.monotonic() + grace_s + _PATIENCE_S
    for worker in running:
        worker._end(deadline)


def exported(environment: Mapping[str, str]) -> dict[str, str]:
    """What of our environment the workers of other hosts get."""
    return {name: value for name, value in environment.items() if not _NOT_EXPORTED.match(name)}


def last_line(text: str) -> str:
    """That says something, but for what there is to do, which comes after what is wrong; "" for none."""
    lines = map(str.strip, reversed(text.splitlines()))
    return next((line for line in lines if line and not line.startswith("To do: ")), "")
