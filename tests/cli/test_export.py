"""`phalanx export`: what transformers makes of a model that was trained here, and of one that went through us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from phalanx.cli.main import main
from phalanx.models.huggingface import read_model
from phalanx.training import open_model
from tests.evaluation.runs import Trained

Captured = pytest.CaptureFixture[str]


@torch.no_grad()
def test_a_trained_bert_opens_in_transformers_with_its_vocabulary(
    trained_encoder: Trained, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "bert"
    assert main(["export", str(trained_encoder.directory), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 10
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForMaskedLM.from_pretrained(out).eval()
    opened = open_model(trained_encoder.directory)
    text = "the worker reads a step"
    encoded = tokenizer(text, return_tensors="pt")
    marks = [opened.vocabulary.cls_id, *opened.vocabulary.encode(text).tolist(), opened.vocabulary.sep_id]
    assert encoded["input_ids"][0].tolist() == marks
    assert tokenizer(text, "and another")["token_type_ids"][-1] == 1
    assert tokenizer.mask_token_id == opened.vocabulary.mask_id
    tokens = encoded["input_ids"]
    batch = {"tokens": tokens, "document": torch.ones_like(tokens), "positions": torch.arange(tokens.shape[1])}
    torch.testing.assert_close(opened.module.predict(batch), model(**encoded).logits[0], rtol=0, atol=1e-5)


def test_what_was_exported_opens_here_and_is_exported_again(trained_encoder: Trained, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["export", str(trained_encoder.directory), "--out", str(first)]) == 0
    assert main(["export", str(first), "--out", str(second)]) == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes() or name == "config.json"
    opened = open_model(second)
    assert opened.step is None
    assert opened.vocabulary.to_json() == open_model(first).vocabulary.to_json()
    ours = open_model(trained_encoder.directory).module.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in read_model(second).state_dict().items())


def test_a_directory_that_holds_something_and_a_model_of_our_own_are_refused(
    trained_decoder: Trained, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "kept").touch()
    assert main(["export", str(trained_decoder.directory), "--out", str(tmp_path)]) == 2
    assert "not an empty directory" in capsys.readouterr().err
    assert main(["export", str(trained_decoder.directory), "--out", str(tmp_path / "new")]) == 2
    assert "Phalanx's own" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_vocabulary_larger_than_the_model_is_refused(
    trained_encoder: Trained, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "bert"
    assert main(["export", str(trained_encoder.directory), "--out", str(out)]) == 0
    whole = json.loads((out / "tokenizer.json").read_text())
    size = len(whole["model"]["vocab"])
    whole["model"]["vocab"]["##another"] = size
    (out / "tokenizer.json").write_text(json.dumps(whole))
    capsys.readouterr()
    assert main(["export", str(out), "--out", str(tmp_path / "again")]) == 1
    assert f"the vocabulary has {size + 1:,} tokens, the model knows {size:,}" in capsys.readouterr().err
