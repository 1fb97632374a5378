"""What a job's model is, and what it begins with: fresh weights, or those of another model under a head of its own.

Weights come from a directory of Hugging Face's files, a run or a checkpoint. All of the body must fit, tensor by
tensor; the head is taken too where it answers the same question, and is fresh where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from phalanx.data import DataError, TrainingData, Vocabulary
from phalanx.job import JobSpec
from phalanx.models import ModelConfig, build, resolve
from phalanx.models.huggingface import CONFIG, read_config, read_model, read_trunk
from phalanx.training.checkpoint import MANIFEST
from phalanx.training.errors import CheckpointMismatch
from phalanx.training.loading import find_checkpoint

_HEADS = ("head", "transform", "pooler")  # how the names of tensors begin that may be fresh
_SHOWN = 4  # names in a message


@dataclass(frozen=True)
class Begun:
    """Names of tensors that came from `path`, and of those that are fresh."""

    path: Path
    taken: tuple[str, ...]
    fresh: tuple[str, ...]

    def describe(self) -> str:
        """For a person."""
        fresh = f"; fresh: {', '.join(self.fresh)}" if self.fresh else ", all there are"
        return f"{len(self.taken)} tensors of {self.path}{fresh}"


def model_config(spec: JobSpec, data: TrainingData) -> ModelConfig:
    """Of the model that the job trains on `data`: the catalogue's, with the vocabulary and details of the weights that
    it begins with.

    Raises UnknownModel, CheckpointMismatch for weights of another model, too short a length or another vocabulary,
    and what `read_config` and `find_checkpoint` raise.
    """
    model, length = spec.model, spec.data.sequence_length
    config = resolve(model.name, data.vocabulary.size, length, model.dropout, model.objective, data.labels)
    if model.weights is None:
        return config
    path = Path(model.weights).expanduser()
    given = _config_at(path)
    _check(given, config, path)
    _check_vocabulary(given, data.vocabulary, path)
    return replace(
        given,
        name=config.name,
        objective=config.objective,
        labels=config.labels,
        dropout=config.dropout,
        sequence_length=length,
    )


def begin(module: nn.Module, config: ModelConfig, path: Path) -> Begun:
    """Put the weights at `path` into `module`, which is of `model_config`. What is fresh keeps what it was built with.

    Raises what `read_model` and `find_checkpoint` raise, and CheckpointMismatch for a body that lacks tensors.
    """
    stored = _tensors_at(path, config)
    taken, fresh = [], []
    for name, tensor in module.state_dict().items():
        source = stored.get(name)
        if source is None and name.startswith(_HEADS):
            fresh.append(name)
            continue
        if source is not None and name == "positions.weight":
            source = source[: tensor.shape[0]]  # a shorter model knows the first positions only
        if source is None or source.shape != tensor.shape:
            what = "is missing" if source is None else f"is {list(source.shape)} instead of {list(tensor.shape)}"
            raise CheckpointMismatch(f"{name} {what}", where=str(path), remedy="begin with weights of the same model")
        with torch.no_grad():
            tensor.copy_(source)
        taken.append(name)
    return Begun(path, tuple(taken), tuple(fresh))


def _is_hugging_face(path: Path) -> bool:
    return (path / CONFIG).is_file() and not (path / MANIFEST).exists()


def _config_at(path: Path) -> ModelConfig:
    if _is_hugging_face(path):
        return read_config(path)
    return ModelConfig.from_dict(find_checkpoint(path).manifest.model)


def _tensors_at(path: Path, config: ModelConfig) -> Mapping[str, Tensor]:
    """Under our names; without those of a head that answers another question."""
    if _is_hugging_face(path):
        return read_model(path).state_dict() if _same_question(read_config(path), config) else read_trunk(path)[1]
    checkpoint = find_checkpoint(path)
    given = ModelConfig.from_dict(checkpoint.manifest.model)
    tensors = {}
    for whole in checkpoint.names("model."):
        name = whole.removeprefix("model.")
        if _same_question(given, config) or not name.startswith(_HEADS) or name.startswith("pooler"):
            shape = checkpoint.shape(whole)
            tensors[name] = checkpoint.read_slice(whole, (0,) * len(shape), shape)
    return tensors


def _same_question(given: ModelConfig, config: ModelConfig) -> bool:
    if config.objective == "masked-lm":
        return given.objective in ("masked-lm", "pretraining")
    return (given.objective, given.labels) == (config.objective, config.labels)


def _check(given: ModelConfig, config: ModelConfig, path: Path) -> None:
    for name, ours, theirs in (
        ("family", config.family, given.family),
        ("layers", config.layers, given.layers),
        ("hidden", config.hidden, given.hidden),
        ("heads", config.heads, given.heads),
        ("feed-forward", config.feed_forward, given.feed_forward),
        ("attention", config.attention, given.attention),
    ):
        if ours != theirs:
            raise CheckpointMismatch(
                f"the weights are not {config.name}'s: {name} {theirs} instead of {ours}",
                where=str(path),
                remedy="set model.name to the model whose weights they are",
            )
    learned = config.family in ("bert", "gpt2")  # the other families compute positions of any length
    if learned and given.sequence_length < config.sequence_length:
        raise CheckpointMismatch(
            f"the weights know {given.sequence_length} positions, data.sequenceLength is {config.sequence_length}",
            where=str(path),
            remedy=f"set data.sequenceLength to {given.sequence_length} or less",
        )


def _check_vocabulary(given: ModelConfig, vocabulary: Vocabulary, path: Path) -> None:
    """A token must mean what it meant when the weights were learned."""
    try:
        own = Vocabulary.open(path)
    except DataError:  # weights alone: only the number can be compared
        own = vocabulary
    if own.size > given.vocabulary_size:
        raise CheckpointMismatch(
            f"the vocabulary has {own.size:,} tokens, the model knows {given.vocabulary_size:,}",
            where=str(path),
            remedy="use the vocabulary that came with the weights",
        )
    if own.table() != vocabulary.table():
        raise CheckpointMismatch(
            f"the weights belong to another vocabulary (of {own.size:,} tokens) than the data's (of "
            f"{vocabulary.size:,})",
            where=str(path),
            remedy="leave data.vocabulary out: the data is then prepared with the vocabulary of the weights",
        )


def build_model(spec: JobSpec, config: ModelConfig) -> nn.Module:
    """Fresh weights, drawn from the job's seed."""
    torch.manual_seed(spec.training.seed)
    return build(config)
