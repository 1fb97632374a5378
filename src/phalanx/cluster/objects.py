"""A job and its placement as objects of state: how they are written, read and named there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.foundation import PhalanxError, UsageError, nearest
from phalanx.job import FINAL_PHASES, Job, JobStatus, Placement, PlacementStatus, WorkerSpec
from phalanx.state import Conflict, SqliteState, Stored

JOB, PLACEMENT = "TrainingJob", "Placement"
Key = tuple[str, str]


class JobNotFound(UsageError):
    """No job of that name."""


class JobBusy(PhalanxError):
    """The job is under way, or was left in the middle."""


@dataclass(frozen=True)
class StoredJob:
    job: Job
    version: int

    @property
    def key(self) -> Key:
        return self.job.metadata.namespace, self.job.metadata.name


@dataclass(frozen=True)
class StoredPlacement:
    """`stopping`: the workers shall checkpoint and end."""

    placement: Placement
    stopping: bool
    status: PlacementStatus | None
    version: int


def controller_lease(key: Key) -> str:
    return f"controller/{key[0]}/{key[1]}"


def read_job(state: SqliteState, namespace: str, name: str) -> StoredJob:
    """Raises JobNotFound, naming the nearest one."""
    stored = state.get(JOB, namespace, name)
    if stored is None:
        others = [f"{s.namespace}/{s.name}" for s in state.list(JOB)]
        like = nearest(f"{namespace}/{name}", others)
        remedy = f"did you mean {like}?" if like else "`phalanx get jobs` lists them"
        raise JobNotFound(f"there is no job {namespace}/{name}", remedy=remedy)
    return from_stored(stored)


def list_jobs(state: SqliteState, namespace: str | None) -> list[StoredJob]:
    return [from_stored(stored) for stored in state.list(JOB, namespace)]


def from_stored(stored: Stored) -> StoredJob:
    metadata = {"name": stored.name, "namespace": stored.namespace, "uid": stored.uid}
    document = {"metadata": metadata, "spec": dict(stored.spec), "status": dict(stored.status)}
    return StoredJob(Job.model_validate(document), stored.version)


def submit(state: SqliteState, job: Job, run_dirs: Path) -> StoredJob:
    """Write a job as desired: a new one, or a new attempt of one that has ended.

    Raises JobBusy when one of this name is under way or was interrupted.
    """
    namespace, name = job.metadata.namespace, job.metadata.name
    before = state.get(JOB, namespace, name)
    attempt, uid, expect = 1, job.metadata.uid, 0
    if before is not None:
        old = from_stored(before).job
        if old.status.phase not in FINAL_PHASES:
            held = state.holder(controller_lease((namespace, name))) is not None
            raise JobBusy(
                f"job {namespace}/{name} is {'running' if held else 'interrupted'} ({old.status.phase})",
                remedy=f"`phalanx {'stop' if held else 'resume'} {name}{_flag(namespace)}`, or choose another metadata.name",
            )
        attempt, uid, expect = old.status.attempt + 1, before.uid, before.version
    status = JobStatus(attempt=attempt, run_dir=str(run_dirs / namespace / name / f"attempt-{attempt}"))
    try:
        state.apply(JOB, namespace, name, _document(job.spec), uid=uid, expect=expect)
    except Conflict as error:
        raise JobBusy(
            f"another `phalanx run` of {namespace}/{name} began at the same moment",
            remedy="choose another metadata.name, or wait for it",
        ) from error
    state.report(JOB, namespace, name, _document(status))
    return read_job(state, namespace, name)


def set_suspend(state: SqliteState, key: Key, suspend: bool) -> StoredJob:
    """Change `spec.suspend`, whatever else changes at the same time."""
    while True:
        stored = read_job(state, *key)
        if stored.job.spec.suspend == suspend:
            return stored
        spec = stored.job.spec.model_copy(update={"suspend": suspend})
        try:
            state.apply(JOB, *key, _document(spec), uid=stored.job.metadata.uid, expect=stored.version)
        except Conflict:
            continue


def reopen(state: SqliteState, key: Key) -> StoredJob:
    """Make an ended job run on from its last checkpoint: same attempt, a new generation."""
    set_suspend(state, key, False)
    stored = read_job(state, *key)
    status = stored.job.status
    if status.phase in FINAL_PHASES:
        kept = tuple(c for c in status.conditions if c.type in ("Admitted", "Planned", "HostReady"))
        update = {
            "phase": "Planned",
            "generation": status.generation + 1,
            "restarts": 0,
            "conditions": kept,
            "report": "",
        }
        state.report(JOB, *key, _document(status.model_copy(update=update)), expect=stored.version)
    return read_job(state, *key)


def report_status(state: SqliteState, stored: StoredJob, status: JobStatus) -> None:
    """Raises Conflict when the job changed since `stored` was read."""
    state.report(JOB, *stored.key, _document(status), expect=stored.version)


def read_placement(state: SqliteState, key: Key) -> StoredPlacement | None:
    stored = state.get(PLACEMENT, *key)
    if stored is None:
        return None
    status = PlacementStatus.model_validate(stored.status) if stored.status else None
    placement = Placement.model_validate(stored.spec["placement"])
    return StoredPlacement(placement, bool(stored.spec["stopping"]), status, stored.version)


def write_placement(
    state: SqliteState, key: Key, placement: Placement, workers: Sequence[WorkerSpec], run_dir: Path
) -> None:
    spec = {
        "placement": _document(placement),
        "workers": [_document(worker) for worker in workers],
        "run_dir": str(run_dir),
        "stopping": False,
    }
    state.apply(PLACEMENT, *key, spec, uid=placement.job_uid, expect=None)


def stop_placement(state: SqliteState, key: Key) -> None:
    """Ask the agent for a checkpoint and the end of its workers. Idempotent."""
    while (stored := state.get(PLACEMENT, *key)) is not None and not stored.spec["stopping"]:
        try:
            state.apply(PLACEMENT, *key, {**stored.spec, "stopping": True}, uid=stored.uid, expect=stored.version)
        except Conflict:
            continue


def delete_objects(state: SqliteState, key: Key) -> None:
    """Remove a job and its placement; an agent that still runs kills its workers and ends."""
    for kind in (PLACEMENT, JOB):
        if state.get(kind, *key) is not None:
            state.delete(kind, *key)


def _flag(namespace: str) -> str:
    return "" if namespace == "default" else f" --namespace {namespace}"


def _document(value: Any) -> Mapping[str, Any]:
    document: Mapping[str, Any] = value.model_dump(mode="json", by_alias=True)
    return document
