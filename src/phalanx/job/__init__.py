"""What is wanted: the values that go down through the house, and nothing that acts on them."""

from phalanx.job.checks import check
from phalanx.job.document import JobFileError, Problem
from phalanx.job.finding import Coverage, Decision, Fact, Finding, HostFacts
from phalanx.job.placement import (
    EXIT_CODES,
    Member,
    MemberStatus,
    Placement,
    PlacementStatus,
    WorkerExit,
    WorkerSpec,
)
from phalanx.job.plan import MemoryPrediction, Plan, Predicted
from phalanx.job.schema import json_schema
from phalanx.job.security import not_enforced, unenforceable
from phalanx.job.spec import (
    API_VERSION,
    FINAL_PHASES,
    ColumnsSpec,
    Condition,
    DataSpec,
    Job,
    JobSpec,
    JobStatus,
    MeshSpec,
    Metadata,
    ModelSpec,
    OptimizerSpec,
    ScheduleSpec,
    SecuritySpec,
    TrainingSpec,
    VocabularySpec,
    WorkersSpec,
)
from phalanx.job.template import template
from phalanx.job.values import read_value
from phalanx.job.yaml import dotted, dump_job, parse_job, read_job

__all__ = [
    "API_VERSION",
    "EXIT_CODES",
    "FINAL_PHASES",
    "ColumnsSpec",
    "Condition",
    "Coverage",
    "DataSpec",
    "Decision",
    "Fact",
    "Finding",
    "HostFacts",
    "Job",
    "JobFileError",
    "JobSpec",
    "JobStatus",
    "Member",
    "MemberStatus",
    "MemoryPrediction",
    "MeshSpec",
    "Metadata",
    "ModelSpec",
    "OptimizerSpec",
    "Placement",
    "PlacementStatus",
    "Plan",
    "Predicted",
    "Problem",
    "ScheduleSpec",
    "SecuritySpec",
    "TrainingSpec",
    "VocabularySpec",
    "WorkerExit",
    "WorkerSpec",
    "WorkersSpec",
    "check",
    "dotted",
    "dump_job",
    "json_schema",
    "not_enforced",
    "parse_job",
    "read_job",
    "read_value",
    "template",
    "unenforceable",
]
