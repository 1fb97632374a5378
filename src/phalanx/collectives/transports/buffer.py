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
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from torch.distributed import Store  # type: ignore[attr-defined]

from phalanx.collectives.errors import CollectiveError, CollectiveTimeout
from phalanx.collectives.identity import start_ticks
from phalanx.collectives.transports.library import version
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


def meet_over_buffer(
    lib: ctypes.CDLL, size: int, store: Store, rank: int, names: Sequence[int], timeout_s: float
) -> tuple[Path, bytes]:
    """Path and token of the buffer that rank 0 makes and the others learn of through `store`.

    Raises CollectiveError on every rank where it cannot be made; CollectiveTimeout when rank 0 does not come.
    """
    where = f"rank {names[rank]}, shared memory"
    if rank == 0:
        try:
            path, token = make_buffer(lib, size)
        except CollectiveError as error:
            store.set("buffer", "!" + error.message)
            raise
        store.set("buffer", f"{path.name} {token.decode()} {version()}")
        return path, token
    try:
        store.wait(["buffer"], timedelta(seconds=timeout_s))
    except RuntimeError as error:
        raise CollectiveTimeout(
            f"rank {names[0]} did not join within {timeout_s:g} s",
            missing=(names[0],),
            where=where,
            remedy="look at the log of that rank, or whether its process was started",
        ) from error
    words = store.get("buffer").decode()
    if words.startswith("!"):
        raise CollectiveError(f"rank {names[0]}: {words[1:]}", where=where)
    name, token_words, their_version = words.split()
    if their_version != version():
        raise CollectiveError(
            f"rank {names[0]} runs another version of Phalanx",
            where=where,
            remedy="start all ranks from one installation",
        )
    return BUFFERS / Path(name).name, token_words.encode()


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
