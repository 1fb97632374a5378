"""The columnar store: immutable Parquet parts and the newest manifest, which alone says what counts.

    <store>/manifest-000000000042.json      the newest wins; its predecessor is kept
    <store>/parts/steps/000000000042-9f3a....parquet

A commit creates the manifest of the next version by `link`, which fails when the name exists. So of
two collectors only one can follow a given version, without a lock that a stopped process could hold
for ever. A file that no manifest names is garbage, and the next owner removes it.
Knows neither the spool nor SQL.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from phalanx.foundation import (
    StorageError,
    ensure_private_directory,
    storage_error,
    sync_directory,
    write_atomic,
    writing,
)
from phalanx.telemetry import parts
from phalanx.telemetry.errors import StoreDamaged, StoreFenced
from phalanx.telemetry.manifest import Manifest, Part, decode, encode

_PREFIX, _SUFFIX, _PARTS = "manifest-", ".json", "parts"


class Store:
    """A directory; nothing is created before the first commit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def epoch(self) -> int:
        """Of the collector that committed last; 0 for a store that is not there. Raises StoreDamaged."""
        return self.read().epoch

    def read(self) -> Manifest:
        """The newest manifest; an empty one where there is no store. Raises StoreDamaged."""
        while True:
            version = self._newest()
            if version == 0:
                return Manifest()
            path = self._manifest_path(version)
            try:
                return decode(path.read_bytes(), str(path))
            except FileNotFoundError:  # a newer one has taken its place
                continue
            except OSError as error:
                raise StoreDamaged(
                    f"the store's manifest cannot be read ({error.strerror})",
                    where=str(path),
                    remedy="check its permissions and the disk",
                ) from error

    def claim(self, epoch: int) -> Manifest:
        """Make the collector of lease `epoch` the owner, and return the newest manifest.

        A new owner removes what its predecessor left unfinished; from then on older epochs are refused.
        Raises StoreFenced, StoreDamaged, StorageError.
        """
        manifest = self.read()
        if manifest.epoch > epoch:
            raise self._fenced()
        if manifest.epoch == epoch:
            return manifest
        manifest = replace(manifest, version=manifest.version + 1, epoch=epoch)
        self.commit(manifest)
        self._sweep(manifest)
        return manifest

    def write_part(self, table: str, rows: pa.Table, version: int) -> Part:
        """Write rows as a part for the manifest of `version`; it counts when that is committed. Raises StorageError."""
        data = parts.encode(rows)
        file = f"{_PARTS}/{table}/{version:012d}-{secrets.token_hex(4)}.parquet"
        path = self.path(file)
        if not path.parent.is_dir():
            for directory in (self.directory, path.parent.parent, path.parent):
                ensure_private_directory(directory)
            with writing(path.parent):
                sync_directory(path.parent.parent)
        try:
            write_atomic(path, data)
        except StorageError:  # even if it is there: nobody will commit it
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return Part(file, rows.num_rows, len(data), hashlib.sha256(data).hexdigest())

    def commit(self, manifest: Manifest) -> None:
        """Make `manifest` the newest, if its version is the next one. Raises StoreFenced, StorageError."""
        ensure_private_directory(self.directory)
        target = self._manifest_path(manifest.version)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            write_atomic(temporary, encode(manifest))
            os.link(temporary, target)
        except FileExistsError as error:
            raise self._fenced() from error
        except OSError as error:
            raise storage_error(error, target) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        if self._newest() != manifest.version:
            # We slept for so long that this version's name had become free again.
            with contextlib.suppress(OSError):
                target.unlink()
            raise self._fenced()
        with writing(target):
            sync_directory(self.directory)
            for version in self._versions():
                if version < manifest.version - 1:
                    self._manifest_path(version).unlink(missing_ok=True)

    def remove(self, files: Collection[str]) -> None:
        """Delete part files, except those that the newest manifest needs. What cannot be deleted stays as garbage."""
        needed = self.read().files() if files else set()
        for file in files:
            if file not in needed:
                with contextlib.suppress(OSError):
                    self.path(file).unlink()

    def path(self, file: str) -> Path:
        """Of a part."""
        return self.directory / file

    def _sweep(self, manifest: Manifest) -> None:
        """Remove unfinished files, and parts of no manifest that are not for a later one."""
        needed = manifest.files()
        for path in (*self.directory.glob(".*.tmp"), *(self.directory / _PARTS).glob("*/*")):
            file = path.relative_to(self.directory).as_posix()
            version = path.name.partition("-")[0]
            later = version.isdecimal() and int(version) > manifest.version
            if file not in needed and not later:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _manifest_path(self, version: int) -> Path:
        return self.directory / f"{_PREFIX}{version:012d}{_SUFFIX}"

    def _versions(self) -> list[int]:
        names = (path.name for path in self.directory.glob(f"{_PREFIX}*{_SUFFIX}"))
        numbers = (name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for name in names)
        return [int(number) for number in numbers if number.isdecimal()]

    def _newest(self) -> int:
        return max(self._versions(), default=0)

    def _fenced(self) -> StoreFenced:
        return StoreFenced(
            "another collector owns the store now; nothing is lost, it reads the same spool",
            where=str(self.directory),
        )
