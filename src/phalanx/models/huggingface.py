"""Hugging Face's files: a directory with `config.json` and safetensors to one of our models, and back.

Knows the published names of tensors and settings, no tokenizer. transformers itself is not needed. Pickled weights
(`pytorch_model.bin`) are refused: opening one can run its author's code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from phalanx.foundation import UsageError, ensure_private_directory, write_atomic, writing
from phalanx.models import published
from phalanx.models.building import build
from phalanx.models.catalog import ModelConfig
from phalanx.models.published import NotHuggingFace

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_SHOWN = 4  # names in a message


class UnfitWeights(UsageError):
    """Tensors are missing, left over or of another shape than the model's."""


@dataclass(frozen=True)
class Match:
    """Our tensor `ours` and theirs: one, or several that lie in ours one after the other, each with its rows.

    `transposed`: GPT-2's files keep matrices as [in, out].
    """

    ours: str
    theirs: tuple[tuple[str, int | None], ...]
    transposed: bool = False


def read_model(directory: Path) -> nn.Module:
    """The model that lies in `directory`, float32, in eval mode.

    Raises NotHuggingFace for a directory or setting that is not understood, UnfitWeights for tensors that are missing,
    too many or misshapen, naming them.
    """
    config = read_config(directory)
    module = _empty(config)
    tensors = _checked(directory, config, module)
    for name, tensor in tensors:
        _set(module, name, tensor)
    for name, buffer in _fresh_buffers(config).items():
        module.get_submodule(name.rpartition(".")[0]).register_buffer(name.rpartition(".")[2], buffer, persistent=False)
    return module.eval()


def read_config(directory: Path) -> ModelConfig:
    """What `config.json` describes. Raises NotHuggingFace."""
    path = directory / CONFIG
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise NotHuggingFace(
            f"cannot be read ({error})", where=str(path), remedy="name a directory that holds a model's config.json"
        ) from error
    return published.config_of(values, path)


