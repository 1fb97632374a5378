"""What every room needs: errors, names, whole files, the home. No domain; standard library only."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from phalanx.foundation.lazy import lazy_names
from phalanx.foundation.names import check_name, nearest
from phalanx.foundation.words import duration_in_words, estimate_in_words, size_in_words

if TYPE_CHECKING:
    from phalanx.foundation.ccode import BuildError, CompilerFailed, CompilerMissing, build

__all__ = [
    "BuildError",
    "CompilerFailed",
    "CompilerMissing",
    "DiskFull",
    "Home",
    "PhalanxError",
    "ReadOnly",
    "StorageError",
    "UsageError",
    "build",
    "check_name",
    "duration_in_words",
    "ensure_private_directory",
    "estimate_in_words",
    "lazy_names",
    "nearest",
    "sha256_file",
    "size_in_words",
    "storage_error",
    "sync_directory",
    "write_atomic",
    "writing",
]

__getattr__ = lazy_names(__name__, dict.fromkeys(("BuildError", "CompilerFailed", "CompilerMissing", "build"), "ccode"))
