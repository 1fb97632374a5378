"""Run directories with a real corpus and a real checkpoint in them, made in this process within a second."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from phalanx.data import Corpus, Loader, LoaderSpec, prepare
from phalanx.job import Job
from phalanx.job.spec import Objective
from phalanx.models import ModelConfig, build, resolve
from phalanx.training import checkpoint
from phalanx.training.checkpoint import Piece
from phalanx.training.manifest import Manifest, Rng
from tests.training.values import make_plan

SEQUENCE = 48
MODELS: dict[Objective, str] = {"causal-lm": "gpt-tiny"}  # of all others bert-tiny
NOUNS = ["rank", "worker", "model", "loader", "spool", "step", "reader", "token", "table", "window"]
VERBS = ["reads", "writes", "counts", "joins", "opens", "leaves"]


def write_text(directory: Path, files: int = 24, sentences: int = 60) -> Path:
    """Python-like and plain text with much to learn: a noun decides the verb after it."""
    directory.mkdir(parents=True)
    for number in range(files):
        draw = random.Random(number)
        lines = []
        for _ in range(sentences):
            noun, other = draw.choice(NOUNS), draw.choice(NOUNS)
            verb = VERBS[NOUNS.index(noun) % len(VERBS)]
            if draw.random() < 0.2:
                lines.append(f"\ndef {verb}_{other}(self):\n    return self.{noun}\n")
            lines.append(f"the {noun} {verb} every {other} of naïve text {draw.randrange(100)}.\n")
        (directory / f"text-{number:02}.txt").write_text("".join(lines))
    return directory


def make_job(source: Path, objective: Objective = "causal-lm", kind: str | None = None, **data: object) -> Job:
    kind = kind or ("bytes" if objective == "causal-lm" else "wordpiece")
    values = {"source": str(source), "sequence_length": SEQUENCE, "held_out": 0.2}
    spec = {
        "model": {"name": MODELS.get(objective, "bert-tiny"), "objective": objective, "dropout": 0.0},
        "data": values | {"vocabulary": {"kind": kind, "size": 400}} | data,
        "training": {"steps": 4, "global_batch": 16, "seed": 3},
    }
    return Job.model_validate({"metadata": {"name": "small", "namespace": "tests"}, "spec": spec})


@dataclass
class Trained:
    """A run directory with one checkpoint of each step asked for."""

    directory: Path
    cache: Path
    job: Job
    corpus: Corpus
    module: nn.Module
    config: ModelConfig

    def save(self, step: int) -> Path:
        """Write the checkpoint after `step` steps."""
        manifest = Manifest(
            step=step, data_cursor=step, rng=Rng(seed=0, rule="none"), model=self.config.to_dict(), plan=make_plan()
        )
        pieces = [Piece.whole(f"model.{name}", tensor) for name, tensor in self.module.state_dict().items()]
        companions = {
            "tokenizer.json": self.directory / "data" / "tokenizer.json",
            "job.json": self.directory / "job.json",
        }
        return checkpoint.write(self.directory / "checkpoints", manifest, pieces, companions, keep=9).path


def train(directory: Path, job: Job, cache: Path, steps: int = 0) -> Trained:
    """A model of the job, with `steps` steps of plain Adam behind it, and its checkpoint."""
    spec = job.spec
    corpus = prepare(spec.data, spec.model.objective, cache)
    directory.mkdir(parents=True)
    (directory / "job.json").write_text(job.model_dump_json())
    corpus.describe_into(directory / "data")
    model, length = spec.model, spec.data.sequence_length
    labels = corpus.manifest.labels
    config = resolve(model.name, corpus.vocabulary.size, length, model.dropout, model.objective, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = build(config)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    loader = Loader(corpus, LoaderSpec.of(spec))
    for step in range(steps):
        for batch in loader.micro_batches(step, 0, 1, spec.training.global_batch):
            optimizer.zero_grad()
            total, count = module.loss({name: torch.from_numpy(array) for name, array in batch.arrays.items()})
            (total / count).backward()
            optimizer.step()
    module.eval()
    run = Trained(directory, cache, job, corpus, module, config)
    run.save(max(1, steps))
    return run


def spoil(checkpoint_directory: Path) -> None:
    """Alter one byte of the weights."""
    path = checkpoint_directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
