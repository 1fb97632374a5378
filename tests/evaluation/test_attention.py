"""Attention of every head beside transformers' own, on its own models; words out of pieces; what cannot be shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from phalanx.data import Vocabulary
from phalanx.data.learn import learn_vocabulary
from phalanx.evaluation.attention import Attention, attention_of, merged
from phalanx.evaluation.errors import NoSuchHead, UnusablePrompt
from phalanx.job import VocabularySpec
from phalanx.training import open_model

TEXT = ["the cat sat on the mat while the dog slept in the warm house, or did it not?"] * 20


def written(directory: Path, model: torch.nn.Module, vocabulary: Vocabulary) -> Path:
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text(vocabulary.to_json())
    return directory


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> tuple[Path, BertForMaskedLM]:
    vocabulary = learn_vocabulary(VocabularySpec(kind="wordpiece", size=300), "masked-lm", TEXT)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary.size,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        initializer_range=0.4,
        attn_implementation="eager",
    )
    model = BertForMaskedLM(config).eval()
    return written(tmp_path_factory.mktemp("bert"), model, vocabulary), model


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> tuple[Path, GPT2LMHeadModel]:
    vocabulary = learn_vocabulary(VocabularySpec(kind="bpe", size=300), "causal-lm", TEXT)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=vocabulary.size,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=40,
        initializer_range=0.4,
        attn_implementation="eager",
        bos_token_id=vocabulary.eos_id,
        eos_token_id=vocabulary.eos_id,
    )
    model = GPT2LMHeadModel(config).eval()
    return written(tmp_path_factory.mktemp("gpt2"), model, vocabulary), model


def test_weights_of_an_encoder_are_those_of_transformers(bert):
    directory, model = bert
    opened = open_model(directory)
    found = attention_of(opened, "the cat sat", "on the mat?")
    vocabulary = opened.vocabulary
    first, second = vocabulary.encode("the cat sat").tolist(), vocabulary.encode("on the mat?").tolist()
    ids = [vocabulary.cls_id, *first, vocabulary.sep_id, *second, vocabulary.sep_id]
    segments = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    with torch.no_grad():
        theirs = model(torch.tensor([ids]), token_type_ids=torch.tensor([segments]), output_attentions=True)
    np.testing.assert_allclose(found.weights, torch.stack(theirs.attentions)[:, 0].numpy(), atol=1e-5)
    assert found.rows == found.columns
    assert found.rows[0] == "[CLS]"
    assert found.rows.count("[SEP]") == 2
    assert (found.kind, found.layers, found.heads) == ("self", (1, 2, 3), (1, 2, 3, 4))


def test_weights_of_a_decoder_are_those_of_transformers(gpt2):
    directory, model = gpt2
    opened = open_model(directory)
    found = attention_of(opened, "the cat sat on the mat")
    ids = torch.tensor([opened.vocabulary.encode("the cat sat on the mat").tolist()])
    with torch.no_grad():
        theirs = torch.stack(model(ids, output_attentions=True).attentions)[:, 0]
    np.testing.assert_allclose(found.weights, theirs.numpy(), atol=1e-5)
    assert np.allclose(np.triu(found.weights, 1), 0)
    assert "·cat" in found.rows


def test_one_layer_or_one_head_can_be_picked(gpt2):
    opened = open_model(gpt2[0])
    whole = attention_of(opened, "the cat sat")
    one = attention_of(opened, "the cat sat", layer=2, head=3)
    np.testing.assert_array_equal(one.weights[0, 0], whole.weights[1, 2])
    assert (one.layers, one.heads) == ((2,), (3,))
    with pytest.raises(NoSuchHead, match="no layer 3: the model has 2"):
        attention_of(opened, "the cat sat", layer=3)
    with pytest.raises(NoSuchHead, match="no head 5: the model has 4"):
        attention_of(opened, "the cat sat", head=5)


def test_pieces_of_a_word_are_taken_together(bert, gpt2):
    text = "the housecat slept"
    pieces, words = (attention_of(open_model(bert[0]), text, words=flag) for flag in (False, True))
    assert words.rows == ("[CLS]", "the", "housecat", "slept", "[SEP]")
    assert len(pieces.rows) > len(words.rows)
    np.testing.assert_allclose(words.weights.sum(-1), 1, atol=1e-5)
    assert attention_of(open_model(gpt2[0]), text, words=True).rows == ("the", "housecat", "slept")


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_words_get_the_sum_and_give_the_mean(rows, columns, seed):
    draw = np.random.default_rng(seed)
    weights = draw.dirichlet(np.ones(columns), rows).astype(np.float32)
    row_starts, column_starts = (
        np.unique([0, *draw.integers(0, size, draw.integers(0, size + 1))]) for size in (rows, columns)
    )
    found = merged(weights, row_starts, column_starts)
    bounds = [[*starts.tolist(), size] for starts, size in ((row_starts, rows), (column_starts, columns))]
    for i, (top, bottom) in enumerate(zip(bounds[0], bounds[0][1:], strict=False)):
        for j, (left, right) in enumerate(zip(bounds[1], bounds[1][1:], strict=False)):
            assert found[i, j] == pytest.approx(weights[top:bottom, left:right].sum(1).mean(), abs=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_habits_of_heads_are_told():
    """A head that looks at the token before, one that looks at itself, one at the first."""
    size = 5
    before = np.eye(size, k=-1, dtype=np.float32)
    before[0, 0] = 1
    first = np.zeros((size, size), np.float32)
    first[:, 0] = 1
    weights = np.stack([before, np.eye(size, dtype=np.float32), first])[None]
    looks = Attention("self", tuple("abcde"), tuple("abcde"), weights, (1,), (1, 2, 3), "m").looks()
    np.testing.assert_allclose(looks["the token before"][0], [4 / 5, 0, 1 / 5])
    np.testing.assert_allclose(looks["itself"][0], [1 / 5, 1, 1 / 5])
    np.testing.assert_allclose(looks["the first token"][0], [2 / 5, 1 / 5, 1], rtol=1e-6)
    assert Attention("alignment", ("a",), ("b",), np.ones((1, 1, 1, 1), np.float32), (1,), (1,), "m").looks() == {}


def test_what_cannot_be_shown_is_said(bert, gpt2):
    encoder, decoder = open_model(bert[0]), open_model(gpt2[0])
    for text, pair in (("", None), (" \n", None), ("cat", " ")):
        with pytest.raises(UnusablePrompt, match="empty"):
            attention_of(encoder, text, pair)
    with pytest.raises(UnusablePrompt, match="reads one text"):
        attention_of(decoder, "cat", "dog")
    with pytest.raises(UnusablePrompt, match="the model reads 40 at once"):
        attention_of(encoder, "cat " * 100)
    with pytest.raises(UnusablePrompt, match="the model reads 40 at once"):
        attention_of(decoder, "cat " * 100)
    with pytest.raises(UnusablePrompt, match="UTF-8"):
        attention_of(encoder, "\ud800")
