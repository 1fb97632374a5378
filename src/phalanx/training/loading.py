"""A trained model from a checkpoint directory, which holds all that is needed: weights, vocabulary, job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from phalanx.data import Vocabulary
from phalanx.job import Job
from phalanx.models import ModelConfig, build
from phalanx.training.checkpoint import MANIFEST, Checkpoint, newest_good
from phalanx.training.errors import TrainingError
from phalanx.training.manifest import Manifest
from phalanx.training.stepper import load_model as load_tensors


@dataclass(frozen=True)
class LoadedModel:
    """`module` is in eval mode."""

    module: nn.Module
    manifest: Manifest
    vocabulary: Vocabulary
    job: Job
    path: Path


def load_model(directory: Path) -> LoadedModel:
    """The model of one checkpoint, or of the newest good one under `directory` (a run's, or its `checkpoints`).

    Raises CheckpointDamaged, TrainingError when there is none.
    """
    checkpoint = _find(directory)
    config = ModelConfig.from_dict(checkpoint.manifest.model)
    with torch.random.fork_rng(devices=[]):
        module = build(config)
    load_tensors(module, checkpoint)
    module.eval()
    return LoadedModel(
        module=module,
        manifest=checkpoint.manifest,
        vocabulary=Vocabulary.load(checkpoint.path / "tokenizer.json"),
        job=Job.model_validate_json((checkpoint.path / "job.json").read_bytes()),
        path=checkpoint.path,
    )


def _find(directory: Path) -> Checkpoint:
    if (directory / MANIFEST).exists():
        return Checkpoint.open(directory)
    for root in (directory, directory / "checkpoints"):
        found = newest_good(root).checkpoint
        if found is not None:
            return found
    raise TrainingError(
        "there is no usable checkpoint here",
        where=str(directory),
        remedy="name a directory such as RUN/checkpoints/step-00000300, or a run directory",
    )
