"""Whether a path that a person named can lead to a model at all."""

from __future__ import annotations

from pathlib import Path

from phalanx.evaluation.errors import NotACheckpoint


def check_directory(path: Path) -> None:
    """Raises NotACheckpoint for what is no directory."""
    if not path.is_dir():
        raise NotACheckpoint(
            "is a file; a checkpoint is a directory" if path.exists() else "there is no such directory",
            where=str(path),
            remedy="name a run directory (`phalanx describe job NAME` prints it; `phalanx get` lists the jobs), "
            "or one checkpoint in its `checkpoints`",
        )
