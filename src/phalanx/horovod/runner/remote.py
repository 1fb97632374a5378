"""The process beside each worker, on the worker's host: starts it, and leaves nothing of it behind.

    python -m phalanx.horovod.runner.remote           guard one worker
    python -m phalanx.horovod.runner.remote --facts   one line of JSON: what the launcher must know of this host

A launcher starts it as its child, or through ssh, and writes one line to its standard input: {argv, cwd, env, inherit,
secret, scratch}. Output and errors are the worker's. The worker's whole session, and whatever else descends from it, is
ended when the worker ends; when a line `stop SECONDS` comes; and when the input ends, which the kernel sees to when
the launcher is killed, and sshd when the connection is lost. The exit status is the worker's, 128 + n for signal n.

Standard library only: launchers of this host run the file itself, without site-packages, to start at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Written to standard error by the worker before it becomes the program: what came before it is ssh's, not the worker's.
MARK = b"\x1ephalanx-worker "
KEY_FILE = "PHALANX_KEY_FILE"  # the variable that names the file with the job's secret
GRACE_S = 2.0  # between SIGTERM and SIGKILL where nobody says another
CANNOT_START = 127  # as shells say it

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_FIRST_PORT, _LAST_PORT = 10_000, 32_000  # below those that kernels give to clients
_ASKS_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: Sequence[str]) -> int:
    if "--facts" in arguments:
        os.write(1, json.dumps(facts()).encode() + b"\n")
        return 0
    return guard()


def facts() -> dict[str, Any]:
    """Of this host, as ssh reached it: both ends' addresses ("" without ssh), its own by interface, a free port."""
    launcher, _, own, _ = os.environ.get("SSH_CONNECTION", "   ").split(" ")
    return {"launcher": launcher, "address": own, "interfaces": _interfaces(), "port": _free_port()}


def guard() -> int:
    """Start the worker that the first line of the input describes, and see to its end. Returns its exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # descendants that lose their parent become ours
    wake = _wake_on_signals()
    line, rest = _first_line()
    if not line:
        return CANNOT_START  # the launcher has gone, or thought better of it
    order = json.loads(line)
    private = Path(tempfile.mkdtemp(prefix="phalanx-"))
    abandoned = False
    try:
        worker = _start(order, private)
        if worker is None:
            return CANNOT_START
        status, abandoned = _watch(worker.pid, wake, rest)
        worker.returncode = status
        return status
    finally:
        _end_descendants()
        shutil.rmtree(private, ignore_errors=True)
        if abandoned and order["scratch"]:  # the launcher was killed and cannot clean up
            shutil.rmtree(order["scratch"], ignore_errors=True)


def _start(order: dict[str, Any], private: Path) -> subprocess.Popen[bytes] | None:
    """The worker, in a session of its own; None when it cannot be started, which is said.

    It must be kept: one that is forgotten collects its process, and we would not know how that ended.
    """
    env = (dict(os.environ) if order["inherit"] else {}) | order["env"]
    # A folder with a package `horovod` in it that is ours: spawned children of the script find it, too.
    ours = str(Path(__file__).resolve().parent.parent / "path")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (ours, env.get("PYTHONPATH"))))
    if order["secret"]:
        key = private / "key"
        key.touch(mode=0o600)
        key.write_text(order["secret"])
        env[KEY_FILE] = str(key)
    guardian = os.getpid()

    def become_worker() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guardian:
            os._exit(128 + signal.SIGKILL)
        os.write(2, MARK + b"%d\n" % os.getpid())

    with contextlib.suppress(OSError):  # Horovod stays in the home directory, too
        os.chdir(order["cwd"])
    try:
        return subprocess.Popen(
            order["argv"],
            env=env,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=become_worker,  # noqa: PLW1509 - this process has one thread
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        os.write(2, f"cannot start {order['argv'][0]!r}: {reason}\n".encode())
        return None


def _watch(worker: int, wake: int, rest: bytes) -> tuple[int, bool]:
    """Wait for the worker, or for a reason to end it: its exit status, and whether the launcher vanished."""
    told, deadline, abandoned = rest, float("inf"), False
    sources = [0, wake]
    while (status := _reap(worker)) is None:
        asked = _grace_in(told)
        if asked is None:
            ready, _, _ = select.select(sources, [], [], min(max(deadline - time.monotonic(), 0), 3600))
            if wake in ready and any(number in _ASKS_TO_END for number in os.read(wake, 256)):
                asked = GRACE_S
            if 0 in ready:
                told = os.read(0, 4096)
                if not told:
                    sources = [wake]
                    abandoned = deadline == float("inf")  # nobody had asked for a stop
                    asked = GRACE_S if abandoned else None
        else:
            told = b""
        if asked is not None:
            _signal_session(worker, signal.SIGTERM)
            deadline = min(deadline, time.monotonic() + asked)
        if time.monotonic() >= deadline:
            _signal_session(worker, signal.SIGKILL)
            deadline = float("inf")
    return status, abandoned


def _grace_in(told: bytes) -> float | None:
    """What the last `stop SECONDS` among the lines says; None for none. A line is short enough to come whole."""
    return float(told.split()[-1]) if told.startswith(b"stop ") else None


def _reap(worker: int) -> int | None:
    """Collect whoever has ended; the worker's exit status if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return CANNOT_START  # somebody else took it: cannot be
        if pid == 0:
            return None
        if pid == worker:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _end_descendants() -> None:
    """Kill our children until there are none: the children of each become ours when it ends."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    mine, found = str(os.getpid()), []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1] == mine:
                    found.append(int(entry))
    return found


def _signal_session(worker: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker, number)


def _wake_on_signals() -> int:
    """A descriptor that can be read, and gives the number, whenever a child ended or we are asked to end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_ASKS_TO_END):
        signal.signal(number, lambda *_: None)
    return reading


def _first_line() -> tuple[bytes, bytes]:
    """The first line of the input and what came with it; empty when the input ends before."""
    data = b""
    while b"\n" not in data:
        piece = os.read(0, 65536)
        if not piece:
            return b"", b""
        data += piece
    line, _, rest = data.partition(b"\n")
    return line, rest


def _interfaces() -> dict[str, str]:
    """IPv4 addresses by interface, of those that have one."""
    import fcntl

    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, 0x8915, name.encode()[:15].ljust(256, b"\0"))  # SIOCGIFADDR
                found[name] = socket.inet_ntoa(answer[20:24])
    return found


def _free_port() -> int:
    """One that nobody listens at now; drawn, so that jobs that start at the same time do not choose the same."""
    while True:
        port = random.randrange(_FIRST_PORT, _LAST_PORT)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
