"""The catalogue: which models there are by name, and every number that says what one is.

A ModelConfig is all that is needed to build a model again; checkpoints keep it as JSON. Loads no torch, so
that admission can ask for a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from phalanx.foundation import UsageError, nearest
from phalanx.job.spec import Objective

Family = Literal["decoder", "encoder"]


class UnknownModel(UsageError):
    """The catalogue has no model of this name."""


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue. `dropout`: its own, where the job names none."""

    family: Family
    summary: str
    layers: int
    hidden: int
    heads: int
    dropout: float = 0.0

    @property
    def objective(self) -> Objective:
        """What it can learn to predict."""
        return "causal-lm" if self.family == "decoder" else "masked-lm"


MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        "bert-tiny": Entry(
            "encoder", "BERT-Tiny as published (Turc et al. 2019): 2 layers, hidden 128", 2, 128, 2, dropout=0.1
        ),
        "decoder": Entry("decoder", "a small GPT with rotary positions, made to learn fast on a few cores", 4, 128, 2),
        "gpt-tiny": Entry("decoder", "the same, so small that a step takes milliseconds: to try things out", 2, 64, 2),
    }
)


@dataclass(frozen=True)
class ModelConfig:
    """What a model is. `sequence_length` in tokens; `hidden` is divided among `heads`."""

    name: str
    family: Family
    vocabulary_size: int
    sequence_length: int
    layers: int
    hidden: int
    heads: int
    dropout: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Only strings and numbers: JSON-safe."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """From what `to_dict` gave. Raises UnknownModel for what a newer or other program wrote."""
        names = {field.name for field in fields(cls)}
        required = names - {"dropout"}
        odd = sorted(values.keys() - names or required - values.keys())
        if odd or values["family"] not in ("decoder", "encoder"):
            raise UnknownModel(
                f"this model was described by another version, with {odd[0] if odd else values['family']!r}",
                remedy="use the version of Phalanx that wrote it",
            )
        return cls(**values)


def resolve(name: str, vocabulary_size: int, sequence_length: int, dropout: float | None = None) -> ModelConfig:
    """The catalogue's model `name` for this vocabulary and length; `dropout` None: its own. Raises UnknownModel."""
    entry = MODELS.get(name)
    if entry is None:
        guess = nearest(name, MODELS)
        raise UnknownModel(
            f"there is no model {name!r}" + (f"; did you mean {guess!r}?" if guess else ""),
            where="spec.model.name",
            remedy=f"use one of {', '.join(MODELS)}",
        )
    return ModelConfig(
        name=name,
        family=entry.family,
        vocabulary_size=vocabulary_size,
        sequence_length=sequence_length,
        layers=entry.layers,
        hidden=entry.hidden,
        heads=entry.heads,
        dropout=entry.dropout if dropout is None else dropout,
    )
