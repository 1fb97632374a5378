from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from phalanx.data import Corpus, prepare
from phalanx.data.learn import learn_vocabulary
from phalanx.evaluation.evaluator import open_checkpoint
from phalanx.evaluation.examples import (
    GUESSES,
    MASKED,
    PROMPTS,
    continuations,
    held_out_prompts,
    masked_guesses,
    whole_words,
)
from phalanx.job import VocabularySpec
from tests.evaluation.runs import SEQUENCE, Trained, make_job
from tests.evaluation.test_causal import quiet


def held_out_text(corpus: Corpus) -> str:
    return corpus.vocabulary.decode(corpus.held_out.tokens)


def test_prompts_are_first_lines_of_functions_of_held_out_files(decoder: Trained) -> None:
    prompts = held_out_prompts(decoder.corpus, SEQUENCE)
    assert len(prompts) == PROMPTS
    for prompt in prompts:
        assert prompt.lstrip().startswith("def ")
        assert prompt.endswith("(self):\n")
        assert prompt in held_out_text(decoder.corpus)
        assert len(prompt.encode()) <= SEQUENCE


def test_other_text_is_begun_where_its_paragraphs_begin(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "text").mkdir()
    for number in range(30):
        paragraphs = [f"paragraph {n} of {number} begins\nand goes on\n" for n in range(9)]
        (tmp_path / "text" / f"{number}.txt").write_text("\n".join(paragraphs))
    corpus = prepare(make_job(tmp_path / "text").spec.data, "causal-lm", cache)
    prompts = held_out_prompts(corpus, SEQUENCE)
    assert len(prompts) == PROMPTS
    assert all(prompt.startswith("paragraph") and prompt.endswith("begins\n") for prompt in prompts)
    assert held_out_prompts(corpus, 5) == [], "none is short enough"


def test_continuations_go_on_from_each_prompt_and_are_the_same_every_time(decoder: Trained) -> None:
    loaded = open_checkpoint(decoder.directory)
    examples = continuations(loaded, decoder.corpus, quiet)
    assert len(examples) == PROMPTS + 1
    assert examples[-1]["prompt"] == "", "no Python is asked of a model of other text"
    for example in examples:
        assert 50 < len(example["generated"].encode()) <= 3 * 200
    assert examples == continuations(loaded, decoder.corpus, quiet)


def test_a_model_of_the_standard_library_is_always_asked_for_a_function(decoder: Trained) -> None:
    corpus = replace(decoder.corpus, manifest=replace(decoder.corpus.manifest, source="stdlib-source"))
    assert continuations(open_checkpoint(decoder.directory), corpus, quiet)[-1]["prompt"] == "def "


def test_guesses_are_the_likeliest_words_of_what_is_shown_and_of_nothing_else(encoder: Trained) -> None:
    vocabulary = encoder.corpus.vocabulary
    examples = masked_guesses(open_checkpoint(encoder.directory), encoder.corpus, quiet)
    assert 0 < len(examples) <= MASKED
    ids = {vocabulary.token(id_): id_ for id_ in range(vocabulary.size)}
    for example in examples:
        assert example["masked"].count("[MASK]") == 1
        probabilities = [p for _, p in example["guesses"]]
        assert len(probabilities) == GUESSES
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) <= 1
        before, after = example["masked"].split("[MASK]")
        sentence = [*vocabulary.encode(before).tolist(), vocabulary.mask_id, *vocabulary.encode(after).tolist()]
        row = torch.tensor([[vocabulary.cls_id, *sentence, vocabulary.sep_id]])
        place = torch.tensor([1 + sentence.index(vocabulary.mask_id)])
        with torch.no_grad():
            logits = encoder.module.predict({"tokens": row, "document": torch.ones_like(row), "positions": place})[0]
        for piece, probability in example["guesses"]:
            assert probability == pytest.approx(float(logits.softmax(-1)[ids[piece]]), rel=1e-4)
        true = vocabulary.decode([*vocabulary.encode(before), ids[example["truth"]], *vocabulary.encode(after)])
        assert true in held_out_text(encoder.corpus)


def test_only_whole_words_are_masked() -> None:
    vocabulary = learn_vocabulary(
        VocabularySpec(kind="wordpiece", size=300), "masked-lm", ["reading writing a red rose, a read word " * 40]
    )
    tokens = vocabulary.encode("a red rereading rose, 12 qqq word")
    words = [vocabulary.token(int(tokens[place])) for place in whole_words(vocabulary, np.asarray(tokens, np.int64))]
    spelled = [vocabulary.token(int(id_)) for id_ in tokens]
    assert "red" in words
    assert "," in spelled
    assert not {",", "a", "12"} & set(words)
    assert not [word for word in words if word.startswith("##")]
    for place, word in enumerate(spelled[:-1]):
        if spelled[place + 1].startswith("##"):
            assert place not in whole_words(vocabulary, np.asarray(tokens, np.int64)), word
