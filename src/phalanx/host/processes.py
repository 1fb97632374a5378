"""Child processes that never outlive whom they belong to, and names for processes that are never reused.

A pid alone is reused; an *identity* is `<pid>@<boot>-<start ticks>` and names one process for ever.
Linux only (`/proc`, `PR_SET_PDEATHSIG`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from phalanx.foundation import writing

# Runs in the child before the program: die with the parent (prctl 1 = PR_SET_PDEATHSIG), and close the race with a
# parent that died before the call. A wrapper and not preexec_fn, which may deadlock in a parent with threads.
_DIE_WITH_PARENT = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1,9,0,0,0)\n"
    "os.getppid()==int(sys.argv[1]) or os._exit(137)\n"
    "os.execvp(sys.argv[2],sys.argv[2:])\n"
)


def stat_of(pid: int) -> list[str] | None:
    """Fields of proc_pid_stat(5) from the third, the state, on; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def identity_of(pid: int) -> str | None:
    """The identity of a living process; None when there is none (a zombie counts as dead)."""
    fields = stat_of(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return f"{pid}@{boot_id()}-{fields[19]}"


def own_identity() -> str:
    """Of the calling process."""
    identity = identity_of(os.getpid())
    assert identity is not None
    return identity


def is_alive(identity: str) -> bool:
    """Whether exactly that process still runs on this boot of this host."""
    pid = identity.partition("@")[0]
    return pid.isdecimal() and identity_of(int(pid)) == identity


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    output: Path | None = None,
    errors: Path | None = None,
    cwd: Path | None = None,
    die_with_parent: bool = True,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own (no terminal signal reaches it), input from nowhere.

    `output`, `errors`: files that are appended to; None: nowhere, errors to `output`.
    With `die_with_parent` the kernel kills the child when the *thread* that called this ends, however it ends.
    Raises StorageError when a file cannot be opened.
    """
    command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())] if die_with_parent else []
    with contextlib.ExitStack() as files:
        out: int = subprocess.DEVNULL
        if output is not None:
            with writing(output):
                out = files.enter_context(output.open("ab")).fileno()
        err: int = subprocess.STDOUT
        if errors is not None:
            with writing(errors):
                err = files.enter_context(errors.open("ab")).fileno()
        return subprocess.Popen(
            [*command, *argv],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=cwd,
            start_new_session=True,
        )


def signal_group(pid: int, signal_number: int) -> None:
    """Send a signal to the session that `start` made; nothing when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal_number)


def reap(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of what `start` began, None while it lives. What it left in its session is killed.

    That happens before the child is reaped: until then nobody else can have the number of its group.
    """
    if process.returncode is None:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        signal_group(process.pid, signal.SIGKILL)
    return process.poll()


def terminate(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """SIGTERM to the process's group, SIGKILL after `grace_s` seconds; returns its exit status."""
    signal_group(process.pid, signal.SIGTERM)
    try:
        return process.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        signal_group(process.pid, signal.SIGKILL)
        return process.wait()


def wait_until_dead(identity: str, timeout_s: float) -> bool:
    """Whether a process, of any parent, ended within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while is_alive(identity):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@functools.cache
def boot_id() -> str:
    """Of this boot of this host's kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
