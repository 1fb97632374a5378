"""Make it so: the life of a job as a pure function, its objects in state, and where its workers go."""

from phalanx.cluster.lifecycle import Action, Observed, decide
from phalanx.cluster.objects import (
    JobBusy,
    JobNotFound,
    Key,
    StoredJob,
    StoredPlacement,
    UidTaken,
    controller_lease,
    delete_objects,
    list_jobs,
    read_job,
    read_placement,
    reopen,
    report_status,
    set_suspend,
    stop_placement,
    submit,
    write_placement,
)
from phalanx.cluster.placement import place, worker_specs

__all__ = [
    "Action",
    "JobBusy",
    "JobNotFound",
    "Key",
    "Observed",
    "StoredJob",
    "StoredPlacement",
    "UidTaken",
    "controller_lease",
    "decide",
    "delete_objects",
    "list_jobs",
    "place",
    "read_job",
    "read_placement",
    "reopen",
    "report_status",
    "set_suspend",
    "stop_placement",
    "submit",
    "worker_specs",
    "write_placement",
]
