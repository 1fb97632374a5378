"""The job: what a person wants trained, in the shape of a Kubernetes object.

One set of values for YAML, Python, state and the web page. Python says `global_batch`, the
file says `globalBatch`, by one rule (`to_camel`). Knows nothing of files, planning or torch:
`job.yaml` reads files into these values, `admission` and `planning` judge them.
"""

from __future__ import annotations

import math
import re
import secrets
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from phalanx.foundation.names import check_name

API_VERSION: Final = "phalanx.dev/v1alpha1"
MAX_WORKERS = 4096

Name = Annotated[str, Field(json_schema_extra={"pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"})]
Objective = Literal["causal-lm", "masked-lm", "classify", "regress", "tag", "translate"]
Precision = Literal["auto", "fp32", "bf16"]
OptimizerName = Literal["adamw", "muon", "sgd"]
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
    name: Name = Field(description="Of the job, unique in its namespace.")
    namespace: Name = Field(default="default", description="The team that the job belongs to.")
    uid: str = Field(default_factory=lambda: secrets.token_hex(8), description="One for ever; made when left out.")

    @field_validator("name", "namespace")
    @classmethod
    def _is_a_label(cls, value: str) -> str:
        return check_name(value)

    @field_validator("uid")
    @classmethod
    def _is_a_word(cls, value: str) -> str:
        """It becomes part of names, environments and queries."""
        if re.fullmatch(r"[A-Za-z0-9-]{1,64}", value):
            return value
        raise ValueError(f"{value!r} is no uid: 1 to 64 letters, digits and '-'; leave it out and one is made")


class ModelSpec(Value):
    name: str = Field(description="A name of the model catalogue, such as bert-tiny.")
    objective: Objective = Field(description="What the model learns to predict: the next token, or masked ones.")
    dropout: float | None = Field(default=None, ge=0, lt=1, description="None: the model's own default.")
    weights: str | None = Field(
        default=None, min_length=1, description="Begin with those of a run, checkpoint or Hugging Face directory."
    )


class VocabularySpec(Value):
    kind: VocabularyKind = Field(default="bytes", description="Trained on the job's own training files.")
    size: int = Field(
        default=4096, ge=256, le=262_144, description="Entries; ignored for bytes, which has 256 + specials."
    )
    path: str | None = Field(
        default=None, min_length=1, description="Read it here instead: BERT's, GPT-2's or a run's own files."
    )


Column = Annotated[int, Field(ge=1)] | Annotated[str, Field(min_length=1)]


class ColumnsSpec(Value):
    """Columns of a table of examples, by name or by number from 1. None: found by the usual names."""

    text: Column | None = Field(default=None, description="The text, or the first of a pair; tag: the word.")
    pair: Column | None = Field(default=None, description="The second text of a pair.")
    label: Column | None = Field(default=None, description="What is to be learned; tag: the word's tag.")
    header: bool | None = Field(default=None, description="Whether the first line holds names; null: by its words.")
    malformed: Literal["refuse", "leave-out"] = Field(
        default="refuse", description="Lines with another number of fields than the first; those left out are counted."
    )


class MixPart(Value):
    source: str = Field(min_length=1, description="The directory of a dataset that `phalanx data build` made.")
    weight: float = Field(default=1.0, gt=0, le=1e6, description="Tokens from it, beside the other weights.")


class DataSpec(Value):
    source: str = Field(
        default="",
        description="stdlib-source, stdlib-docs, or the path of text, a built dataset, a table, or text.{de,en}.",
    )
    mix: tuple[MixPart, ...] = Field(default=(), description="Instead of a source: several built datasets by weight.")
    sequence_length: int = Field(default=256, ge=8, le=131_072, description="Tokens.")
    vocabulary: VocabularySpec = Field(default=VocabularySpec(), description="How text becomes tokens.")
    held_out: float = Field(default=0.05, gt=0, lt=0.5, description="Share of files kept for validation, by file hash.")
    mask_probability: float = Field(default=0.15, gt=0, lt=1, description="masked-lm: share of tokens to predict.")
    cross_documents: bool = Field(
        default=True, description="causal-lm: whether a token is predicted from the documents before its own too."
    )
    columns: ColumnsSpec = Field(default=ColumnsSpec(), description="Of a table of examples or of pairs.")
    labels: tuple[str, ...] | None = Field(
        default=None, description="Names of the labels, in their order; null: those of the training examples, sorted."
    )
    held_out_source: str | None = Field(
        default=None, min_length=1, description="Examples, or pairs, to validate on; null: a share of the source."
    )

    @property
    def parts(self) -> tuple[MixPart, ...]:
        """The sources and their weights, also when there is only one."""
        return self.mix or (MixPart(source=self.source),)

    @property
    def name(self) -> str:
        """The source, or the sources of the mix, for a person."""
        return " + ".join(part.source for part in self.parts)


