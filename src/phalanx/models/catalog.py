"""The catalogue: which models there are by name, and every number that says what one is.

A ModelConfig is all that is needed to build a model again; checkpoints keep it as JSON. Loads no torch, so
that admission can ask for a name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from phalanx.foundation import UsageError, nearest
from phalanx.job.spec import Objective

Family = Literal["decoder", "bert", "gpt2", "llama", "seq2seq"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
# What a BERT that was not trained here may come with besides: both of its pretraining heads, or the second alone.
Head = Objective | Literal["pretraining", "next-sentence"]

_BERT: tuple[Objective, ...] = ("masked-lm", "classify", "regress", "tag")
LEARNS: Mapping[Family, tuple[Objective, ...]] = MappingProxyType(
    {
        "decoder": ("causal-lm",),
        "bert": _BERT,
        "gpt2": ("causal-lm",),
        "llama": ("causal-lm",),
        "seq2seq": ("translate",),
    }
)


class UnknownModel(UsageError):
    """The catalogue has no model of this name."""


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue. `dropout`: its own, where the job names none. Numbers that are None follow from the
    others: `feed_forward` is 4 * hidden, `kv_heads` is heads. `attention`: a seq2seq may do without."""

    family: Family
    summary: str
    layers: int
    hidden: int
    heads: int
    dropout: float = 0.0
    feed_forward: int | None = None
    kv_heads: int | None = None
    norm_eps: float = 1e-5
    activation: Activation = "gelu"
    rope_base: float = 10_000.0
    tied: bool = False
    attention: bool = True
    grams: int = 0
    gram_table: int = 0

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What it can learn to predict; the first is what it was made for."""
        return LEARNS[self.family]


def _bert(name: str, layers: int, hidden: int, source: str) -> Entry:
    summary = f"BERT-{name} as published ({source}): {layers} layers, hidden {hidden}"
    return Entry("bert", summary, layers, hidden, hidden // 64, dropout=0.1, norm_eps=1e-12, tied=True)


def _gpt2(size: str, layers: int, hidden: int, heads: int) -> Entry:
    summary = f"GPT-2 as published (Radford et al. 2019), {size} parameters: {layers} layers, hidden {hidden}"
    return Entry("gpt2", summary, layers, hidden, heads, dropout=0.1, activation="gelu_tanh", tied=True)


def _llama(summary: str, layers: int, hidden: int, heads: int, kv: int, feed_forward: int, **more: Any) -> Entry:
    return Entry(
        "llama", summary, layers, hidden, heads, feed_forward=feed_forward, kv_heads=kv, activation="silu", **more
    )


def _rnn(summary: str, *, attention: bool) -> Entry:
    return Entry("seq2seq", f"{summary}, hidden 128", 1, 128, 1, dropout=0.1, tied=True, attention=attention)


_TURC, _DEVLIN = "Turc et al. 2019", "Devlin et al. 2019"
MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        "bert-tiny": _bert("Tiny", 2, 128, _TURC),
        "bert-mini": _bert("Mini", 4, 256, _TURC),
        "bert-small": _bert("Small", 4, 512, _TURC),
        "bert-medium": _bert("Medium", 8, 512, _TURC),
        "bert-base": _bert("Base", 12, 768, _DEVLIN),
        "bert-large": _bert("Large", 24, 1024, _DEVLIN),
        "gpt2": _gpt2("124M", 12, 768, 12),
        "gpt2-medium": _gpt2("355M", 24, 1024, 16),
        "gpt2-large": _gpt2("774M", 36, 1280, 20),
        "gpt2-xl": _gpt2("1.5B", 48, 1600, 25),
        "llama-tiny": _llama("a Llama-shaped decoder to try things out: 2 layers, hidden 128", 2, 128, 4, 2, 352),
        "tinyllama-1.1b": _llama("TinyLlama (Zhang et al. 2024): 22 layers, hidden 2048", 22, 2048, 32, 4, 5632),
        "llama-2-7b": _llama("Llama 2 (Touvron et al. 2023): 32 layers, hidden 4096", 32, 4096, 32, 32, 11008),
        "llama-3-8b": _llama(
            "Llama 3 (Dubey et al. 2024): 32 layers, hidden 4096", 32, 4096, 32, 8, 14336, rope_base=500_000.0
        ),
        "decoder": Entry("decoder", "a small GPT with rotary positions, made to learn fast on a few cores", 4, 128, 2),
        "gram-decoder": Entry(
            "decoder",
            "the same, where a token also is the 2, 3 and 4 tokens that end with it (Pagnoni et al. 2024): for bytes",
            4,
            128,
            2,
            grams=4,
            gram_table=1 << 14,
        ),
        "gpt-tiny": Entry("decoder", "the same, so small that a step takes milliseconds: to try things out", 2, 64, 2),
        "rnn-attention": _rnn("translates: GRUs with additive attention (Bahdanau et al. 2015)", attention=True),
        "rnn-encoder-decoder": _rnn("the same without attention: a sentence is one vector", attention=False),
    }
)


@dataclass(frozen=True)
class ModelConfig:
    """What a model is. `sequence_length` in tokens; `hidden` is divided among `heads`, unless `head_width` is told.

    `labels`: names of what `classify` and `tag` choose among, in the order of the logits. `rope_stretch`: factor, low
    and high frequency factor and the length before it (as Llama 3.1 lengthens its context). `tied`: the head is the
    table of embeddings. `attention`: a seq2seq may do without. `grams`: to a decoder each token also is the 2, 3, ...
    `grams` that end with it, hashed into tables of `gram_table` entries (0: it is not).
    """

    name: str
    family: Family
    vocabulary_size: int
    sequence_length: int
    layers: int
    hidden: int
    heads: int
    dropout: float = 0.0
    objective: Head = "causal-lm"
    labels: tuple[str, ...] = ()
    feed_forward: int = 0
    kv_heads: int = 0
    head_width: int = 0
    norm_eps: float = 1e-5
    activation: Activation = "gelu"
    rope_base: float = 10_000.0
    rope_stretch: tuple[float, float, float, float] | None = None
    segments: int = 2
    tied: bool = False
    attention: bool = True
    grams: int = 0
    gram_table: int = 0

    def __post_init__(self) -> None:
        """0 stands for what follows from the others."""
        for name, value in (
            ("feed_forward", 4 * self.hidden),
            ("kv_heads", self.heads),
            ("head_width", self.hidden // self.heads),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """Only strings, numbers, lists and None: JSON-safe."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """From what `to_dict` gave. Raises UnknownModel for what a newer or other program wrote."""
        names = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        odd = sorted(values.keys() - names or required - values.keys())
        if odd or values["family"] not in get_args(Family):
            raise UnknownModel(
                f"this model was described by another version, with {odd[0] if odd else values['family']!r}",
                remedy="use the version of Phalanx that wrote it",
            )
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})


def resolve(
    name: str,
    vocabulary_size: int,
    sequence_length: int,
    dropout: float | None = None,
    objective: Objective | None = None,
    labels: Sequence[str] = (),
) -> ModelConfig:
    """The catalogue's model `name` for this vocabulary and length; `dropout` and `objective` None: its own.

    Raises UnknownModel, also for a model that cannot learn the objective.
    """
    entry = MODELS.get(name)
    if entry is None:
        guess = nearest(name, MODELS)
        raise UnknownModel(
            f"there is no model {name!r}" + (f"; did you mean {guess!r}?" if guess else ""),
            where="spec.model.name",
            remedy=f"use one of {', '.join(MODELS)}",
        )
    wanted = objective or entry.objectives[0]
    if wanted not in entry.objectives:
        raise UnknownModel(
            f"{name} learns {', '.join(entry.objectives)}, not {wanted}",
            where="spec.model.objective",
            remedy=f"use one of {', '.join(other for other, its in MODELS.items() if wanted in its.objectives)}",
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
        objective=wanted,
        labels=tuple(labels),
        feed_forward=entry.feed_forward or 0,
        kv_heads=entry.kv_heads or 0,
        norm_eps=entry.norm_eps,
        activation=entry.activation,
        rope_base=entry.rope_base,
        tied=entry.tied,
        attention=entry.attention,
        grams=entry.grams,
        gram_table=entry.gram_table,
    )
