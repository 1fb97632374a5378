"""A made-up run with real parts: real emitters write real spool files, and the rows are read back into DuckDB.

Its numbers are invented; its files are those of a run directory. One worker is killed at step 143 and the
group forms again from the checkpoint of step 100.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.events import Context, Emitter
from phalanx.job import (
    Condition,
    Coverage,
    Decision,
    Finding,
    Job,
    JobSpec,
    JobStatus,
    MemoryPrediction,
    MeshSpec,
    Metadata,
    Plan,
    Predicted,
)
from phalanx.pages import Rows
from tests.pages.engine import open_rows

MIB = 1 << 20
START_NS = 1_790_000_000_000_000_000
HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>&\"'"


@dataclass
class Run:
    job: Job
    run_dir: Path
    rows: Rows


def causal_job(steps: int = 300, **status: Any) -> Job:
    return Job(
        metadata=Metadata(name="gpt-small-stdlib", namespace="research", uid="4f2a9c01be77d310"),
        spec=JobSpec.model_validate(
            {
                "model": {"name": "gpt-small", "objective": "causal-lm"},
                "data": {"source": "stdlib-source", "sequenceLength": 256, "vocabulary": {"kind": "bpe", "size": 1024}},
                "training": {"steps": steps, "globalBatch": 64, "optimizer": {"name": "muon", "lr": 0.02}},
                "workers": {"count": 2},
            }
        ),
        status=JobStatus.model_validate({"phase": "Succeeded", "generation": 1, **status}),
    )


def masked_job(**status: Any) -> Job:
    job = causal_job(**status)
    model = job.spec.model.model_copy(update={"name": "bert-tiny", "objective": "masked-lm"})
    data = job.spec.data.model_copy(update={"source": "stdlib-docs"})
    spec = job.spec.model_copy(update={"model": model, "data": data})
    return job.model_copy(update={"spec": spec, "metadata": job.metadata.model_copy(update={"name": "bert-tiny-docs"})})


def plan(workers: int = 2) -> Plan:
    memory = MemoryPrediction(
        parameters=4 * MIB, gradients=4 * MIB, optimizer=6 * MIB, activations=88 * MIB, other=12 * MIB
    )
    predicted = Predicted(
        memory=memory, step_seconds=0.62, flops=3.1e11, checkpoint_bytes=11 * MIB, parameters=1_030_000
    )
    base = Plan(
        mesh=MeshSpec(data=workers),
        global_batch=64,
        micro_batch=32,
        accumulation=1,
        precision="fp32",
        predicted=predicted,
        reasons=(
            "2 workers on 2 cores: each has a core of its own",
            "micro-batch 32: the largest that leaves half of the memory free",
            "fp32: this processor has no bf16 instructions",
        ),
        not_enforced=("isolation: auto (no room enforces it yet)", "network: auto (no room enforces it yet)"),
    )
    half = memory.model_copy(update={"activations": 44 * MIB})
    smaller = base.model_copy(
        update={
            "micro_batch": 16,
            "accumulation": 2,
            "reasons": (),
            "predicted": predicted.model_copy(update={"memory": half}),
        }
    )
    return base.model_copy(update={"fallbacks": (smaller,)})


def decisions() -> list[Decision]:
    note = Finding(
        id="disk.small:home",
        rule="disk.small",
        severity="low",
        subject="home",
        location="/home/ada/.phalanx",
        evidence="3.1 GiB are free, the checkpoints take 22 MiB",
        remedy="nothing to do now",
        source="admission",
    )
    return [
        Decision(verdict="allow", gate=1, coverage=Coverage(scanned=("stdlib-source: 1,021 files",))),
        Decision(
            verdict="allow",
            gate=2,
            findings=(note,),
            coverage=Coverage(scanned=("disk",), skipped=("ports: none asked",)),
        ),
    ]


def causal_evaluation() -> dict[str, Any]:
    return {
        "objective": "causal-lm",
        "metric": "bits_per_byte",
        "split": {"files": 52, "bytes": 812_345, "tokens": 301_222},
        "model": {"value": 1.807},
        "baselines": [
            {"name": "most-frequent", "value": 4.71},
            {"name": "4-gram", "value": 2.14},
            {"name": "6-gram", "value": 2.0},
        ],
        "examples": [
            {
                "prompt": "def read_lines(path):\n",
                "generated": '    """Return the lines of a file.\n\n    The file is closed after.\n    """\n    with open(path) as f:\n        return [line for line in f]\n',
            },
            {
                "prompt": "class Queue:\n",
                "generated": "    def __init__(self, maxsize=0):\n        self.maxsize = maxsize\n        self._init(maxsize)\n\n    def put(self, item, block=True):\n        self._put(item)\n",
            },
        ],
        "beats_strongest": True,
        "margin": 0.193,
        "seconds": 21.4,
    }


def masked_evaluation() -> dict[str, Any]:
    sentence = "Return a list of the {} in the given directory, sorted by name."
    other = "If the {} is not callable, a TypeError is raised."
    return {
        "objective": "masked-lm",
        "metric": "top1",
        "split": {"files": 48, "bytes": 401_222, "tokens": 98_310},
        "model": {"value": 0.382},
        "baselines": [
            {"name": "most-frequent", "value": 0.051},
            {"name": "left", "value": 0.27},
            {"name": "both", "value": 0.441},
        ],
        "examples": [
            {
                "text": sentence.format("files"),
                "masked": sentence.format("[MASK]"),
                "guesses": [["files", 0.41], ["names", 0.22], ["lines", 0.09], ["modules", 0.05], ["keys", 0.02]],
                "truth": "files",
            },
            {
                "text": other.format("argument"),
                "masked": other.format("[MASK]"),
                "guesses": [["object", 0.31], ["function", 0.19], ["value", 0.12], ["argument", 0.1], ["name", 0.03]],
                "truth": "argument",
            },
        ],
        "beats_strongest": False,
        "margin": -0.059,
        "seconds": 9.1,
    }


class Clock:
    """Moves the emitters' clock by hand, so that a made-up run has made-up times."""

    def __init__(self) -> None:
        self.ns = START_NS

    def __call__(self) -> int:
        return self.ns

    def pass_(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


def write_files(
    run_dir: Path, plan_: Plan | None = None, decisions_: list[Decision] | None = None, evaluation: Any = None
) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    if plan_ is not None:
        (run_dir / "plan.json").write_text(plan_.model_dump_json(by_alias=True))
    for decision in decisions_ or []:
        (run_dir / f"decision-{decision.gate}.json").write_text(decision.model_dump_json(by_alias=True))
    if evaluation is not None:
        (run_dir / "evaluation.json").write_text(json.dumps(evaluation))


def emitter(spool: Path, job: Job, program: str, generation: int = 0, rank: int = -1) -> Emitter:
    metadata = job.metadata
    context = Context("workstation", metadata.namespace, metadata.uid, job.status.attempt, generation, rank, program)
    return Emitter(spool, context)


def train(
    spool: Path,
    job: Job,
    clock: Clock,
    generation: int,
    steps: range,
    ranks: int = 2,
    loss: Callable[[int], float] | None = None,
) -> None:
    """Rows of a generation that runs `steps`; every rank says the same global loss."""
    emitters = [emitter(spool, job, "worker", generation, rank) for rank in range(ranks)]
    total = job.spec.training.steps
    for step in steps:
        noise = random.Random(step)
        value = loss(step) if loss is not None else 1.26 + 4.7 * math.exp(-step / 28) + noise.gauss(0, 0.05)
        seconds = 0.58 + noise.random() * 0.06
        clock.pass_(seconds)
        for rank, sink in enumerate(emitters):
            waited = 0.02 + 0.05 * rank
            sink.emit(
                "steps",
                {
                    "step": step,
                    "loss": value,
                    "predicted_tokens": 16_000,
                    "tokens": 8_000,
                    "tokens_per_second": 16_000 / seconds,
                    "learning_rate": 0.02 * min(1.0, step / 20) * max(0.05, 1 - step / total),
                    "gradient_norm": 0.4 + 2 * math.exp(-step / 15) + noise.random() * 0.1,
                    "memory_bytes": 300 * MIB,
                    "data_s": 0.012,
                    "forward_s": 0.19,
                    "backward_s": seconds - 0.25 - waited,
                    "communication_s": waited,
                    "optimizer_s": 0.04,
                    "step_s": seconds,
                },
            )
        if step % 50 == 0:
            row = {
                "step": step,
                "split": "held-out",
                "loss": value + 0.06,
                "tokens": 20_000,
                "bits_per_byte": value,
                "seconds": 1.1,
                "perplexity": math.exp(min(value + 0.06, 700)),
                "top1": 0.5 - 0.05 * value,
                "top5": 0.75 - 0.05 * value,
            }
            emitters[0].emit("validations", row)
        if step % 100 == 0:
            row = {
                "event": "written",
                "step": step,
                "path": f"checkpoints/step-{step:08d}",
                "bytes": 11 * MIB,
                "seconds": 0.08,
            }
            emitters[0].emit("checkpoints", row)
    for rank, sink in enumerate(emitters):
        sink.emit("memory", {"category": "baseline", "bytes": 214 * MIB})
        sink.emit("memory", {"category": "measured_peak", "bytes": (107 + 9 * rank) * MIB})
        sink.close()


def worker_row(event: str, pid: int, **more: Any) -> dict[str, Any]:
    return {"event": event, "pid": pid, **more}


def whole_run(tmp_path: Path, clock: Clock, job: Job, evaluation: dict[str, Any], *, crash: bool = True) -> Run:
    """A run that succeeded, with one restart on the way if `crash`."""
    spool, run_dir = tmp_path / "spool", tmp_path / "run"
    write_files(run_dir, plan(), decisions(), evaluation)
    control = emitter(spool, job, "controller")
    agent = emitter(spool, job, "agent")
    name = job.metadata.name

    def state(phase: str, condition: str = "", status: str = "", reason: str = "", message: str = "") -> None:
        row = {"kind": "TrainingJob", "name": name, "phase": phase, "condition": condition, "status": status}
        control.emit("states", row | {"reason": reason, "message": message})

    for fact, value, evidence in (
        ("processor", "Intel Xeon Platinum 8481C", "/proc/cpuinfo"),
        ("cores", "2", "sched_getaffinity"),
        ("memory", "23.4 GiB", "/proc/meminfo"),
        ("kernel", "6.1.0", "uname"),
    ):
        control.emit("host_facts", {"fact": fact, "value": value, "evidence": evidence})
    state("Pending")
    clock.pass_(0.4)
    state("Admitted", "Admitted", "True", "Gate1Allowed", "data, model and demands are in order")
    clock.pass_(2.1)
    state("Planned", "Planned", "True", "PlanWritten", "2 workers, micro-batch 32 x 1, fp32, 114 MiB each")
    clock.pass_(0.2)
    generations = [(1, range(1, 144)), (2, range(101, 301))] if crash else [(1, range(1, 301))]
    for generation, steps in generations:
        for rank in range(2):
            agent.emit(
                "workers", worker_row("started", 4000 + 10 * generation + rank), generation=generation, rank=rank
            )
        clock.pass_(1.5)
        state("Running", "Running", "True", "WorkersRunning", "2 running")
        train(spool, job, clock, generation, steps)
        clock.pass_(0.3)
        for rank in (1, 0):
            row = worker_row("exited", 4000 + 10 * generation + rank, exit_kind="done", exit_code=0)
            if crash and generation == 1:
                row = worker_row("exited", 4010 + rank, exit_kind="crashed" if rank else "peer_lost")
                row |= (
                    {"exit_signal": 9, "message": "killed"} if rank else {"exit_code": 76, "message": "rank 1 is gone"}
                )
            agent.emit("workers", row, generation=generation, rank=rank)
            clock.pass_(0.2)
        if crash and generation == 1:
            state("Placed", "Running", "False", "WorkerCrashed", "rank 1: killed")
    if crash:
        log = run_dir / "logs" / "generation-1" / "rank-1.log"
        log.parent.mkdir(parents=True)
        log.write_text("step 141 loss 1.41\rstep 142 loss 1.39\nreading \x1b[31mbatch\x1b[0m 143\n")
    state("Evaluating", "Trained", "True", "AllWorkersDone", "all steps done")
    clock.pass_(21.4)
    state("Succeeded", "Evaluated", "True", "ScoresWritten")
    control.close()
    agent.close()
    if crash:
        job = job.model_copy(update={"status": job.status.model_copy(update={"restarts": 1, "generation": 2})})
    return Run(job, run_dir, open_rows(spool))


def failed_run(tmp_path: Path, clock: Clock) -> Run:
    """A job that gate 1 held back: no plan, no workers, hardly a row."""
    message = "data/corpus: no file with text (to do: name a directory that has some)"
    condition = Condition(type="Admitted", status="False", reason="Gate1Blocked", message=message, time_ns=START_NS)
    job = causal_job(phase="Failed", conditions=[condition.model_dump()])
    finding = Finding(
        id="data.empty:data/corpus",
        rule="data.empty",
        severity="high",
        subject="data/corpus",
        evidence="no file with text",
        remedy="name a directory that has some",
        source="admission",
    )
    spool, run_dir = tmp_path / "spool", tmp_path / "run"
    write_files(run_dir, None, [Decision(verdict="block", gate=1, findings=(finding,))])
    control = emitter(spool, job, "controller")
    row = {"kind": "TrainingJob", "name": job.metadata.name, "phase": "Failed", "condition": "Admitted"}
    control.emit("states", row | {"status": "False", "reason": "Gate1Blocked", "message": message})
    control.close()
    return Run(job, run_dir, open_rows(spool))
