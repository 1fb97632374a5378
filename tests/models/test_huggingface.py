"""Checkpoints of transformers' own making read here, and ours read by transformers: the same logits, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from phalanx.models import ModelConfig, build
from phalanx.models.huggingface import UnfitWeights, read_config, read_model, read_trunk, write_model
from phalanx.models.published import NotHuggingFace

VOCABULARY, LENGTH = 97, 24
BERT = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 80,
}
GPT2 = {"vocab_size": VOCABULARY, "n_positions": LENGTH, "n_layer": 3, "n_embd": 32, "n_head": 4}
LLAMA = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": LENGTH,
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 72,
}
STRETCH = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}
CAUSAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt2": (transformers.GPT2LMHeadModel, GPT2),
    "gpt2-relu-untied": (
        transformers.GPT2LMHeadModel,
        GPT2 | {"activation_function": "relu", "n_inner": 72, "tie_word_embeddings": False},
    ),
    "llama": (transformers.LlamaForCausalLM, LLAMA),
    "llama-tied": (transformers.LlamaForCausalLM, LLAMA | {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama-stretched": (transformers.LlamaForCausalLM, LLAMA | {"head_dim": 16, "rope_parameters": STRETCH}),
}
HEADS: dict[str, tuple[Any, dict[str, Any]]] = {
    "masked-lm": (transformers.BertForMaskedLM, {}),
    "masked-lm-relu": (transformers.BertForMaskedLM, {"hidden_act": "relu"}),
    "pretraining": (transformers.BertForPreTraining, {}),
    "next-sentence": (transformers.BertForNextSentencePrediction, {}),
    "classify": (transformers.BertForSequenceClassification, {"num_labels": 3}),
    "regress": (transformers.BertForSequenceClassification, {"num_labels": 1, "problem_type": "regression"}),
    "tag": (transformers.BertForTokenClassification, {"id2label": {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}}),
}
OURS = {
    "gpt2": ModelConfig("gpt2", "gpt2", VOCABULARY, LENGTH, 2, 32, 4, tied=True, activation="gelu_tanh"),
    "llama": ModelConfig("llama", "llama", VOCABULARY, LENGTH, 2, 32, 4, kv_heads=2, activation="silu"),
    "bert": ModelConfig("bert", "bert", VOCABULARY, LENGTH, 2, 32, 4, norm_eps=1e-12, tied=True, objective="masked-lm"),
}


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """With weights, biases and norms large enough that every one of them matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.08)
    return model.eval()


def written(directory: Path, maker: Any, settings: dict[str, Any]) -> Any:
    """A model of transformers with random weights, saved by itself."""
    model = shaken(maker(maker.config_class(**settings)))
    model.save_pretrained(directory)
    return model


def some_tokens(rows: int = 3) -> Tensor:
    return torch.randint(VOCABULARY, (rows, LENGTH), generator=torch.Generator().manual_seed(1))


def pairs() -> dict[str, Tensor]:
    """Three rows: two texts in one row each, some padding."""
    document = torch.ones(3, LENGTH, dtype=torch.int32)
    document[1, 15:], document[2, 20:] = 0, 0
    segments = (torch.arange(LENGTH) >= 9).long().expand(3, -1).clone()
    return {"tokens": some_tokens(), "document": document, "segments": segments}


def asked_of(objective: str, document: Tensor) -> Tensor:
    if objective in ("classify", "regress", "next-sentence"):
        return torch.arange(3) * LENGTH
    return document.flatten().nonzero().flatten()


def theirs(model: Any, batch: dict[str, Tensor]) -> Any:
    inputs = {"input_ids": batch["tokens"], "token_type_ids": batch["segments"]}
    return model(**inputs, attention_mask=(batch["document"] > 0).long())


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_checkpoint_of_transformers_gives_its_logits_here(tmp_path, name):
    model = written(tmp_path, *CAUSAL[name])
    ours = read_model(tmp_path)
    close(ours(some_tokens()), model(some_tokens()).logits)
    cache = ours.new_cache(3, LENGTH)
    parts = [ours(some_tokens()[:, :9], cache), *(ours(some_tokens()[:, i : i + 1], cache) for i in range(9, LENGTH))]
    close(torch.cat(parts, 1), model(some_tokens()).logits)


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_model_handed_back_gives_its_logits_in_transformers(tmp_path, name):
    ours = shaken(read_model_of(tmp_path / "theirs", name), seed=5)
    again = CAUSAL[name][0].from_pretrained(write_model(ours, tmp_path / "ours"))
    close(ours(some_tokens()), again(some_tokens()).logits)


