"""The file that the ranks of one host share: private to their user, under a name that cannot be guessed.

The name tells who made it (pid, start time, pid namespace), so that what a maker left that died before all had
joined is found and removed by the next. Knows nothing of what is in the file but that it begins with a token.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
from pathlib import Path

from phalanx.collectives.errors import CollectiveError
from phalanx.collectives.identity import start_ticks
from phalanx.foundation import size_in_words

BUFFERS = Path("/dev/shm")


def make_buffer(lib: ctypes.CDLL, size: int) -> tuple[Path, bytes]:
    """A file of `size` bytes, all of them there; its path and the token that whoever opens it must know.

    Raises CollectiveError when BUFFERS cannot hold it.
    """
    _remove_orphans()
    token = secrets.token_hex(16).encode()
    maker = f"{os.getpid()}-{start_ticks(os.getpid())}-{_pid_namespace()}"
    path = BUFFERS / f"phalanx-{maker}-{secrets.token_hex(16)}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)  # now, not by SIGBUS in the middle of an operation
            if lib.ph_create(fd, token):
                raise OSError(errno.ENOMEM, "cannot map it")
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
    except OSError as error:
        raise CollectiveError(
            f"no shared buffer of {size_in_words(size)} in {BUFFERS}: {error.strerror}",
            remedy="make it larger (docker run --shm-size=1g; mount -o remount,size=1g /dev/shm)",
        ) from error
    return path, token


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _remove_orphans() -> None:
    """Buffers of this user whose maker died before all had joined; of makers whose pids mean something here."""
    for path in BUFFERS.glob("phalanx-*-*-*-*"):
        with contextlib.suppress(OSError, ValueError):
            _, pid, start, namespace, _ = path.name.split("-")
            ours = namespace == _pid_namespace() and path.lstat().st_uid == os.getuid()
            if ours and start_ticks(int(pid)) != start:
                path.unlink()
