"""Files that are either whole or not there: atomic writes, private directories, checksums.

The one place where "disk full" and "read-only" become messages that a person can act on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from phalanx.foundation.errors import PhalanxError


class StorageError(PhalanxError):
    """A file or directory cannot be written."""


class DiskFull(StorageError):
    """No space is left (or a quota or size limit is reached)."""


class ReadOnly(StorageError):
    """The file system or the permissions forbid writing."""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def storage_error(error: OSError, path: Path | str) -> StorageError:
    """`error`, met while writing `path`, as the message for a person."""
    where = str(path)
    if error.errno in _FULL:
        return DiskFull("the disk is full", where=where, remedy="free space there, or choose another place with --home")
    if error.errno in _FORBIDDEN:
        return ReadOnly(
            f"cannot be written ({os.strerror(error.errno or 0)})",
            where=where,
            remedy="make it writable, or choose another place with --home",
        )
    reason = error.strerror or error
    return StorageError(f"cannot be written ({reason})", where=where, remedy="check the path and the disk")


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn an OSError of the block into the StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def sync_directory(path: Path) -> None:
    """Make renames and creations inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o600) -> None:
    """Write `path` so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Raises StorageError (DiskFull, ReadOnly); the old content is kept then.
    """
    payload = data.encode() if isinstance(data, str) else data
    with writing(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(payload)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)


def ensure_private_directory(path: Path) -> Path:
    """Create `path` and the parents that are missing, readable by their owner only (0700), and return it."""
    with writing(path):
        missing = itertools.takewhile(lambda parent: not parent.exists(), path.parents)
        for directory in reversed([path, *missing]):  # one by one: pathlib gives parents the default mode
            directory.mkdir(mode=0o700, exist_ok=True)
    return path


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
