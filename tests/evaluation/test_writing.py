"""Text that a trained model writes: whole characters, no part of a stop string, several at once, likeliest texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data.learn import learn_vocabulary
from phalanx.data.vocabulary import Vocabulary
from phalanx.evaluation import (
    NotACheckpoint,
    NotADecoder,
    UnusablePrompt,
    Writing,
    open_writer,
    prompt_ids,
    search_texts,
    write_text,
)
from phalanx.evaluation.writing import StopStrings
from phalanx.job import VocabularySpec
from phalanx.models import BeamSettings, GenerationSettings, ModelConfig, beam_search, build, generate
from phalanx.models.causal import CausalModel
from phalanx.models.huggingface import write_model
from phalanx.training import OpenedModel, open_model
from tests.evaluation.runs import SEQUENCE, Trained


@pytest.fixture(scope="module")
def opened(decoder: Trained) -> OpenedModel:
    return open_model(decoder.directory)


def tokens_of(model: OpenedModel, prompt: list[int], **options: Any) -> list[int]:
    assert isinstance(model.module, CausalModel)
    return [step[0] for step in generate(model.module, [prompt], GenerationSettings(**options)) if step[0] is not None]


def test_the_pieces_are_the_text_of_the_tokens(opened: OpenedModel) -> None:
    options = {"max_tokens": 120, "temperature": 0.9, "top_k": 20, "seed": 5}
    pieces = list(write_text(opened, "the worker ", GenerationSettings(**options)))  # type: ignore[arg-type]
    tokens = tokens_of(opened, list(b"the worker "), stop=(opened.vocabulary.eos_id,), **options)
    assert "".join(pieces) == bytes(tokens).decode(errors="replace")
    assert len(pieces) > 60, "given out as it is written"


def test_the_same_seed_writes_the_same_and_another_seed_something_else(opened: OpenedModel) -> None:
    first, again, other = (
        "".join(write_text(opened, "the ", GenerationSettings(max_tokens=60, seed=seed))) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_without_a_prompt_a_document_begins(opened: OpenedModel) -> None:
    eos = opened.vocabulary.eos_id
    assert eos is not None
    assert prompt_ids(opened, "") == [eos]
    tokens = tokens_of(opened, [eos], max_tokens=40, temperature=0, stop=(eos,))
    text = "".join(write_text(opened, "", GenerationSettings(max_tokens=40, temperature=0)))
    assert text == opened.vocabulary.decode(tokens)


def test_several_texts_are_those_of_each_prompt_alone(opened: OpenedModel) -> None:
    prompts = ["the worker ", "", "def ", "the rank reads every "]
    writing = Writing(opened, prompts, GenerationSettings(max_tokens=50, seed=3), stop=["text"])
    texts = ["" for _ in prompts]
    for row, piece in writing:
        texts[row] += piece
    assert [passage.text for passage in writing.passages] == texts
    for row, prompt in enumerate(prompts):
        alone = Writing(opened, [prompt], GenerationSettings(max_tokens=50, seed=3 + row), stop=["text"])
        assert "".join(piece for _, piece in alone) == texts[row]
        assert alone.passages == writing.passages[row : row + 1]
        assert writing.has_ended(row)
    assert writing.pace.tokens == sum(passage.tokens - 1 for passage in writing.passages)


def test_each_text_says_why_it_ended(opened: OpenedModel) -> None:
    free = "".join(write_text(opened, "the ", GenerationSettings(max_tokens=30, temperature=0)))
    writing = Writing(opened, ["the "], GenerationSettings(max_tokens=30, temperature=0), stop=[free[10:14]])
    assert "".join(piece for _, piece in writing) == free[: free.find(free[10:14])]
    assert writing.passages[0].ended_by == "stop"
    short = Writing(opened, ["the "], GenerationSettings(max_tokens=5, temperature=0))
    assert [piece for _, piece in short] == list(free[:5])
    assert (short.passages[0].ended_by, short.passages[0].tokens) == ("length", 5)
    ended = Writing(opened, ["the "], GenerationSettings(max_tokens=30, temperature=0, stop=(ord(free[7]),)))
    assert "".join(piece for _, piece in ended) == free[: free.find(free[7])]
    assert ended.passages[0].ended_by == "end"


class Steps:
    """Stands for the model: gives these bytes, a token each."""

    def __init__(self, text: bytes) -> None:
        self._text = iter(text)
        self.over = False

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> list[int | None]:
        if self.over:
            raise StopIteration
        return [next(self._text)]

    def end(self, _row: int) -> None:
        self.over = True


def test_characters_come_whole_even_where_a_token_is_a_part_of_one(
    opened: OpenedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled = "naïve → 中".encode()
    monkeypatch.setattr("phalanx.evaluation.writing.generate", lambda *_: Steps(spelled + b"\xff!" + b"\xe4\xb8"))
    pieces = list(write_text(opened, "a", GenerationSettings()))
    assert "".join(pieces) == "naïve → 中\ufffd!", "what is no UTF-8 is marked, what stays unfinished is left out"
    assert "→" in pieces
    assert all(pieces)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_stop_string_is_found_across_tokens_and_parts_of_characters(opened: OpenedModel, data: st.DataObject) -> None:
    text = data.draw(st.text(st.sampled_from("ab→é"), max_size=30))
    stop = data.draw(st.text(st.sampled_from("ab→é"), min_size=1, max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("phalanx.evaluation.writing.generate", lambda *_: Steps(text.encode()))
        writing = Writing(opened, ["a"], GenerationSettings(max_tokens=10**6), [stop])
        found = "".join(piece for _, piece in writing)
    at = text.find(stop)
    assert found == (text if at < 0 else text[:at])
    assert writing.passages[0].ended_by == ("end" if at < 0 else "stop")
    assert writing.passages[0].tokens == len((text if at < 0 else text[: at + len(stop)]).encode())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4),
    st.lists(st.text("ab", max_size=5), max_size=8),
)
def test_of_several_stop_strings_the_first_that_is_complete_counts(stops: list[str], pieces: list[str]) -> None:
    """Whatever the pieces are that the text comes in: beside a search of the whole text, character by character."""
    whole = "".join(pieces)
    ends = [end for end in range(len(whole) + 1) if whole[:end].endswith(tuple(stops))]
    expected = whole
    if ends:
        expected = whole[: ends[0] - max(len(stop) for stop in stops if whole[: ends[0]].endswith(stop))]
    holder, given_out = StopStrings(stops), ""
    for piece in pieces:
        given_out += holder.take(piece)
        if holder.found:
            break
        assert expected.startswith(given_out), "nothing of a stop string was given out"
    assert holder.found == bool(ends)
    assert given_out + holder.rest() == expected


def test_without_a_stop_string_nothing_is_held_back() -> None:
    assert StopStrings([]).take("abc") == "abc"


def test_the_likeliest_texts_are_those_of_the_beam_search(opened: OpenedModel) -> None:
    prompts = ["the worker ", "def "]
    chosen = BeamSettings(beams=3, max_tokens=12, returned=2)
    found = search_texts(opened, prompts, chosen)
    eos = opened.vocabulary.eos_id
    assert eos is not None
    plain = beam_search(
        opened.module,  # type: ignore[arg-type]
        [list(prompt.encode()) for prompt in prompts],
        BeamSettings(beams=3, max_tokens=12, returned=2, stop=(eos,)),
    )
    for prompt, passages, hypotheses in zip(prompts, found, plain, strict=True):
        assert [passage.prompt for passage in passages] == [prompt] * 2
        assert [passage.text for passage in passages] == [bytes(each.tokens).decode() for each in hypotheses]
        assert [passage.score for passage in passages] == [each.score for each in hypotheses]
        assert [passage.ended_by == "end" for passage in passages] == [each.ended for each in hypotheses]


def test_a_beam_search_beyond_what_the_model_reads_is_refused_with_what_would_fit(opened: OpenedModel) -> None:
    with pytest.raises(UnusablePrompt, match=f"the model reads {SEQUENCE} at once") as caught:
        search_texts(opened, ["the "], BeamSettings(max_tokens=SEQUENCE))
    assert f"at most {SEQUENCE - 4}" in caught.value.remedy
    with pytest.raises(UnusablePrompt, match="at once") as caught:
        search_texts(opened, ["x" * SEQUENCE], BeamSettings(max_tokens=1))
    assert "the end of the prompt" in caught.value.remedy


def test_a_model_of_hugging_faces_files_writes_too(opened: OpenedModel, tmp_path: Path) -> None:
    """A Llama, whose vocabulary has a mark of beginning, and which knows tokens that spell nothing."""
    vocabulary = json.loads(opened.vocabulary.to_json())
    size = opened.vocabulary.size
    template = vocabulary["added_tokens"][0]
    vocabulary["added_tokens"].append(template | {"id": size, "content": "<|begin_of_text|>"})
    vocabulary["model"]["vocab"]["<|begin_of_text|>"] = size
    config = ModelConfig("llama-tiny", "llama", size + 40, 64, 2, 32, 4, kv_heads=2, activation="silu")
    write_model(build(config), tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(vocabulary))
    model = open_writer(tmp_path, 1)
    assert isinstance(model.vocabulary, Vocabulary)
    assert prompt_ids(model, "") == [size]
    assert prompt_ids(model, "ab") == [size, *b"ab"]
    tokens = tokens_of(model, [size, *b"ab"], max_tokens=20, seed=1, stop=(model.vocabulary.eos_id,))
    text = "".join(write_text(model, "ab", GenerationSettings(max_tokens=20, seed=1)))
    assert text == model.vocabulary.decode([token for token in tokens if token < size])
    assert max(tokens) > size
    assert search_texts(model, ["ab"], BeamSettings(max_tokens=5))


def test_an_encoder_cannot_write(encoder: Trained) -> None:
    with pytest.raises(NotADecoder, match="bert-tiny fills in masked words") as caught:
        open_writer(encoder.directory, 1)
    assert caught.value.exit_code == 2
    assert "causal-lm" in caught.value.remedy


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match="no such directory"):
        open_writer(tmp_path / "nowhere", 1)


def test_a_prompt_longer_than_the_model_reads_is_refused_with_both_numbers(opened: OpenedModel) -> None:
    with pytest.raises(UnusablePrompt, match=rf"{SEQUENCE + 1} tokens, and the model reads {SEQUENCE} at once"):
        write_text(opened, "x" * (SEQUENCE + 1), GenerationSettings())
    assert "".join(write_text(opened, "x" * SEQUENCE, GenerationSettings(max_tokens=3)))


def test_a_prompt_that_is_no_text_is_refused(opened: OpenedModel) -> None:
    learned = learn_vocabulary(VocabularySpec(kind="bpe", size=260), "causal-lm", ["the rank reads"])
    for model in (opened, replace(opened, vocabulary=learned)):
        with pytest.raises(UnusablePrompt, match="not UTF-8"):
            write_text(model, b"\xff".decode(errors="surrogateescape"), GenerationSettings())
