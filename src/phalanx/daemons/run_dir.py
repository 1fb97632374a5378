"""The files of one attempt, as the controller reads and writes them: each is whole or not there.

job.json  plan.json  decision-<gate>.json  evaluation.json  report.html  logs/  checkpoints/  data/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from phalanx.foundation import PhalanxError, ensure_private_directory, write_atomic, writing
from phalanx.job import Decision, Job, Plan

T = TypeVar("T", Decision, Plan)
GATES = (1, 2)


class RunDamaged(PhalanxError):
    """A file of a run is not what was written there."""


@dataclass(frozen=True)
class RunDir:
    path: Path

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Created private when missing; what a killed writer left in it is removed. Raises StorageError."""
        ensure_private_directory(path)
        ensure_private_directory(path / "logs")
        for left in path.glob(".*.tmp"):
            with writing(left):
                left.unlink(missing_ok=True)
        return cls(path)

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def log(self, step: str) -> Path:
        return self.path / "logs" / f"{step}.log"

    def is_evaluated(self) -> bool:
        return (self.path / "evaluation.json").exists()

    def write_job(self, job: Job) -> None:
        """For planner, workers and evaluator."""
        write_atomic(self.path / "job.json", job.model_dump_json(by_alias=True, indent=1))

    def plan(self) -> Plan | None:
        """Raises RunDamaged."""
        return self._read("plan.json", Plan)

    def decision(self, gate: int) -> Decision | None:
        """Raises RunDamaged."""
        return self._read(f"decision-{gate}.json", Decision)

    def write_decision(self, gate: int, decision: Decision) -> None:
        write_atomic(self.path / f"decision-{gate}.json", decision.model_dump_json(by_alias=True, indent=1))

    def forget_refusals(self) -> None:
        """Let gates that did not allow the job be asked again: the world may have changed."""
        for gate in GATES:
            decision = self.decision(gate)
            if decision is not None and decision.verdict != "allow":
                (self.path / f"decision-{gate}.json").unlink(missing_ok=True)

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.path / name
        try:
            return kind.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            said = error.strerror if isinstance(error, OSError) else f"{error.error_count()} problems"
            raise RunDamaged(
                f"cannot be read as a {kind.__name__} ({said})",
                where=str(path),
                remedy="remove it and `phalanx resume` the job, which makes it anew",
            ) from error
