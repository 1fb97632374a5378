"""What a run begins with: transformers' weights computed by transformers, ours copied, and what does not fit refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from phalanx.data import Loader, LoaderSpec, open_data
from phalanx.data.learn import learn_vocabulary
from phalanx.job import Job, VocabularySpec
from phalanx.models.huggingface import UnfitWeights
from phalanx.training import checkpoint
from phalanx.training.beginning import begin, build_model, model_config
from phalanx.training.checkpoint import Piece
from phalanx.training.errors import CheckpointMismatch
from phalanx.training.manifest import Manifest, Rng
from tests.data.conftest import sentences
from tests.data.test_vocabulary_files import bert_files
from tests.training.values import make_plan
from tests.training.workers import Run

TINY = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}


def make_job(source: Path, objective: str = "classify", **more: Any) -> Job:
    data = {"source": str(source), "sequence_length": 24, "held_out": 0.2} | more.pop("data", {})
    training = {"steps": 3, "global_batch": 8, "seed": 5, "precision": "fp32", "optimizer": {"lr": 1e-4}}
    model = {"name": "bert-tiny", "objective": objective, "dropout": 0.0} | more
    return Job.model_validate(
        {"metadata": {"name": "small"}, "spec": {"model": model, "data": data, "training": training}}
    )


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "pairs.jsonl"
    lines = sentences(60).splitlines()
    rows = [
        {"text": line, "text2": lines[-place], "label": ("no", "yes")[place % 2]} for place, line in enumerate(lines)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def published(directory: Path, kind: Any, **settings: Any) -> Any:
    """A BERT of transformers with random weights, and BERT's vocabulary, in `directory`."""
    bert_files(directory)
    size = len((directory / "vocab.txt").read_text("utf-8").split("\n")) - 1
    torch.manual_seed(1)
    model = kind(transformers.BertConfig(vocab_size=size + 7, max_position_embeddings=64, **TINY, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(directory)
    return model.eval()


def begun(job: Job, cache: Path) -> tuple[Any, Any, Any]:
    """The job's data, its model as it begins, and what is said of it."""
    data = open_data(job.spec, cache)
    config = model_config(job.spec, data)
    module = build_model(job.spec, config)
    return data, module.eval(), begin(module, config, Path(str(job.spec.model.weights)))


@pytest.mark.parametrize(
    "kind", [transformers.BertForPreTraining, transformers.BertForMaskedLM, transformers.BertModel]
)
def test_the_body_says_what_transformers_says_of_the_same_batch(kind: Any, examples: Path, tmp_path: Path) -> None:
    theirs = published(tmp_path / "bert", kind)
    job = make_job(examples, weights=str(tmp_path / "bert"))
    data, module, said = begun(job, tmp_path / "cache")
    assert data.vocabulary.size == module.config.vocabulary_size - 7  # a table with rows to spare
    batch = data.feed(None, 0, 1, 8).take().batches[0].arrays
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    with torch.no_grad():
        ours = module.hidden(tensors)[: len(batch["positions"])]
    trunk = theirs if kind is transformers.BertModel else theirs.bert
    tokens, document = batch["tokens"], batch["document"]
    for place, position in enumerate(batch["positions"]):
        line, start = divmod(int(position), tokens.shape[1])
        mine = np.flatnonzero(document[line] == document[line, start])
        with torch.no_grad():
            expected = trunk(
                input_ids=torch.from_numpy(tokens[line, mine])[None],
                token_type_ids=torch.from_numpy(batch["segments"][line, mine])[None],
            ).last_hidden_state[0, 0]
        torch.testing.assert_close(ours[place], expected, atol=1e-5, rtol=1e-5)
    pooled = trunk.pooler is not None
    assert said.fresh == (
        ("head.weight", "head.bias") if pooled else ("pooler.weight", "pooler.bias", "head.weight", "head.bias")
    )
    assert set(said.taken) | set(said.fresh) == set(module.state_dict())
    assert "fresh: " in said.describe()


def test_the_fresh_head_is_the_one_of_the_seed(examples: Path, tmp_path: Path) -> None:
    published(tmp_path / "bert", transformers.BertForPreTraining)
    job = make_job(examples, weights=str(tmp_path / "bert"))
    data, module, _ = begun(job, tmp_path / "cache")
    again = build_model(job.spec, model_config(job.spec, data))
    assert torch.equal(again.state_dict()["head.weight"], module.state_dict()["head.weight"])


def test_a_head_that_answers_the_same_question_is_taken(examples: Path, tmp_path: Path) -> None:
    names = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    theirs = published(tmp_path / "bert", transformers.BertForSequenceClassification, **names)
    _, module, said = begun(make_job(examples, weights=str(tmp_path / "bert")), tmp_path / "cache")
    assert said.fresh == ()
    assert torch.equal(module.state_dict()["head.weight"], theirs.classifier.weight)
    other = make_job(examples, weights=str(tmp_path / "bert"), data={"labels": ["yes", "no"]})
    _, _, said = begun(other, tmp_path / "cache")
    assert said.fresh == ("head.weight", "head.bias")  # the same names in another order


def ours(directory: Path, examples: Path, cache: Path, objective: str = "masked-lm") -> Any:
    """A checkpoint of ours, and the module in it."""
    job = make_job(examples, objective, data={"vocabulary": {"kind": "wordpiece", "size": 300}})
    data = open_data(job.spec, cache)
    config = model_config(job.spec, data)
    module = build_model(job.spec, config)
    data.describe_into(directory / "data")
    (directory / "job.json").write_text(job.model_dump_json())
    manifest = Manifest(step=1, data_cursor=1, rng=Rng(seed=0, rule="none"), model=config.to_dict(), plan=make_plan())
    pieces = [Piece.whole(f"model.{name}", tensor) for name, tensor in module.state_dict().items()]
    companions = {"tokenizer.json": directory / "data/tokenizer.json", "job.json": directory / "job.json"}
    checkpoint.write(directory / "checkpoints", manifest, pieces, companions, keep=1)
    return module


@pytest.fixture
def pretrained(examples: Path, tmp_path: Path) -> Any:
    return ours(tmp_path / "run", examples, tmp_path / "cache")


@pytest.mark.parametrize("where", ["run", "run/checkpoints", "run/checkpoints/step-00000001"])
def test_a_run_of_ours_is_begun_with(where: str, pretrained: Any, examples: Path, tmp_path: Path) -> None:
    job = make_job(examples, weights=str(tmp_path / where))
    data, module, said = begun(job, tmp_path / "cache")
    own = module.state_dict()
    for name, tensor in pretrained.state_dict().items():
        if not name.startswith(("transform", "head")):
            assert torch.equal(own[name], tensor), name
    assert said.fresh == ("pooler.weight", "pooler.bias", "head.weight", "head.bias")
    assert data.vocabulary.to_json() == (tmp_path / "run/data/tokenizer.json").read_text()


def test_pretraining_goes_on_with_its_own_head(pretrained: Any, examples: Path, tmp_path: Path) -> None:
    _, module, said = begun(make_job(examples, "masked-lm", weights=str(tmp_path / "run")), tmp_path / "cache")
    assert said.fresh == ()
    for name, tensor in pretrained.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor)


def test_what_does_not_fit_is_refused(pretrained: Any, examples: Path, tmp_path: Path) -> None:
    cache, run = tmp_path / "cache", str(tmp_path / "run")
    with pytest.raises(CheckpointMismatch, match="not bert-mini's: layers 2 instead of 4") as caught:
        begun(make_job(examples, weights=run, name="bert-mini"), cache)
    assert "model.name" in caught.value.remedy
    with pytest.raises(CheckpointMismatch, match=r"know 24 positions, data.sequenceLength is 25"):
        begun(make_job(examples, weights=run, data={"sequence_length": 25}), cache)
    other = tmp_path / "other"
    bert_files(other)
    with pytest.raises(CheckpointMismatch, match="belong to another vocabulary"):
        begun(make_job(examples, weights=run, data={"vocabulary": {"path": str(other)}}), cache)
    published(tmp_path / "bert", transformers.BertForPreTraining)
    weights = tmp_path / "bert" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    tensors["bert.pooler.dense.bias"] = torch.zeros(3)
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(UnfitWeights) as unfit:
        begun(make_job(examples, weights=str(tmp_path / "bert")), cache)
    assert "missing: bert.encoder.layer.1.output.dense.weight" in unfit.value.message
    assert "bert.pooler.dense.bias is [3] instead of [128]" in unfit.value.message


def test_a_body_without_a_tensor_is_refused(pretrained: Any, examples: Path, tmp_path: Path) -> None:
    job = make_job(examples, weights=str(tmp_path / "run"))
    config = model_config(job.spec, open_data(job.spec, tmp_path / "cache"))
    deeper = build_model(job.spec, replace(config, layers=3))
    with pytest.raises(CheckpointMismatch, match=r"blocks\.2\.\S+ is missing"):
        begin(deeper, config, tmp_path / "run")


def test_a_decoder_goes_on_from_published_weights(tmp_path: Path) -> None:
    """Llama's shape: the head is its own, and a shorter context needs nothing cut."""
    vocabulary = learn_vocabulary(VocabularySpec(kind="bpe", size=300), "causal-lm", [sentences(100)])
    settings = transformers.LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(3)
    theirs = transformers.LlamaForCausalLM(settings).eval()
    theirs.save_pretrained(tmp_path / "llama")
    (tmp_path / "llama" / "tokenizer.json").write_text(vocabulary.to_json())
    (tmp_path / "text.txt").write_text(sentences(400))
    job = make_job(tmp_path / "text.txt", "causal-lm", name="llama-tiny", weights=str(tmp_path / "llama"))
    data, module, said = begun(job, tmp_path / "cache")
    assert said.fresh == ()
    tokens = torch.from_numpy(data.feed(None, 0, 1, 8).take().batches[0].arrays["tokens"][:, :-1])
    with torch.no_grad():
        torch.testing.assert_close(module(tokens), theirs(tokens).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_worker_begins_with_weights_once_and_then_with_its_own_checkpoint(
    pretrained: Any, examples: Path, tmp_path: Path
) -> None:
    job = make_job(examples, weights=str(tmp_path / "run"))
    run = Run(tmp_path / "tuned", job, make_plan(), tmp_path / "cache")
    run.complete()
    run.complete(generation=2)  # finds its own checkpoint, and nothing left to do
    events = [row["event"] for row in run.rows("checkpoints")]
    assert events == ["begun with", "written", "read"]
    assert "fresh: pooler.weight, pooler.bias, head.weight, head.bias" in run.rows("checkpoints")[0]["message"]
    labels = Loader(open_data(job.spec, tmp_path / "cache").corpus, LoaderSpec.of(job.spec)).labels
    found = run.checkpoint()
    assert tuple(found.manifest.model["labels"]) == labels == ("no", "yes")
    trained = found.read_slice("model.embedding.weight", (0, 0), found.shape("model.embedding.weight"))
    before = pretrained.state_dict()["embedding.weight"]
    assert 0 < (trained - before).abs().max() < 0.01  # three small steps away from where it began


def test_a_vocabulary_larger_than_the_model_that_it_lies_beside_is_refused(examples: Path, tmp_path: Path) -> None:
    published(tmp_path / "bert", transformers.BertForPreTraining)
    with (tmp_path / "bert" / "vocab.txt").open("a") as file:
        file.writelines(f"more{number}\n" for number in range(8))  # one more than the table's rows to spare
    with pytest.raises(CheckpointMismatch, match=r"the vocabulary has [\d,]+ tokens, the model knows") as caught:
        begun(make_job(examples, weights=str(tmp_path / "bert")), tmp_path / "cache")
    assert "came with the weights" in caught.value.remedy
