"""The settings of published models: `config.json` as transformers writes it to a ModelConfig, and back.

A setting that would change what the model computes and that we do not carry out is refused, never passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phalanx.foundation import UsageError
from phalanx.models.catalog import Activation, Head, ModelConfig

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_THEIR_ACTIVATION = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
_BERT_HEADS: dict[str, Head] = {
    "BertForMaskedLM": "masked-lm",
    "BertModel": "masked-lm",
    "BertForPreTraining": "pretraining",
    "BertForNextSentencePrediction": "next-sentence",
    "BertForSequenceClassification": "classify",
    "BertForTokenClassification": "tag",
}
# What a setting must be (or be left out) for the model to compute what ours does.
_ONLY: dict[str, dict[str, Any]] = {
    "bert": {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False},
    "gpt2": {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    "llama": {"attention_bias": False, "mlp_bias": False},
}
_ITS_OWN = "use the config.json that came with the weights"


class NotHuggingFace(UsageError):
    """The directory holds no model of a kind that is known here, or one with a setting that is not carried out."""


def config_of(values: object, path: Path) -> ModelConfig:
    """From the content of the file at `path`. Raises NotHuggingFace."""
    family = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(values, dict) or family not in _ONLY:
        raise _refused(path, f"describes a model of the type {family!r}", f"use one of {', '.join(_ONLY)}")
    for name, wanted in _ONLY[family].items():
        if values.get(name, wanted) != wanted:
            raise _refused(path, f"{name} is {values[name]!r}", f"only {wanted!r} is carried out here")
    try:
        made = {"bert": _bert, "gpt2": _gpt2, "llama": _llama}[family](values, path)
    except KeyError as error:
        raise _refused(path, f"says nothing of {error.args[0]}", _ITS_OWN) from error
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:  # such as a number that is a text
        raise _refused(path, f"has a setting that cannot be understood ({error})", _ITS_OWN) from error
    sizes = (made.vocabulary_size, made.sequence_length, made.layers, made.hidden, made.heads, made.kv_heads)
    if not all(type(size) is int and size > 0 for size in sizes) or made.heads % made.kv_heads:
        raise _refused(path, f"has impossible sizes {sizes}", _ITS_OWN)
    return made


def settings_of(config: ModelConfig) -> dict[str, Any]:
    """What `config.json` says of the model, for transformers. Raises NotHuggingFace for a model of our own."""
    common = {"vocab_size": config.vocabulary_size, "model_type": config.family, "dtype": "float32"}
    if config.family == "bert":
        heads = {objective: name for name, objective in reversed(_BERT_HEADS.items())} | {
            "regress": "BertForSequenceClassification"
        }
        return (
            common
            | _labels(config)
            | {
                "architectures": [heads[config.objective]],
                "max_position_embeddings": config.sequence_length,
                "num_hidden_layers": config.layers,
                "hidden_size": config.hidden,
                "num_attention_heads": config.heads,
                "intermediate_size": config.feed_forward,
                "hidden_act": _THEIR_ACTIVATION[config.activation],
                "hidden_dropout_prob": config.dropout,
                "attention_probs_dropout_prob": config.dropout,
                "type_vocab_size": config.segments,
                "layer_norm_eps": config.norm_eps,
                "tie_word_embeddings": True,
            }
        )
    if config.family == "gpt2":
        return common | {
            "architectures": ["GPT2LMHeadModel"],
            "n_positions": config.sequence_length,
            "n_layer": config.layers,
            "n_embd": config.hidden,
            "n_head": config.heads,
            "n_inner": config.feed_forward,
            "activation_function": _THEIR_ACTIVATION[config.activation],
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
            "layer_norm_epsilon": config.norm_eps,
            "tie_word_embeddings": config.tied,
        }
    if config.family == "llama":
        rope: dict[str, Any] = {"rope_theta": config.rope_base, "rope_type": "default"}
        if config.rope_stretch is not None:
            names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
            rope |= dict(zip(names, config.rope_stretch, strict=True)) | {"rope_type": "llama3"}
            rope[names[3]] = int(rope[names[3]])
        return common | {
            "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": config.sequence_length,
            "num_hidden_layers": config.layers,
            "hidden_size": config.hidden,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "head_dim": config.head_width,
            "intermediate_size": config.feed_forward,
            "hidden_act": _THEIR_ACTIVATION[config.activation],
            "rms_norm_eps": config.norm_eps,
            "rope_parameters": rope,
            "rope_theta": config.rope_base,
            "tie_word_embeddings": config.tied,
        }
    raise NotHuggingFace(
        f"{config.name} is a model of Phalanx's own, which transformers does not know",
        where=config.name,
        remedy="train one of the families bert, gpt2 or llama to hand it on",
    )


def _bert(values: Mapping[str, Any], path: Path) -> ModelConfig:
    architecture = (values.get("architectures") or ["BertForMaskedLM"])[0]
    if architecture not in _BERT_HEADS:
        raise _refused(path, f"describes a {architecture}", f"use one of {', '.join(_BERT_HEADS)}")
    objective = _BERT_HEADS[architecture]
    labels = _label_names(values)
    if objective == "classify" and (values.get("problem_type") == "regression" or len(labels) == 1):
        objective, labels = "regress", ()
    if values.get("problem_type") == "multi_label_classification":
        raise _refused(path, "its labels do not exclude each other", "only one label a text is carried out here")
    return ModelConfig(
        name=_name(path),
        family="bert",
        vocabulary_size=values["vocab_size"],
        sequence_length=values.get("max_position_embeddings", 512),
        layers=values["num_hidden_layers"],
        hidden=values["hidden_size"],
        heads=values["num_attention_heads"],
        dropout=values.get("hidden_dropout_prob", 0.1),
        objective=objective,
        labels=labels if objective in ("classify", "tag") else (),
        feed_forward=values["intermediate_size"],
        norm_eps=values.get("layer_norm_eps", 1e-12),
        activation=_activation(values.get("hidden_act", "gelu"), path),
        segments=values.get("type_vocab_size", 2),
        tied=True,
    )


def _gpt2(values: Mapping[str, Any], path: Path) -> ModelConfig:
    return ModelConfig(
        name=_name(path),
        family="gpt2",
        vocabulary_size=values["vocab_size"],
        sequence_length=values.get("n_positions", 1024),
        layers=values["n_layer"],
        hidden=values["n_embd"],
        heads=values["n_head"],
        dropout=values.get("resid_pdrop", 0.1),
        feed_forward=values.get("n_inner") or 4 * values["n_embd"],
        norm_eps=values.get("layer_norm_epsilon", 1e-5),
        activation=_activation(values.get("activation_function", "gelu_new"), path),
        tied=values.get("tie_word_embeddings", True),
    )


def _llama(values: Mapping[str, Any], path: Path) -> ModelConfig:
    # Newer files have all of it in `rope_parameters`, older ones `rope_theta` and `rope_scaling`.
    rope = {**(values.get("rope_scaling") or {}), **(values.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise _refused(path, f"stretches its positions by {kind!r}", "only 'llama3' is carried out here")
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return ModelConfig(
        name=_name(path),
        family="llama",
        vocabulary_size=values["vocab_size"],
        sequence_length=values["max_position_embeddings"],
        layers=values["num_hidden_layers"],
        hidden=values["hidden_size"],
        heads=values["num_attention_heads"],
        feed_forward=values["intermediate_size"],
        kv_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
        head_width=values.get("head_dim") or 0,
        norm_eps=values.get("rms_norm_eps", 1e-6),
        activation=_activation(values.get("hidden_act", "silu"), path),
        rope_base=rope.get("rope_theta", values.get("rope_theta", 10_000.0)),
        rope_stretch=(rope[names[0]], rope[names[1]], rope[names[2]], rope[names[3]]) if kind == "llama3" else None,
        tied=values.get("tie_word_embeddings", False),
    )


def _labels(config: ModelConfig) -> dict[str, Any]:
    if config.objective == "regress":
        return {"id2label": {"0": "score"}, "label2id": {"score": 0}, "problem_type": "regression"}
    if not config.labels:
        return {}
    return {
        "id2label": {str(place): label for place, label in enumerate(config.labels)},
        "label2id": {label: place for place, label in enumerate(config.labels)},
    }


def _label_names(values: Mapping[str, Any]) -> tuple[str, ...]:
    """In the order of the logits; as transformers names them where the file does not."""
    named = values.get("id2label")
    if named:
        return tuple(str(named[key]) for key in sorted(named, key=int))
    return tuple(f"LABEL_{place}" for place in range(values.get("num_labels", 2)))


def _activation(name: str, path: Path) -> Activation:
    if name not in _ACTIVATIONS:
        raise _refused(path, f"names the activation {name!r}", f"use one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _name(path: Path) -> str:
    return path.absolute().parent.name


def _refused(path: Path, message: str, remedy: str) -> NotHuggingFace:
    return NotHuggingFace(message, where=str(path), remedy=remedy)