class OptimizerSpec(Value):
    name: OptimizerName = Field(default="adamw", description="muon: for hidden matrices, with AdamW for the rest.")
    lr: float = Field(default=1e-3, gt=0, le=10, description="Learning rate after warmup.")
    weight_decay: float = Field(
        default=0.01, ge=0, lt=1, description="Of hidden matrices, times the rate: decoupled from the gradient."
    )
    l2: float = Field(default=0.0, ge=0, lt=1, description="Of hidden matrices w: l2 * w is added to the gradient.")
    l1: float = Field(default=0.0, ge=0, lt=1, description="Of hidden matrices w: l1 * sign(w), likewise.")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="AdamW's decay rates, each below 1.")
    momentum: float = Field(default=0.95, ge=0, lt=1, description="muon: of the matrices; sgd: of all.")
    embedding_lr: float | None = Field(default=None, gt=0, description="muon: AdamW's rate for the rest; None: lr / 5.")


class ScheduleSpec(Value):
    name: ScheduleName = Field(default="cosine", description="Of the learning rate after warmup.")
    warmup: int = Field(default=20, ge=0, description="Steps.")
    decay: float = Field(default=0.3, gt=0, le=1, description="trapezoid: share of the steps that decay at the end.")
    floor: float = Field(default=0.0, ge=0, le=1, description="Last learning rate as a share of the first.")


class TrainingSpec(Value):
    steps: int = Field(ge=1, le=100_000_000, description="Updates of the parameters.")
    global_batch: int = Field(default=64, ge=1, le=1_048_576, description="Sequences a step, over all workers.")
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="Sequences a worker holds at once; auto: the planner's choice."
    )
    precision: Precision = Field(default="auto", description="Of the arithmetic; auto: the faster one here.")
    optimizer: OptimizerSpec = Field(default=OptimizerSpec(), description="How gradients change parameters.")
    schedule: ScheduleSpec = Field(default=ScheduleSpec(), description="How the learning rate moves.")
    clip: float | None = Field(default=1.0, gt=0, description="Largest gradient norm; null: no clipping.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Of initial parameters, data order, masks, dropout.")
    checkpoint_every: int = Field(default=100, ge=1, description="Steps.")
    keep_checkpoints: int = Field(default=2, ge=1, description="Newest ones kept; older ones are deleted.")
    evaluate_every: int = Field(default=50, ge=1, description="Steps between losses on held-out data.")


class MeshSpec(Value):
    """Workers by axis; their product is the number of workers. Only `data` is carried out so far."""

    data: int = Field(default=1, ge=1, description="Copies of the model, each with a part of the batch.")
    shard: int = Field(default=1, ge=1, description="Parts the parameters of one copy are kept in.")
    tensor: int = Field(default=1, ge=1, description="Parts each matrix is computed in.")
    pipeline: int = Field(default=1, ge=1, description="Stages the layers are computed in.")

    @property
    def size(self) -> int:
        return self.data * self.shard * self.tensor * self.pipeline


class WorkersSpec(Value):
    count: int = Field(default=1, ge=1, le=MAX_WORKERS, description="Worker processes; left out: the size of the mesh.")
    strategy: Literal["auto", "data", "sharded", "tensor", "pipeline", "hybrid"] = Field(
        default="auto", description="How the work is split: a mesh by name."
    )
    mesh: MeshSpec | None = Field(default=None, description="How the work is split, axis by axis.")
    max_restarts: int = Field(default=3, ge=0, le=1000, description="Relaunches of the group before the job fails.")

    @model_validator(mode="before")
    @classmethod
    def _count_of_the_mesh(cls, given: object) -> object:
        """`workers: {mesh: {data: 2}}` needs no count beside it."""
        if not isinstance(given, dict) or given.get("mesh") is None or "count" in given:
            return given
        mesh = given["mesh"]
        sizes = mesh.model_dump() if isinstance(mesh, MeshSpec) else mesh
        if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
            return given
        return {**given, "count": min(max(1, math.prod(sizes.values())), MAX_WORKERS)}


class SecuritySpec(Value):
    """What must guard the job. `auto`: the strongest there is, and the report says which."""

    isolation: Literal["auto", "none", "jail", "microvm"] = Field(
        default="auto", description="The box a worker runs in."
    )
    network: Literal["auto", "none", "segment"] = Field(default="auto", description="Who may talk to the workers.")
    integrity: Literal["auto", "none", "signed"] = Field(
        default="auto", description="Proof that code, data and checkpoints are unaltered."
    )


class JobSpec(Value):
    model: ModelSpec = Field(description="What is trained.")
    data: DataSpec = Field(description="On what.")
    training: TrainingSpec = Field(description="How.")
    workers: WorkersSpec = Field(default=WorkersSpec(), description="How many processes, and how they share the work.")
    security: SecuritySpec = Field(default=SecuritySpec(), description="What must guard it.")
    suspend: bool = Field(default=False, description="true: checkpoint and stop (as `phalanx stop` does).")

    @property
    def prepared_data(self) -> DataSpec:
        """`data`, with the vocabulary of the weights that the model begins with, unless it names one."""
        if self.model.weights is None or self.data.vocabulary.path is not None:
            return self.data
        vocabulary = self.data.vocabulary.model_copy(update={"path": self.model.weights})
        return self.data.model_copy(update={"vocabulary": vocabulary})


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
    api_version: Literal["phalanx.dev/v1alpha1"] = Field(
        default="phalanx.dev/v1alpha1", description="Version of this file's shape."
    )
    kind: Literal["TrainingJob"] = Field(default="TrainingJob", description="What the object is.")
    metadata: Metadata = Field(description="Who it is.")
    spec: JobSpec = Field(description="What is wanted.")
    status: JobStatus = JobStatus()
