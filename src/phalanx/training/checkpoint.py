"""Checkpoints: directories that are either whole or not there.

    checkpoints/step-00000300/  manifest.json  model.safetensors  optimizer.safetensors  tokenizer.json  job.json
    checkpoints/.step-00000300.tmp/         being written or deleted; nobody reads it, the next writer removes it
    checkpoints/step-00000200.damaged/      set aside by `set_aside`, for a person to look at

Written under a temporary name, every file fsynced, the manifest last, then renamed: a crash at any
moment leaves the previous checkpoint as it was. Read only after every checksum was compared. Nothing
is ever unpickled. Knows nothing of steps, optimizers or ranks: one process writes, any may read.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from phalanx.foundation import ensure_private_directory, sha256_file, sync_directory, writing
from phalanx.training import tensorfile
from phalanx.training.errors import CheckpointDamaged, CheckpointMismatch
from phalanx.training.manifest import Manifest, PieceEntry, TensorEntry, decode, encode

MANIFEST = "manifest.json"
log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Piece:
    """A box of a tensor that this process holds. `name` is `<file>.<key>`, such as `model.head.weight`."""

    name: str
    tensor: torch.Tensor
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]

    @classmethod
    def whole(cls, name: str, tensor: torch.Tensor) -> Piece:
        return cls(name, tensor, tuple(tensor.shape), (0,) * tensor.dim())


@dataclass
class Found:
    """The newest sound checkpoint, if any, and those newer ones that are damaged, newest first."""

    checkpoint: Checkpoint | None = None
    damaged: list[CheckpointDamaged] = field(default_factory=list)


class Checkpoint:
    """A checkpoint on disk. `Checkpoint.open` compares every checksum before anything is used."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Raises CheckpointDamaged naming the file that is missing, torn or altered."""
        try:
            manifest = decode((path / MANIFEST).read_bytes(), str(path))
            for name, digest in manifest.files.items():
                if sha256_file(path / name) != digest:
                    raise CheckpointDamaged(f"{name} was altered after it was written", where=str(path))
        except OSError as error:
            name = Path(error.filename or path).name
            raise CheckpointDamaged(f"{name} cannot be read ({error.strerror})", where=str(path)) from error
        checkpoint = cls(path, manifest)
        for name, entry in manifest.tensors.items():
            for piece in entry.pieces:
                if tensorfile.sha256(checkpoint._read_piece(piece)) != piece.sha256:
                    raise CheckpointDamaged(f"{piece.file}: {name} was altered after it was written", where=str(path))
        checkpoint._check_nothing_added()
        return checkpoint

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.iterdir())

    def names(self, prefix: str = "") -> list[str]:
        return [name for name in self.manifest.tensors if name.startswith(prefix)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor. Raises CheckpointMismatch when there is none of that name."""
        return self._entry(name).global_shape

    def read_slice(self, name: str, offset: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
        """The box of `shape` at `offset`, in the stored dtype; put together from the pieces that touch it.

        Raises CheckpointMismatch when there is no such tensor, or the box is not inside it.
        """
        entry = self._entry(name)
        inside = len(offset) == len(shape) == len(entry.global_shape) and all(
            at >= 0 and at + size <= whole for at, size, whole in zip(offset, shape, entry.global_shape, strict=True)
        )
        if not inside:
            raise CheckpointMismatch(
                f"{name} has shape {list(entry.global_shape)}, not {list(shape)} at {list(offset)}",
                where=str(self.path),
                remedy="resume with the model and vocabulary that wrote the checkpoint, or start a new job",
            )
        result: torch.Tensor | None = None
        for piece in entry.pieces:
            if piece.offset == offset and piece.shape == shape:
                return self._read_piece(piece)
            begin = [max(a, b) for a, b in zip(offset, piece.offset, strict=True)]
            end = [min(a + n, b + m) for a, n, b, m in zip(offset, shape, piece.offset, piece.shape, strict=True)]
            if any(b >= e for b, e in zip(begin, end, strict=True)):
                continue
            data = self._read_piece(piece)
            result = data.new_empty(shape) if result is None else result
            target = tuple(slice(b - o, e - o) for b, e, o in zip(begin, end, offset, strict=True))
            source = tuple(slice(b - o, e - o) for b, e, o in zip(begin, end, piece.offset, strict=True))
            result[target] = data[source]
        assert result is not None, "a box inside the tensor touches a piece: the manifest's writer covers it"
        return result

    def _check_nothing_added(self) -> None:
        """The files, all of which have been read by now, hold no tensor that the manifest does not know."""
        known: dict[str, set[str]] = {}
        for entry in self.manifest.tensors.values():
            for piece in entry.pieces:
                known.setdefault(piece.file, set()).add(piece.key)
        for name, keys in known.items():
            with safe_open(self.path / name, framework="pt") as file:
                added = sorted(set(file.keys()) - keys)
            if added:
                raise CheckpointDamaged(
                    f"{name} holds {added[0]}, which is not of this checkpoint: it was altered after it was written",
                    where=str(self.path),
                )

    def _entry(self, name: str) -> TensorEntry:
        if name not in self.manifest.tensors:
            raise CheckpointMismatch(
                f"there is no tensor {name}", where=str(self.path), remedy="load it with the model that wrote it"
            )
        return self.manifest.tensors[name]

    def _read_piece(self, piece: PieceEntry) -> torch.Tensor:
        try:
            with safe_open(self.path / piece.file, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(piece.key)
        except (SafetensorError, OSError) as error:
            text = str(error).splitlines()[0]
            raise CheckpointDamaged(f"{piece.file} is torn or missing ({text})", where=str(self.path)) from error
        return tensor


def write(
    root: Path, manifest: Manifest, pieces: Iterable[Piece], companions: Mapping[str, Path], keep: int
) -> Checkpoint:
    """Write `root/step-<manifest.step>`, durable when this returns, then delete all but the newest `keep`.

    `manifest` comes without tensors and files: they are filled in here. `companions`: files to be copied,
    by the name they get. Raises StorageError (DiskFull, ReadOnly); what was good is kept then.
    """
    ensure_private_directory(root)
    target = path_of(root, manifest.step)
    temporary = root / f".{target.name}.tmp"
    with writing(target):
        _sweep(root)
        try:
            temporary.mkdir(mode=0o700)
            whole = manifest.model_copy(
                update={"tensors": _write_tensors(temporary, pieces), "files": _copy(temporary, companions)}
            )
            _write_file(temporary / MANIFEST, encode(whole))
            sync_directory(temporary)
            if target.exists():  # a damaged one: `newest_good` did not choose it, so this step came again
                os.rename(target, root / f".{target.name}.replaced.tmp")
            os.rename(temporary, target)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_directory(root)
        _prune(root, keep)
        _sweep(root)
    return Checkpoint(target, whole)


def path_of(root: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return root / f"step-{step:08d}"


def newest_good(root: Path) -> Found:
    """The newest checkpoint under `root` whose every checksum holds; newer, damaged ones are logged and listed."""
    found = Found()
    for path in sorted(_checkpoints(root), key=_step, reverse=True):
        try:
            found.checkpoint = Checkpoint.open(path)
        except CheckpointDamaged as error:
            log.warning("damaged checkpoint passed over: %s", error)
            found.damaged.append(error)
        else:
            break
    return found


def set_aside(found: Found) -> None:
    """Rename the damaged ones to `<name>.damaged`: they no longer count or stand in the way. Raises StorageError."""
    for error in found.damaged:
        path = Path(error.where)
        aside = path.with_name(path.name + ".damaged")
        with writing(path):
            if aside.exists():
                shutil.rmtree(aside)
            os.rename(path, aside)


def _write_tensors(directory: Path, pieces: Iterable[Piece]) -> dict[str, TensorEntry]:
    files: dict[str, dict[str, Piece]] = {}
    for piece in pieces:
        file, _, key = piece.name.partition(".")
        files.setdefault(f"{file}.safetensors", {})[key] = piece
    entries = {}
    for file, by_key in files.items():
        digests = tensorfile.write(directory / file, {key: piece.tensor for key, piece in by_key.items()})
        for key, piece in by_key.items():
            shape = tuple(piece.tensor.shape)
            entry = PieceEntry(file=file, key=key, offset=piece.offset, shape=shape, sha256=digests[key])
            entries[piece.name] = TensorEntry(
                dtype=tensorfile.DTYPES[piece.tensor.dtype], global_shape=piece.global_shape, pieces=(entry,)
            )
    return entries


def _copy(directory: Path, companions: Mapping[str, Path]) -> dict[str, str]:
    for name, source in companions.items():
        _write_file(directory / name, source.read_bytes())
    return {name: sha256_file(directory / name) for name in companions}


def _write_file(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        tensorfile.write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(root: Path, keep: int) -> None:
    """Rename old ones to temporary names first: one half deleted must not be taken for a damaged one."""
    steps = sorted(_checkpoints(root), key=_step)
    kept = steps[-keep:]
    damaged = [path for path in root.glob("step-*.damaged") if path.name < kept[0].name]
    for path in steps[:-keep] + damaged:
        os.rename(path, root / f".{path.name}.tmp")


def _sweep(root: Path) -> None:
    """Delete what has a temporary name: no other writer is alive."""
    for leftover in root.glob(".*.tmp"):
        shutil.rmtree(leftover)


def _checkpoints(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if _NAME.fullmatch(path.name)] if root.is_dir() else []


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))
