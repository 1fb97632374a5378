"""A job and its placement as objects of state: how they are written, read and named there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.cluster.lifecycle import PHASES
from phalanx.foundation import PhalanxError, UsageError, nearest
from phalanx.job import FINAL_PHASES, Job, JobStatus, Placement, PlacementStatus, WorkerSpec
from phalanx.job.spec import Phase
from phalanx.state import Conflict, SqliteState, Stored

JOB, PLACEMENT = "TrainingJob", "Placement"
Key = tuple[str, str]
# What need not be done again when a job goes on, and where it stands then.
_PHASE_AFTER: Mapping[str, Phase] = {
    "Admitted": "Admitted",
    "Planned": "Planned",
    "HostReady": "Planned",
    "Trained": "Evaluating",
}


class JobNotFound(UsageError):
    """No job of that name."""


class UidTaken(UsageError):
    """Another job has this uid, which tells the two apart in events and processes."""


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
        remedy = _instead(state, namespace, name)
        raise JobNotFound(f"there is no job {namespace}/{name}", remedy=remedy)
    return from_stored(stored)


def _instead(state: SqliteState, namespace: str, name: str) -> str:
    """The job that was meant, maybe: of another team above all, because `-n` is forgotten more often than a name."""
    others = [(stored.namespace, stored.name) for stored in state.list(JOB)]
    elsewhere = [of for of, other in others if other == name]
    if elsewhere:
        return f"did you mean -n {' or -n '.join(elsewhere)}?"
    like = nearest(f"{namespace}/{name}", [f"{of}/{other}" for of, other in others])
    return f"did you mean {like}?" if like else "`phalanx get jobs` lists them"


def list_jobs(state: SqliteState, namespace: str | None) -> list[StoredJob]:
    return [from_stored(stored) for stored in state.list(JOB, namespace)]


def from_stored(stored: Stored) -> StoredJob:
    metadata = {"name": stored.name, "namespace": stored.namespace, "uid": stored.uid}
    document = {"metadata": metadata, "spec": dict(stored.spec), "status": dict(stored.status)}
    return StoredJob(Job.model_validate(document), stored.version)


def submit(state: SqliteState, job: Job, run_dirs: Path) -> StoredJob:
    """Write a job as desired: a new one, or a new attempt of one that has ended.

    An attempt never gets the directory of an earlier one, not even of a deleted job's. Raises UidTaken, and JobBusy
    when the last attempt was interrupted, or somebody else submits at the same moment; whether a job is being
    controlled now is for the holder of `controller_lease` to know.
    """
    namespace, name = key = (job.metadata.namespace, job.metadata.name)
    for other in state.list(JOB):
        if other.uid == job.metadata.uid and (other.namespace, other.name) != key:
            raise UidTaken(
                f"metadata.uid {other.uid} is that of another job, {other.namespace}/{other.name}",
                remedy="leave metadata.uid out: a new job gets its own",
            )
    directory = run_dirs / namespace / name
    before = state.get(JOB, *key)
    attempt, uid, expect = _used_attempts(directory) + 1, job.metadata.uid, 0
    if before is not None:
        old = from_stored(before).job
        if old.status.phase not in FINAL_PHASES:
            raise JobBusy(
                f"job {namespace}/{name} was interrupted ({old.status.phase})",
                remedy=f"`phalanx resume {name}{_flag(namespace)}` goes on with it; "
                f"`phalanx stop {name}{_flag(namespace)}` ends it; or choose another metadata.name",
            )
        attempt, uid, expect = max(attempt, old.status.attempt + 1), before.uid, before.version
    status = JobStatus(attempt=attempt, run_dir=str(directory / f"attempt-{attempt}"))
    try:
        written = state.apply(JOB, *key, _document(job.spec), uid=uid, expect=expect)
        state.report(JOB, *key, _document(status), expect=written.version)
    except Conflict as error:
        raise JobBusy(
            f"another `phalanx run` of {namespace}/{name} began at the same moment",
            remedy="choose another metadata.name, or wait for it",
        ) from error
    stop_placement(state, key)  # should workers of the last attempt still be there: nobody wants them now
    return read_job(state, *key)


def _used_attempts(directory: Path) -> int:
    """The highest attempt that has a directory; 0: none."""
    numbers = [path.name.removeprefix("attempt-") for path in directory.glob("attempt-*")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


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
    """Make an ended job go on where it stands: same attempt; workers, if any are wanted, as a new generation."""
    set_suspend(state, key, False)
    stored = read_job(state, *key)
    status = stored.job.status
    if status.phase in FINAL_PHASES:
        kept = tuple(c for c in status.conditions if c.type in _PHASE_AFTER and c.status == "True")
        phase = max((_PHASE_AFTER[c.type] for c in kept), key=PHASES.index, default="Pending")
        update = {
            "phase": phase,
            "generation": status.generation + (phase != "Evaluating"),
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
    state: SqliteState, key: Key, placement: Placement, workers: Sequence[WorkerSpec], run_dir: Path, *, expect: int
) -> None:
    """Write what the agent shall make true. `expect`: the version that was read, 0 for none. Raises Conflict.

    A report on a placement of another attempt goes with it.
    """
    spec = {
        "placement": _document(placement),
        "workers": [_document(worker) for worker in workers],
        "run_dir": str(run_dir),
        "stopping": False,
    }
    uid = f"{placement.job_uid}-{placement.attempt}"
    state.apply(PLACEMENT, *key, spec, uid=uid, expect=expect)


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