def read_model_of(directory: Path, name: str) -> nn.Module:
    written(directory, *CAUSAL[name])
    return read_model(directory)


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_padding_at_the_left_changes_no_logits(tmp_path, name):
    ours = read_model_of(tmp_path, name)
    tokens, padding = some_tokens(), torch.tensor([0, 4, 9])
    whole = ours(tokens, padding=padding)
    for row, left in enumerate(padding.tolist()):
        close(whole[row, left:], ours(tokens[row : row + 1, left:])[0])


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_documents_in_a_row_are_read_as_if_each_were_alone(tmp_path, name):
    ours = read_model_of(tmp_path, name)
    tokens = some_tokens(1)
    document = torch.tensor([[1] * 7 + [2] * 9 + [3] * 5 + [0] * 3], dtype=torch.int32)
    loss, count = ours.loss({"tokens": tokens, "document": document})
    alone = [ours.loss({"tokens": tokens[:, a:b]}) for a, b in ((0, 7), (7, 16), (16, 21))]
    assert int(count) == sum(number for _, number in alone) == 6 + 8 + 4
    torch.testing.assert_close(loss, sum(part for part, _ in alone), rtol=1e-5, atol=1e-4)
    costs, _ = ours.costs_and_ranks({"tokens": tokens, "document": document})
    torch.testing.assert_close(costs.sum(), loss, rtol=1e-5, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_every_head_of_a_bert_of_transformers_says_the_same_here(tmp_path, head):
    maker, settings = HEADS[head]
    model = written(tmp_path, maker, BERT | settings)
    ours = read_model(tmp_path)
    batch = pairs()
    objective = ours.config.objective
    assert objective == head.removesuffix("-relu")
    batch["positions"] = asked_of(objective, batch["document"])
    found = theirs(model, batch)
    logits = found.prediction_logits if objective == "pretraining" else found.logits
    if objective in ("masked-lm", "pretraining", "tag"):
        logits = logits.flatten(0, 1)[batch["positions"]]
    close(ours.predict(batch), logits)
    if objective == "pretraining":
        close(ours.next_sentence(batch | {"positions": torch.arange(3) * LENGTH}), found.seq_relationship_logits)
    if objective == "tag":
        assert ours.config.labels == ("O", "B-PER", "I-PER", "B-LOC")


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_every_head_of_ours_says_the_same_in_transformers(tmp_path, head):
    maker, settings = HEADS[head]
    written(tmp_path / "theirs", maker, BERT | settings)
    ours = shaken(read_model(tmp_path / "theirs"), seed=7)
    again = maker.from_pretrained(write_model(ours, tmp_path / "ours")).eval()
    batch = pairs()
    batch["positions"] = asked_of(ours.config.objective, batch["document"])
    found = theirs(again, batch)
    logits = found.prediction_logits if ours.config.objective == "pretraining" else found.logits
    if ours.config.objective in ("masked-lm", "pretraining", "tag"):
        logits = logits.flatten(0, 1)[batch["positions"]]
    close(ours.predict(batch), logits)


@torch.no_grad()
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_attention_weights_are_those_of_transformers(tmp_path, name):
    maker, settings = CAUSAL.get(name, (transformers.BertForMaskedLM, BERT))
    model = written(tmp_path, maker, settings)
    model.set_attn_implementation("eager")
    document = torch.ones(3, LENGTH, dtype=torch.int32)
    ours = read_model(tmp_path).attention_weights({"tokens": some_tokens(), "document": document})
    close(ours, torch.stack(model(some_tokens(), output_attentions=True).attentions))


@pytest.mark.parametrize("config", OURS.values(), ids=OURS)
def test_a_fresh_model_of_ours_survives_the_way_there_and_back(tmp_path, config):
    torch.manual_seed(0)
    ours = shaken(build(config))
    again = read_model(write_model(ours, tmp_path / config.name))
    assert again.config == config
    for (name, tensor), (other, same) in zip(ours.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(tensor, same)


def test_the_trunk_alone_is_read_of_any_bert(tmp_path):
    for maker in (transformers.BertModel, transformers.BertForPreTraining, transformers.BertForTokenClassification):
        model = written(tmp_path / maker.__name__, maker, BERT)
        trunk = model if maker is transformers.BertModel else model.bert
        config, tensors = read_trunk(tmp_path / maker.__name__)
        assert config.layers == 3
        assert torch.equal(tensors["embedding.weight"], trunk.embeddings.word_embeddings.weight)
        assert not any(name.startswith(("head", "transform")) for name in tensors)
        assert ("pooler.weight" in tensors) == (trunk.pooler is not None)


def test_files_as_they_were_published_are_read(tmp_path):
    """bert-base-uncased: old names of norms, pretraining heads in a masked model; gpt2: no prefix, masks as tensors."""
    bert = written(tmp_path / "bert", transformers.BertForPreTraining, BERT)
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(tmp_path / "bert/model.safetensors").items()
    }
    save_file(tensors | {"bert.embeddings.position_ids": torch.arange(LENGTH)}, tmp_path / "bert/model.safetensors")
    settings = json.loads((tmp_path / "bert/config.json").read_text()) | {"architectures": ["BertForMaskedLM"]}
    (tmp_path / "bert/config.json").write_text(json.dumps(settings))
    batch = pairs() | {"positions": torch.arange(5)}
    with torch.no_grad():
        close(read_model(tmp_path / "bert").predict(batch), theirs(bert, batch).prediction_logits.flatten(0, 1)[:5])
    gpt2 = written(tmp_path / "gpt2", *CAUSAL["gpt2"])
    tensors = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(tmp_path / "gpt2/model.safetensors").items()
    }
    tensors |= {f"h.{layer}.attn.bias": torch.ones(1, 1, LENGTH, LENGTH) for layer in range(3)}
    save_file(tensors, tmp_path / "gpt2/model.safetensors")
    with torch.no_grad():
        close(read_model(tmp_path / "gpt2")(some_tokens()), gpt2(some_tokens()).logits)


