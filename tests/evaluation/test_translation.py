"""Scores of translations beside sacrebleu and baselines made another way; a translator from its job to its report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import torch

from phalanx.data import Corpus, prepare
from phalanx.evaluation import EvaluationError, evaluate
from phalanx.evaluation.attention import attention_of
from phalanx.evaluation.errors import NotATranslator, NotFinite, UnusablePrompt
from phalanx.evaluation.translating import translate_lines
from phalanx.evaluation.translation import COPIED, NEAREST, answers, by_length, score
from phalanx.job import Job
from phalanx.models.seq2seq import Seq2Seq
from phalanx.training import open_model
from tests.evaluation.runs import Trained, train

VERBS = {"sieht": "sees", "mag": "likes", "hört": "hears"}
NOUNS = {"Hund": "dog", "Katze": "cat", "Mann": "man", "Frau": "woman", "Kind": "child"}
ADJECTIVES = {"rote": "red", "alte": "old", "kleine": "small"}


def quiet(stage: str, share: float) -> None:
    """Nobody watches."""


def write_pairs(directory: Path, count: int = 700) -> str:
    """A grammar of two languages: in the second the verb comes last, and an adjective after its noun."""
    directory.mkdir(parents=True)
    draw = np.random.default_rng(0)
    sides: dict[str, list[str]] = {"de": [], "xx": []}
    for _ in range(count):
        parts = []
        for _ in range(int(draw.integers(1, 4))):
            noun, verb, other, adjective = (str(draw.choice(list(w))) for w in (NOUNS, VERBS, NOUNS, ADJECTIVES))
            parts.append(
                (
                    f"die {adjective} {noun} {verb} {other}",
                    f"{NOUNS[noun]} {ADJECTIVES[adjective]} {NOUNS[other]} {VERBS[verb]}",
                )
            )
        sides["de"].append(" und ".join(german for german, _ in parts) + ".")
        sides["xx"].append(" and ".join(other for _, other in parts) + ".")
    for side, lines in sides.items():
        (directory / f"text.{side}").write_text("\n".join(lines), "utf-8")
    return f"{directory}/text.{{de,xx}}"


def make_translation_job(source: str, model: str = "rnn-attention") -> Job:
    spec = {
        "model": {"name": model, "objective": "translate", "dropout": 0.0},
        "data": {"source": source, "sequence_length": 48, "held_out": 0.1, "vocabulary": {"kind": "bpe", "size": 340}},
        "training": {"steps": 4, "global_batch": 16, "seed": 3},
    }
    return Job.model_validate({"metadata": {"name": "small", "namespace": "tests"}, "spec": spec})


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Trained:
    directory = tmp_path_factory.mktemp("translator")
    job = make_translation_job(write_pairs(directory / "text"))
    return train(directory / "run", job, cache, steps=110)


@pytest.fixture(scope="module")
def corpus(translator: Trained) -> Corpus:
    return prepare(translator.job.spec.data, "translate", translator.cache)


def texts_of(corpus: Corpus, split: str) -> list[tuple[str, str]]:
    part = corpus.split(split)
    texts = [
        corpus.vocabulary.decode(part.tokens[part.offsets[at] : part.offsets[at + 1]]) for at in range(part.documents)
    ]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_a_translator_is_scored_as_sacrebleu_does_and_beats_its_baselines(translator, corpus):
    found = evaluate(translator.directory, translator.cache)
    document = json.loads(found.to_json())
    pairs = texts_of(corpus, "held_out")
    lines = translate_lines(open_model(translator.directory), [source for source, _ in pairs])
    mine, references = [each.text for each in lines], [target for _, target in pairs]
    assert document["metric"] == "bleu"
    assert document["model"]["value"] == pytest.approx(sacrebleu.corpus_bleu(mine, [references]).score, abs=1e-9)
    assert document["translation"]["chrf"] == pytest.approx(sacrebleu.corpus_chrf(mine, [references]).score, abs=1e-9)
    copied = sacrebleu.corpus_bleu([source for source, _ in pairs], [references]).score
    assert {each["name"]: each["value"] for each in document["baselines"]}[COPIED] == pytest.approx(copied, abs=1e-9)
    assert document["beats_strongest"]
    assert document["margin"] > 2 * document["margin_standard_error"] > 0
    assert document["split"]["pairs"] == len(pairs)
    assert document["perplexity"] == pytest.approx(math.exp(document["model"]["loss"]))
    metrics = {(row["model"], row["metric"]) for row in found.rows()}
    assert {
        ("rnn-attention", "bleu"),
        ("rnn-attention", "chrf"),
        ("rnn-attention", "loss"),
        (NEAREST, "bleu"),
    } <= metrics
    for example in document["examples"]:
        assert (example["source"], example["reference"]) in pairs
    first = document["examples"][0]["alignment"]
    np.testing.assert_allclose(np.sum(first["weights"], axis=1), 1, atol=0.01)
    assert first["columns"] == [*document["examples"][0]["source"].split(), "<eos>"]


def test_answers_of_parts_are_those_of_the_whole(translator, corpus, monkeypatch):
    monkeypatch.setattr("phalanx.evaluation.translation.PART", 13)
    module = open_model(translator.directory).module
    whole = [each for some in answers(module, corpus) for each in some]
    parts = [each for part in range(3) for some in answers(module, corpus, part=part, parts=3) for each in some]
    assert sorted(each.place for each in parts) == list(range(corpus.held_out.documents // 2))
    assert {each.place: each.text for each in parts} == {each.place: each.text for each in whole}
    nats = {each.place: each.nats for each in whole}
    for each in parts:
        assert each.nats == pytest.approx(nats[each.place], abs=1e-3)


def test_the_nearest_training_sentence_is_found_as_by_plain_counting(translator, corpus):
    """Cosine of idf-weighted sets of tokens, with dictionaries."""
    module = open_model(translator.directory).module
    scores, _ = score(module, corpus, quiet)
    train_split, held_out = corpus.train, corpus.held_out

    def tokens_of(part, place: int) -> set[int]:
        return set(part.tokens[part.offsets[place] : part.offsets[place + 1]].tolist())

    training = [tokens_of(train_split, 2 * place) for place in range(train_split.documents // 2)]
    seen: dict[int, int] = {}
    for tokens in training:
        for token in tokens:
            seen[token] = seen.get(token, 0) + 1
    weight = {token: math.log((1 + len(training)) / (1 + count)) ** 2 for token, count in seen.items()}
    targets = [target for _, target in texts_of(corpus, "train")]
    mine = []
    for place in range(held_out.documents // 2):
        own = tokens_of(held_out, 2 * place)
        alike = [
            sum(weight[token] for token in own & tokens) / math.sqrt(max(sum(weight[t] for t in tokens), 1e-12))
            for tokens in training
        ]
        mine.append(targets[int(np.argmax(np.round(alike, 12)))])
    expected = sacrebleu.corpus_bleu(mine, [[target for _, target in texts_of(corpus, "held_out")]]).score
    assert {each.name: each.value for each in scores.baselines}[NEAREST] == pytest.approx(expected, abs=1.0)


def test_lengths_are_counted_in_words_and_scored_apart():
    sources = ["a b", "a b c d e", "a b c d e f", "x " * 11]
    texts = ["one two three four", "the cat sat here", "the dog sat here now", "it is so very long"]
    right = ["one two three four", "the cat sat there", "the dog sat here now", "it is very long"]
    first, second, third = by_length(sources, texts, right)
    assert [(each["from"], each["to"], each["pairs"]) for each in (first, second, third)] == [
        (1, 5, 2),
        (6, 10, 1),
        (11, 15, 1),
    ]
    assert first["words"] == 3.5
    assert first["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts[:2], [right[:2]]).score)
    assert third["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts[3:], [right[3:]]).score)
    assert first["standard_error"] > 0
    assert third["standard_error"] is None


def test_a_model_gone_wrong_is_not_scored(translator, corpus):
    module = open_model(translator.directory).module
    with torch.no_grad():
        module.head_bias.fill_(math.nan)
    with pytest.raises(NotFinite) as caught:
        score(module, corpus, quiet)
    assert isinstance(caught.value, EvaluationError)


def test_lines_are_translated_in_order_and_empty_ones_stay_empty(translator):
    opened = open_model(translator.directory)
    lines = ["die rote Katze sieht Hund.", "", "  die alte Frau mag Kind.  "]
    found = list(translate_lines(opened, lines, beam=3))
    assert [each.source for each in found] == ["die rote Katze sieht Hund.", "", "die alte Frau mag Kind."]
    assert [each.text for each in found] == ["cat red dog sees.", "", "woman old child likes."]
    assert all(each.finished for each in found)
    with pytest.raises(UnusablePrompt, match="UTF-8"):
        list(translate_lines(opened, ["\ud800"]))


def test_a_model_of_another_kind_does_not_translate(decoder):
    with pytest.raises(NotATranslator, match="gpt-tiny was not made to translate"):
        list(translate_lines(open_model(decoder.directory), ["x"]))


def test_the_alignment_finds_each_word_where_it_came_from(translator):
    """The grammar moves the verb to the end and the adjective behind its noun."""
    opened = open_model(translator.directory)
    assert isinstance(opened.module, Seq2Seq)
    found = attention_of(opened, "die kleine Katze hört Mann.", "cat small man hears.", words=True)
    assert found.kind == "alignment"
    assert found.rows == ("cat", "small", "man", "hears.", "<eos>")
    assert found.columns == ("die", "kleine", "Katze", "hört", "Mann.", "<eos>")
    assert found.written == "cat small man hears."
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)
