"""The planner beside real workers: memory and time of three jobs that no constant of the planner was found with.

Each job is planned as `phalanx plan` does it, then its workers train for some steps, as an agent starts them. The
first side is the plan's number, the second what the slowest or largest worker took; their ratio is 1 for a planner
that is right.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, Options
from phalanx.cluster.placement import place, worker_specs
from phalanx.events import SpoolRow, list_files, read_rows
from phalanx.foundation import Home
from phalanx.host.processes import start, terminate
from phalanx.job import Job, Plan

MIB = 1 << 20
LIMIT_S = 600.0
# Model, vocabulary, tokens a sequence, sequences a step, workers, optimizer: none is a job of `planning.calibration`.
JOBS = {
    "decoder": ("decoder", {"kind": "bpe", "size": 3000}, 160, 20, 2, "muon"),
    "bert": ("bert-tiny", {"kind": "wordpiece", "size": 6000}, 64, 96, 2, "adamw"),
    "bytes": ("gpt-tiny", {"kind": "bytes"}, 384, 10, 1, "adamw"),
}


def job_of(name: str, steps: int) -> Job:
    """One of `JOBS`; micro-batch and precision are the planner's choice."""
    model, vocabulary, length, batch, workers, optimizer = JOBS[name]
    objective = "masked-lm" if model.startswith("bert") else "causal-lm"
    source = "stdlib-docs" if objective == "masked-lm" else "stdlib-source"
    spec = {
        "model": {"name": model, "objective": objective},
        "data": {"source": source, "sequence_length": length, "vocabulary": vocabulary},
        "training": {
            "steps": steps,
            "global_batch": batch,
            "optimizer": {"name": optimizer},
            "evaluate_every": steps,
            "checkpoint_every": steps,
        },
        "workers": {"count": workers},
    }
    return Job.model_validate({"metadata": {"name": f"bench-memory-{name}"}, "spec": spec})


def planned(job: Job, run_dir: Path, home: Home) -> Plan:
    """What the planner's process writes."""
    (run_dir / "job.json").write_text(job.model_dump_json(by_alias=True))
    argv = [sys.executable, "-m", "phalanx.planning", "--run-dir", str(run_dir), "--spool", str(home.spool_dir)]
    subprocess.run(argv, check=True, capture_output=True, timeout=LIMIT_S)
    return Plan.model_validate_json((run_dir / "plan.json").read_bytes())


def trained(job: Job, plan: Plan, run_dir: Path, home: Home) -> list[SpoolRow]:
    """The rows that the job's workers said, from their start to the last step."""
    (run_dir / "rendezvous").mkdir()
    specs = worker_specs(job, plan, place(job, plan, 1, "here"), run_dir, home.spool_dir)
    workers = [start(spec.argv, env=os.environ | spec.env, output=run_dir / f"{spec.rank}.log") for spec in specs]
    try:
        codes = [worker.wait(LIMIT_S) for worker in workers]
    finally:
        for worker in workers:
            if worker.poll() is None:
                terminate(worker, 1.0)
    if any(codes):
        raise RuntimeError(f"workers of {job.metadata.name} ended with {codes}: {(run_dir / '0.log').read_text()}")
    rows = [row for file in list_files(home.spool_dir) for row in read_rows(file.path)]
    return [row for row in rows if row.context["job_uid"] == job.metadata.uid and row.context["rank"] >= 0]


def measured(rows: list[SpoolRow]) -> tuple[float, float]:
    """(MiB at the peak of the largest worker above its baseline, median seconds of a step after the first)."""
    memory = [row.fields for row in rows if row.table == "memory"]
    peaks = [float(row["bytes"]) for row in memory if row["category"] == "measured_peak"]
    seconds = [float(row.fields["step_s"]) for row in rows if row.table == "steps" and row.fields["step"] > 1]
    return max(peaks) / MIB, statistics.median(seconds)


def run(options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
        home = Home.find(scratch)
        for name in ["bytes"] if options.quick else JOBS:
            pairs: dict[str, list[tuple[float, float]]] = {"memory": [], "time": []}
            for number in range(1 if options.quick else options.rounds):
                job = job_of(name, 4 if options.quick else 12)
                run_dir = home.root / f"{name}-{number}"
                run_dir.mkdir()
                plan = planned(job, run_dir, home)
                peak, seconds = measured(trained(job, plan, run_dir, home))
                pairs["memory"].append((plan.predicted.memory.total / MIB, peak))
                pairs["time"].append((plan.predicted.step_seconds, seconds))
                for kind, both in pairs.items():
                    progress(f"{name}, round {number + 1}: {kind} off by {both[-1][0] / both[-1][1] - 1:+.0%}")
            found += [_comparison(name, kind, both, plan) for kind, both in pairs.items()]
    return found


def _comparison(name: str, kind: str, pairs: list[tuple[float, float]], plan: Plan) -> Comparison:
    errors = [predicted / real - 1 for predicted, real in pairs]
    settings: dict[str, Any] = {
        "workers": plan.mesh.size,
        "micro-batch": f"{plan.micro_batch} x {plan.accumulation}",
        "precision": plan.precision,
        "parameters": f"{plan.predicted.parameters:,}",
    }
    return Comparison(
        f"{kind} of {name}",
        "MiB" if kind == "memory" else "s a step",
        {"predicted": [predicted for predicted, _ in pairs], "measured": [real for _, real in pairs]},
        {"predicted": settings, "measured": {}},
        {"error": ", ".join(f"{error:+.0%}" for error in errors)},
    )
