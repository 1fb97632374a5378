"""Tiny Shakespeare by the byte: nats a character on the last 10 % of the text after some 180 seconds on 2 cores.

Runs examples/jobs/shakespeare.yaml, as `phalanx run` does, on the first 90 % of `text/tinyshakespeare.txt`. The seconds
are those from the first step's beginning to the last step's end, by the events of the run, with all that was done
between steps. The score is the mean over every character of the last 10 % but the first of its windows, which lie side
by side and are as long as the model's context: no character is predicted from more than its own window. Published for
comparison: nanoGPT's recipe for a laptop without a GPU, 1.88 nats after about 3 minutes (its README).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Comparison, Options
from phalanx.data import Vocabulary
from phalanx.job import Job, read_job
from phalanx.job.yaml import dump_job
from phalanx.training import open_model

EXAMPLE = Path(__file__).parent.parent / "examples" / "jobs" / "shakespeare.yaml"
TRAINED_SHARE = 0.9
PUBLISHED = 1.88
ROWS = 16

Progress = Callable[[str], None]


def job_on(text: Path, quick: bool) -> Job:
    job = read_job(EXAMPLE)
    spec = job.spec
    data = spec.data.model_copy(update={"source": str(text)})
    training = spec.training
    if quick:
        training = training.model_copy(update={"steps": 20, "evaluate_every": 20, "checkpoint_every": 20})
    return job.model_copy(update={"spec": spec.model_copy(update={"data": data, "training": training})})


def phalanx(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "phalanx", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"phalanx {arguments[0]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


@torch.no_grad()
def nats_a_character(model: Any, vocabulary: Vocabulary, text: bytes, length: int) -> float:
    tokens = torch.from_numpy(vocabulary.encode(text.decode()).astype(np.int64))
    rows = tokens[: (len(tokens) - 1) // length * length + 1].unfold(0, length + 1, length)
    total, count = 0.0, 0
    for some in rows.split(ROWS):
        loss, number = model.loss({"tokens": some})
        total, count = total + float(loss), count + int(number)
    return total / count


def run(options: Options, progress: Progress) -> list[Comparison]:
    whole = options.outside("text/tinyshakespeare.txt").read_bytes()
    border = int(len(whole) * TRAINED_SHARE)
    losses: list[float] = []
    seconds: list[float] = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            text, file, home = Path(scratch, "first.txt"), Path(scratch, "job.yaml"), Path(scratch, "home")
            text.write_bytes(whole[:border])
            job = job_on(text, options.quick)
            file.write_text(dump_job(job), "utf-8")
            phalanx("run", str(file), "--home", str(home))
            query = "SELECT (max(time_ns) - min(time_ns - step_s * 1e9)) / 1e9 AS s FROM steps WHERE rank = 0"
            rows = json.loads(phalanx("events", "sql", query, "--home", str(home), "--json"))
            seconds.append(float((rows["rows"] if isinstance(rows, dict) else rows)[0]["s"]))
            directory = next(home.glob("runs/*/*/*"))
            opened = open_model(directory)
            losses.append(
                nats_a_character(opened.module, opened.vocabulary, whole[border:], opened.config.sequence_length)
            )
        progress(f"shakespeare: run {number + 1}: {losses[-1]:.4f} nats after {seconds[-1]:.1f} s")
    settings = {"phalanx": {"job": str(EXAMPLE.name)}, "nanoGPT, published": {"source": "its README, laptop, CPU"}}
    values = {"phalanx": losses, "nanoGPT, published": [PUBLISHED] * len(losses)}
    notes = {"seconds from first to last step": [round(s, 1) for s in seconds]}
    return [Comparison("shakespeare, last 10 %", "nats/character", values, settings, notes)]
