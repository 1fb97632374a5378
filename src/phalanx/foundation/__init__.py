"""What every room needs: errors, names, whole files, the home. No domain; standard library only."""

from phalanx.foundation.errors import PhalanxError, UsageError
from phalanx.foundation.files import (
    DiskFull,
    ReadOnly,
    StorageError,
    ensure_private_directory,
    sha256_file,
    storage_error,
    sync_directory,
    write_atomic,
    writing,
)
from phalanx.foundation.home import Home
from phalanx.foundation.names import check_name, nearest

__all__ = [
    "DiskFull",
    "Home",
    "PhalanxError",
    "ReadOnly",
    "StorageError",
    "UsageError",
    "check_name",
    "ensure_private_directory",
    "nearest",
    "sha256_file",
    "storage_error",
    "sync_directory",
    "write_atomic",
    "writing",
]