@torch.no_grad()
def test_weights_in_several_files_and_in_half_precision_are_read(tmp_path):
    model = written(tmp_path / "one", *CAUSAL["llama"])
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    close(read_model(tmp_path / "many")(some_tokens()), model(some_tokens()).logits)
    model.bfloat16().save_pretrained(tmp_path / "half")
    assert read_model(tmp_path / "half").embedding.weight.dtype == torch.float32
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.float32)
    close(read_model(tmp_path / "half")(some_tokens()), again(some_tokens()).logits)


def spoilt(directory: Path, change: Any) -> None:
    written(directory, *CAUSAL["llama"])
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"),
            "missing: model.layers.1.mlp.up_proj.weight",
        ),
        (lambda tensors: tensors.update(spare=torch.zeros(2)), "not of this model: model.spare"),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.zeros(31)}),
            r"misshapen: model.norm.weight is \[31\] instead of \[32\]",
        ),
        (
            lambda tensors: tensors.update({"model.embed_tokens.weight": torch.zeros(90, 32)}),
            r"model.embed_tokens.weight is \[90, 32\] instead of \[97, 32\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, said):
    spoilt(tmp_path, change)
    with pytest.raises(UnfitWeights, match=said):
        read_model(tmp_path)


def test_a_head_that_is_tied_and_yet_another_is_refused(tmp_path):
    written(tmp_path, *CAUSAL["gpt2"])
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"lm_head.weight": torch.zeros(VOCABULARY, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(UnfitWeights, match=r"lm_head.weight is not the same as transformer.wte.weight"):
        read_model(tmp_path)


def test_a_cut_file_is_named(tmp_path):
    written(tmp_path, *CAUSAL["gpt2"])
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UnfitWeights, match="cut or damaged") as caught:
        read_model(tmp_path)
    assert caught.value.where == str(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "t5"}, "type 't5'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"hidden_act": "mish"}, "activation 'mish'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ({"num_hidden_layers": 0}, "impossible sizes"),
        ({"num_key_value_heads": 3}, "impossible sizes"),
        ({"num_attention_heads": 0}, "cannot be understood"),
        ({"hidden_size": "64"}, "cannot be understood"),
        ({"rope_scaling": 8}, "cannot be understood"),
    ],
)
def test_settings_that_are_not_carried_out_are_refused(tmp_path, change, said):
    written(tmp_path, *CAUSAL["llama"])
    settings = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(NotHuggingFace, match=said):
        read_config(tmp_path)


def test_a_directory_without_weights_or_with_a_pickle_is_refused(tmp_path):
    with pytest.raises(NotHuggingFace, match="cannot be read"):
        read_model(tmp_path)
    written(tmp_path, *CAUSAL["gpt2"])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(NotHuggingFace, match=r"holds neither model.safetensors nor"):
        read_model(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(NotHuggingFace, match="pickle"):
        read_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../elsewhere.safetensors"}}')
    with pytest.raises(NotHuggingFace, match=r"names the file '../elsewhere.safetensors'"):
        read_model(tmp_path)


def test_a_model_of_our_own_kind_is_not_written(tmp_path):
    ours = build(ModelConfig("decoder", "decoder", VOCABULARY, LENGTH, 1, 32, 2))
    with pytest.raises(NotHuggingFace, match="decoder is a model of Phalanx's own"):
        write_model(ours, tmp_path / "out")
    assert not (tmp_path / "out").exists()
