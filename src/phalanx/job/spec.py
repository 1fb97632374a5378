"""The job: what a person wants trained, in the shape of a Kubernetes object.

One set of values for YAML, Python, state and the web page. Python says `global_batch`, the
file says `globalBatch`, by one rule (`to_camel`). Knows nothing of files, planning or torch:
`job.yaml` reads files into these values, `admission` and `planning` judge them.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from phalanx.foundation.names import check_name

API_VERSION: Final = "phalanx.dev/v1alpha1"
MAX_WORKERS = 4096

Name = Annotated[str, Field(min_length=1, max_length=63)]
Objective = Literal["causal-lm", "masked-lm"]
Precision = Literal["auto", "fp32", "bf16"]
OptimizerName = Literal["adamw", "muon"]
ScheduleName = Literal["constant", "linear", "cosine", "trapezoid"]
VocabularyKind = Literal["bytes", "bpe", "wordpiece"]
Phase = Literal["Pending", "Admitted", "Planned", "Placed", "Running", "Evaluating", "Succeeded", "Failed", "Stopped"]
FINAL_PHASES: frozenset[Phase] = frozenset({"Succeeded", "Failed", "Stopped"})


class Value(BaseModel):
    """A frozen value: unknown keys are refused, YAML names are camelCase, Python names work too."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class Metadata(Value):
    name: Name
    namespace: Name = "default"
    uid: str = Field(default_factory=lambda: secrets.token_hex(8), max_length=64)

    @field_validator("name", "namespace")
    @classmethod
    def _is_a_label(cls, value: str) -> str:
        return check_name(value)


class ModelSpec(Value):
    name: str = Field(description="A name of the model catalogue, such as bert-tiny.")
    objective: Objective
    dropout: float | None = Field(default=None, ge=0, lt=1, description="None: the model's own default.")


class VocabularySpec(Value):
    kind: VocabularyKind = "bytes"
    size: int = Field(default=4096, ge=256, le=262_144, description="Entries; ignored for bytes, which has 256 + specials.")


class DataSpec(Value):
    source: str = Field(min_length=1, description="stdlib-source, stdlib-docs, or the path of a file or directory of text.")
    sequence_length: int = Field(default=256, ge=8, le=131_072, description="Tokens.")
    vocabulary: VocabularySpec = VocabularySpec()
    held_out: float = Field(default=0.05, gt=0, lt=0.5, description="Share of files kept for validation, by file hash.")
    mask_probability: float = Field(default=0.15, gt=0, lt=1, description="masked-lm: share of tokens to predict.")


class OptimizerSpec(Value):
    name: OptimizerName = "adamw"
    lr: float = Field(default=1e-3, gt=0, le=10)
    weight_decay: float = Field(default=0.01, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = Field(default=0.95, ge=0, lt=1, description="muon: of the matrices.")
    embedding_lr: float | None = Field(default=None, gt=0, description="muon: AdamW's rate for the rest; None: lr / 5.")


class ScheduleSpec(Value):
    name: ScheduleName = "cosine"
    warmup: int = Field(default=20, ge=0, description="Steps.")
    decay: float = Field(default=0.3, gt=0, le=1, description="trapezoid: share of the steps that decay at the end.")
    floor: float = Field(default=0.0, ge=0, le=1, description="Last learning rate as a share of the first.")


class TrainingSpec(Value):
    steps: int = Field(ge=1, le=100_000_000)
    global_batch: int = Field(default=64, ge=1, le=1_048_576, description="Sequences a step, over all workers.")
    micro_batch: int | Literal["auto"] = Field(default="auto", description="Sequences a worker holds at once.")
    precision: Precision = "auto"
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    clip: float | None = Field(default=1.0, gt=0, description="Largest gradient norm; null: no clipping.")
    seed: int = Field(default=0, ge=0, lt=2**63)
    checkpoint_every: int = Field(default=100, ge=1, description="Steps.")
    keep_checkpoints: int = Field(default=2, ge=1)
    evaluate_every: int = Field(default=50, ge=1, description="Steps between losses on held-out data.")

    @field_validator("micro_batch")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or auto")
        return value


class MeshSpec(Value):
    """Workers by axis; their product is the number of workers. Only `data` is carried out so far."""

    data: int = Field(default=1, ge=1)
    shard: int = Field(default=1, ge=1)
    tensor: int = Field(default=1, ge=1)
    pipeline: int = Field(default=1, ge=1)

    @property
    def size(self) -> int:
        return self.data * self.shard * self.tensor * self.pipeline


class WorkersSpec(Value):
    count: int = Field(default=1, ge=1, le=MAX_WORKERS)
    strategy: Literal["auto", "data", "sharded", "tensor", "pipeline", "hybrid"] = "auto"
    mesh: MeshSpec | None = None
    max_restarts: int = Field(default=3, ge=0, le=1000, description="Relaunches of the group before the job fails.")


class SecuritySpec(Value):
    """What must guard the job. `auto`: the strongest there is, and the report says which."""

    isolation: Literal["auto", "none", "jail", "microvm"] = "auto"
    network: Literal["auto", "none", "segment"] = "auto"
    integrity: Literal["auto", "none", "signed"] = "auto"


class JobSpec(Value):
    model: ModelSpec
    data: DataSpec
    training: TrainingSpec
    workers: WorkersSpec = WorkersSpec()
    security: SecuritySpec = SecuritySpec()
    suspend: bool = Field(default=False, description="true: checkpoint and stop (as `phalanx stop` does).")


class Condition(Value):
    """One aspect of a job, as Kubernetes writes them; `time_ns` is the last change of `status`."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    time_ns: int


class JobStatus(Value):
    """Written by `cluster` only."""

    phase: Phase = "Pending"
    attempt: int = 1
    generation: int = 0
    restarts: int = 0
    fallback: int = Field(default=-1, description="Index of the plan's fallback in use; -1: the plan itself.")
    conditions: tuple[Condition, ...] = ()
    step: int = 0
    run_dir: str = ""
    report: str = ""

    def condition(self, type_: str) -> Condition | None:
        return next((c for c in self.conditions if c.type == type_), None)


class Job(Value):
    api_version: Literal["phalanx.dev/v1alpha1"] = "phalanx.dev/v1alpha1"
    kind: Literal["TrainingJob"] = "TrainingJob"
    metadata: Metadata
    spec: JobSpec
    status: JobStatus = JobStatus()
