"""A trained model from a directory that holds all that is needed: a checkpoint of a job, or Hugging Face's files; and a
checkpoint written as such files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import nn

from phalanx.data import Vocabulary
from phalanx.foundation import write_atomic
from phalanx.job import Job
from phalanx.models import ModelConfig, build
from phalanx.models.huggingface import CONFIG, read_model, write_model
from phalanx.training.checkpoint import MANIFEST, Checkpoint, newest_good
from phalanx.training.errors import CheckpointMismatch, TrainingError
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


@dataclass(frozen=True)
class OpenedModel:
    """A model from anywhere. `module` is in eval mode; `step`: how long a job has trained it, None for others."""

    module: nn.Module
    config: ModelConfig
    vocabulary: Vocabulary
    path: Path
    step: int | None


def open_model(directory: Path) -> OpenedModel:
    """The model of a run, a checkpoint or a directory of Hugging Face's files (config.json, safetensors, vocabulary).

    Raises what `load_model` and `models.huggingface.read_model` raise, DataError for its vocabulary, and
    CheckpointMismatch for one with more tokens than the model knows.
    """
    if (directory / CONFIG).is_file() and not (directory / MANIFEST).exists():
        module = read_model(directory)
        config: ModelConfig = module.config  # type: ignore[assignment]
        vocabulary = Vocabulary.open(directory)
        if vocabulary.size > config.vocabulary_size:
            raise CheckpointMismatch(
                f"the vocabulary has {vocabulary.size:,} tokens, the model knows {config.vocabulary_size:,}",
                where=str(directory),
                remedy="use the vocabulary that came with the weights",
            )
        return OpenedModel(module, config, vocabulary, directory, None)
    loaded = load_model(directory)
    config = ModelConfig.from_dict(loaded.manifest.model)
    return OpenedModel(loaded.module, config, loaded.vocabulary, loaded.path, loaded.manifest.step)


def export_model(opened: OpenedModel, directory: Path) -> Path:
    """Write the model as Hugging Face's files into `directory`, for transformers' `from_pretrained`; returns it.

    Raises NotHuggingFace for a model that transformers does not know, StorageError.
    """
    write_model(opened.module, directory)
    vocabulary = opened.vocabulary
    names = {id_: name for name, id_ in vocabulary.special.items()}
    roles = {
        role: names[id_]
        for role in ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
        if (id_ := getattr(vocabulary, f"{role}_id")) is not None
    }
    bert = opened.config.family == "bert"
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": opened.config.sequence_length,
        "model_input_names": ["input_ids", *(["token_type_ids"] if bert else []), "attention_mask"],
        **{f"{role}_token": name for role, name in roles.items()},
    }
    write_atomic(directory / "tokenizer.json", _tokenizer(opened, roles))
    write_atomic(directory / "tokenizer_config.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return directory


def _tokenizer(opened: OpenedModel, roles: Mapping[str, str]) -> str:
    """The vocabulary as a file that puts BERT's marks around a text or a pair of them, as BERT was trained here."""
    tokenizer = Tokenizer.from_str(opened.vocabulary.to_json())
    if opened.config.family == "bert" and {"cls", "sep"} <= roles.keys():
        begin, end = roles["cls"], roles["sep"]
        tokenizer.post_processor = TemplateProcessing(
            single=[begin, "$A", end],
            pair=[begin, "$A", end, "$B:1", f"{end}:1"],
            special_tokens=[(name, opened.vocabulary.special[name]) for name in (begin, end)],
        )
    return str(tokenizer.to_str(pretty=True))


def load_model(directory: Path) -> LoadedModel:
    """The model of one checkpoint, or of the newest good one under `directory` (a run's, or its `checkpoints`).

    Raises CheckpointDamaged, TrainingError when there is none.
    """
    checkpoint = find_checkpoint(directory)
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


def find_checkpoint(directory: Path) -> Checkpoint:
    """That checkpoint, or the newest good one of a run or of its `checkpoints`. Raises as `load_model`."""
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
