"""Where state, store and runs live: one directory, `--home`, else `PHALANX_HOME`, else `~/.phalanx`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from phalanx.foundation.files import ensure_private_directory
from phalanx.foundation.names import check_name


@dataclass(frozen=True)
class Home:
    root: Path

    @classmethod
    def find(cls, option: str | os.PathLike[str] | None = None) -> Home:
        """The home named by `option`, else by the environment, else the default; created private (0700)."""
        chosen = option or os.environ.get("PHALANX_HOME") or "~/.phalanx"
        return cls(ensure_private_directory(Path(chosen).expanduser().absolute()))

    @property
    def state_db(self) -> Path:
        return self.root / "state.db"

    @property
    def spool_dir(self) -> Path:
        return self.root / "spool"

    @property
    def store_dir(self) -> Path:
        return self.root / "store"

    @property
    def cache_dir(self) -> Path:
        return self.root / "cache"

    @property
    def runs_dir(self) -> Path:
        return self.root / "runs"

    def run_dir(self, namespace: str, name: str, attempt: int) -> Path:
        """Of one attempt of a job. Raises ValueError for a name that is not a label."""
        return self.runs_dir / check_name(namespace) / check_name(name) / f"attempt-{attempt}"