def read_trunk(directory: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model's description, and all its tensors but those of the heads under our names, float32: what another head
    is put on. BERT's pooler is among them where the file has one. Raises as `read_model`."""
    config = read_config(directory)
    whole = replace(config, objective="pretraining") if config.family == "bert" else config
    return config, dict(_checked(directory, whole, _empty(whole), trunk=True))


def write_model(module: nn.Module, directory: Path) -> Path:
    """Write `config.json` and `model.safetensors` into `directory`, each whole or not at all; returns it.

    transformers opens it by `AutoModel...from_pretrained`. Raises NotHuggingFace for a model that it does not know,
    StorageError.
    """
    config: ModelConfig = module.config  # type: ignore[assignment]
    settings = published.settings_of(config)
    ours = module.state_dict()
    theirs: dict[str, Tensor] = {}
    for match in matches(config):
        tensor = ours[match.ours].detach()
        start = 0
        for name, rows in match.theirs:
            end = tensor.shape[0] if rows is None else start + rows
            part = tensor[start:end]
            theirs[name] = (part.T if match.transposed else part).contiguous().clone()
            start = end
    ensure_private_directory(directory)
    temporary = directory / f".{WEIGHTS}.tmp"
    with writing(directory / WEIGHTS):
        save_file(theirs, temporary, {"format": "pt"})
        temporary.replace(directory / WEIGHTS)
    write_atomic(directory / CONFIG, json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return directory


def matches(config: ModelConfig) -> list[Match]:
    """Every tensor of the model beside its published names."""
    return list({"bert": _bert, "gpt2": _gpt2, "llama": _llama}[config.family](config))


def _bert(config: ModelConfig) -> Iterator[Match]:
    hidden = config.hidden

    def both(ours: str, *theirs: str) -> Iterator[Match]:
        rows = hidden if len(theirs) > 1 else None
        for part in ("weight", "bias"):
            yield Match(f"{ours}.{part}", tuple((f"{name}.{part}", rows) for name in theirs))

    for ours, name in (("embedding", "word"), ("positions", "position"), ("segments", "token_type")):
        yield Match(f"{ours}.weight", ((f"bert.embeddings.{name}_embeddings.weight", None),))
    yield from both("norm", "bert.embeddings.LayerNorm")
    for layer in range(config.layers):
        block, their = f"blocks.{layer}", f"bert.encoder.layer.{layer}"
        yield from both(f"{block}.attention_in", *(f"{their}.attention.self.{it}" for it in ("query", "key", "value")))
        yield from both(f"{block}.attention_out", f"{their}.attention.output.dense")
        yield from both(f"{block}.attention_norm", f"{their}.attention.output.LayerNorm")
        yield from both(f"{block}.mlp_in", f"{their}.intermediate.dense")
        yield from both(f"{block}.mlp_out", f"{their}.output.dense")
        yield from both(f"{block}.mlp_norm", f"{their}.output.LayerNorm")
    if config.objective in ("masked-lm", "pretraining"):
        yield from both("transform", "cls.predictions.transform.dense")
        yield from both("transform_norm", "cls.predictions.transform.LayerNorm")
        yield Match("head_bias", (("cls.predictions.bias", None),))
    if config.objective not in ("masked-lm", "tag"):
        yield from both("pooler", "bert.pooler.dense")
    if config.objective != "masked-lm":
        named = config.objective in ("pretraining", "next-sentence")
        yield from both("head", "cls.seq_relationship" if named else "classifier")


def _gpt2(config: ModelConfig) -> Iterator[Match]:
    def one(ours: str, theirs: str, transposed: bool = False) -> Match:
        return Match(ours, ((theirs, None),), transposed)

    yield one("embedding.weight", "transformer.wte.weight")
    yield one("positions.weight", "transformer.wpe.weight")
    names = {
        "attention_in": "attn.c_attn",
        "attention_out": "attn.c_proj",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    }
    for layer in range(config.layers):
        block, their = f"blocks.{layer}", f"transformer.h.{layer}"
        for part in ("weight", "bias"):
            yield one(f"{block}.attention_norm.{part}", f"{their}.ln_1.{part}")
            yield one(f"{block}.mlp_norm.{part}", f"{their}.ln_2.{part}")
            for ours, name in names.items():
                yield one(f"{block}.{ours}.{part}", f"{their}.{name}.{part}", part == "weight")
    for part in ("weight", "bias"):
        yield one(f"norm.{part}", f"transformer.ln_f.{part}")
    if not config.tied:
        yield one("head.weight", "lm_head.weight")


def _llama(config: ModelConfig) -> Iterator[Match]:
    width, between = config.head_width, config.feed_forward
    queries, keys = config.heads * width, config.kv_heads * width

    def one(ours: str, *theirs: tuple[str, int | None]) -> Match:
        return Match(f"{ours}.weight", tuple((f"model.{name}.weight", rows) for name, rows in theirs))

    yield one("embedding", ("embed_tokens", None))
    for layer in range(config.layers):
        block, their = f"blocks.{layer}", f"layers.{layer}"
        attention = [
            (f"{their}.self_attn.{name}_proj", rows) for name, rows in zip("qkv", (queries, keys, keys), strict=True)
        ]
        yield one(f"{block}.attention_in", *attention)
        yield one(f"{block}.attention_out", (f"{their}.self_attn.o_proj", None))
        yield one(f"{block}.mlp_in", (f"{their}.mlp.gate_proj", between), (f"{their}.mlp.up_proj", between))
        yield one(f"{block}.mlp_out", (f"{their}.mlp.down_proj", None))
        yield one(f"{block}.attention_norm", (f"{their}.input_layernorm", None))
        yield one(f"{block}.mlp_norm", (f"{their}.post_attention_layernorm", None))
    yield one("norm", ("norm", None))
    if not config.tied:
        yield Match("head.weight", (("lm_head.weight", None),))


# Tables of masks and positions that old files hold, and copies of the embedding that are the head.
_NO_WEIGHTS = re.compile(r".*\.(attn\.bias|attn\.masked_bias|position_ids|rotary_emb\.inv_freq)")
_TIED = {
    "bert": ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
    "gpt2": ("lm_head.weight", "transformer.wte.weight"),
    "llama": ("lm_head.weight", "model.embed_tokens.weight"),
}
_PREFIX = {"bert": "bert.", "gpt2": "transformer.", "llama": "model."}
_HEADS = ("cls.", "classifier.", "lm_head.", "score.")
# bert-base-uncased calls itself a BertForMaskedLM and still has the rest of its pretraining.
_POOLER = "bert.pooler."
_LEFT_OUT = {"masked-lm": (_POOLER, "cls.seq_relationship."), "tag": (_POOLER,)}
_OUR_HEADS = ("transform", "head")


def _checked(
    directory: Path, config: ModelConfig, module: nn.Module, trunk: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Each tensor under our name, once all are known to be there in their shapes; `trunk`: but the heads'."""
    files = _files(directory)
    left_out = _HEADS if trunk else _LEFT_OUT.get(config.objective, ())
    with ExitStack() as stack:
        where: dict[str, Any] = {}
        names: dict[str, str] = {}
        for file in files:
            opened = stack.enter_context(_opened(file))
            for stored in opened.keys():  # noqa: SIM118  no mapping, only its keys() can be asked for
                name = _published_name(stored, config)
                if not _NO_WEIGHTS.fullmatch(name) and not name.startswith(left_out):
                    where[name], names[name] = opened, stored
        shapes = {name: tuple(where[name].get_slice(names[name]).get_shape()) for name in where}
        pairs = list(matches(config))
        if trunk:
            pooled = any(name.startswith(_POOLER) for name in shapes)
            heads = _OUR_HEADS if pooled else (*_OUR_HEADS, "pooler")
            pairs = [match for match in pairs if not match.ours.startswith(heads)]
        expected = _expected(pairs, module)
        copies = _copies(config, shapes)
        _compare(directory, expected, {name: shape for name, shape in shapes.items() if name not in copies})

        def get(name: str) -> Tensor:
            tensor: Tensor = where[name].get_tensor(names[name])
            return tensor.float()

        for copy, original in copies.items():
            if not torch.equal(get(copy), get(original)):
                raise UnfitWeights(
                    f"{copy} is not the same as {original}, though config.json ties the two",
                    where=str(directory),
                    remedy="set tie_word_embeddings to false if the head has weights of its own",
                )
        for match in pairs:
            parts = [get(name) for name, _ in match.theirs]
            whole = parts[0] if len(parts) == 1 else torch.cat(parts)
            yield match.ours, whole.T.contiguous() if match.transposed else whole


def _files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    index = directory / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotHuggingFace(
                f"is no index of weights ({error})", where=str(index), remedy="fetch it anew"
            ) from error
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or not (directory / name).is_file():
                raise NotHuggingFace(
                    f"names the file {name!r}, which is not in this directory", where=str(index), remedy="fetch it anew"
                )
        return [directory / name for name in names]
    pickled = sorted(path.name for path in directory.glob("*.bin"))
    raise NotHuggingFace(
        f"holds its weights as pickle ({pickled[0]}), which can run code when it is opened"
        if pickled
        else f"holds neither {WEIGHTS} nor {INDEX}",
        where=str(directory),
        remedy="have the weights as safetensors",
    )


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UnfitWeights(
            f"is cut or damaged ({error})", where=str(file), remedy="fetch the file anew and compare its checksum"
        ) from error


def _published_name(stored: str, config: ModelConfig) -> str:
    """Names as today's files have them: bare models have no prefix, old norms have gamma and beta."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", stored))
    prefix = _PREFIX[config.family]
    return name if name.startswith((prefix, *_HEADS)) else prefix + name


def _copies(config: ModelConfig, shapes: Mapping[str, Any]) -> dict[str, str]:
    """Tensors of the file that are another's copies: copy -> original."""
    found = {}
    copy, original = _TIED[config.family]
    if config.tied and copy in shapes and original in shapes and shapes[copy] == shapes[original]:
        found[copy] = original
    bias = "cls.predictions.decoder.bias"
    if bias in shapes and "cls.predictions.bias" in shapes:
        found[bias] = "cls.predictions.bias"
    return found


def _expected(pairs: Iterable[Match], module: nn.Module) -> dict[str, tuple[int, ...]]:
    ours = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    expected = {}
    for match in pairs:
        for name, rows in match.theirs:
            shape = (rows or ours[match.ours][0], *ours[match.ours][1:])
            expected[name] = shape[::-1] if match.transposed else shape
    return expected


def _compare(directory: Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises UnfitWeights that names what is wrong."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misshapen = [
        f"{name} is {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    wrong = [
        f"{said} {_listed(names)}"
        for said, names in (("missing:", missing), ("not of this model:", extra), ("misshapen:", misshapen))
        if names
    ]
    if wrong:
        raise UnfitWeights(
            f"the weights do not fit config.json; {'; '.join(wrong)}",
            where=str(directory),
            remedy="use the config.json and the weights of one model",
        )


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _empty(config: ModelConfig) -> nn.Module:
    with torch.device("meta"), _Undrawn():
        return build(config)


class _Undrawn(TorchFunctionMode):
    """Leaves weights alone that `torch.nn.init` would fill: for the meta device it first imports torch's compiler,
    which takes more than a processor second."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(function, "__module__", None) == nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        return function(*args, **given)


def _fresh_buffers(config: ModelConfig) -> dict[str, Tensor]:
    """Tables that are not kept in files, such as the angles of positions, computed anew."""
    small = build(ModelConfig(**{**config.to_dict(), "labels": config.labels, "layers": 0, "vocabulary_size": 1}))
    return dict(small.named_buffers())


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(tensor))
