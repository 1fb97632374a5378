"""The search for a translation: greedy is a beam of one, a score is what the model says of the sentence."""

from __future__ import annotations

import itertools

import pytest
import torch

from phalanx.models.search import translate
from tests.models.test_seq2seq import END, NAMES, batch_of, reversals, seq2seq


def score_of(module, source, lengths, tokens) -> float:
    """Mean log-probability of the tokens and the end mark, read at once."""
    target = torch.tensor([[END, *tokens]])
    chances = module(source, lengths, target).log_softmax(2)[0]
    wanted = torch.tensor([*tokens, END])
    return float(chances.gather(1, wanted[:, None]).mean().detach())


@pytest.mark.parametrize("name", NAMES)
def test_a_beam_of_one_takes_the_likeliest_token_each_time(name):
    module, batch = seq2seq(name, seed=3), batch_of(reversals(6, 1, 6, seed=1))
    found = translate(module, batch["source"], batch["lengths"], begin=END, end=END, most=7)
    for row, hypothesis in enumerate(found):
        source, lengths = batch["source"][row : row + 1], batch["lengths"][row : row + 1]
        tokens: list[int] = []
        for _ in range(7):
            token = int(module(source, lengths, torch.tensor([[END, *tokens]]))[0, -1].argmax())
            if token == END:
                break
            tokens.append(token)
        assert list(hypothesis.tokens) == tokens
        assert hypothesis.finished == (len(tokens) < 7 or token == END)


@pytest.mark.parametrize("beam", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_sentences_whatever_else_is_searched(name, beam):
    module, batch = seq2seq(name, seed=4), batch_of(reversals(7, 1, 8, seed=2))
    found = translate(module, batch["source"], batch["lengths"], begin=END, end=END, beam=beam)
    for row, hypothesis in enumerate(found):
        length = int(batch["lengths"][row])
        source, lengths = batch["source"][row : row + 1, :length], batch["lengths"][row : row + 1]
        (alone,) = translate(module, source, lengths, begin=END, end=END, beam=beam)
        assert alone.tokens == hypothesis.tokens
        if hypothesis.finished:
            expected = score_of(module, source, lengths, hypothesis.tokens)
            assert hypothesis.score == pytest.approx(expected, abs=1e-4)


def test_a_wide_beam_finds_the_best_of_all_short_sentences():
    """With three words and at most two of them all sentences can be tried: 1 + 3 + 9."""
    module, batch = seq2seq("rnn-attention", vocabulary=4, seed=5), batch_of([([1, 3, 2], [1])])
    source, lengths = batch["source"], batch["lengths"]
    sentences = [words for size in range(3) for words in itertools.product((1, 2, 3), repeat=size)]
    best = max(sentences, key=lambda words: score_of(module, source, lengths, words))
    (found,) = translate(module, source, lengths, begin=END, end=END, beam=13, most=3)
    assert found.score >= score_of(module, source, lengths, best) - 1e-5


def test_what_never_ends_is_cut():
    module, batch = seq2seq("rnn-attention"), batch_of(reversals(3, 2, 4, seed=3))
    with torch.no_grad():
        module.head_bias[END] = -100.0
    found = translate(module, batch["source"], batch["lengths"], begin=END, end=END)
    assert [len(one.tokens) for one in found] == [2 * length + 10 for length in batch["lengths"].tolist()]
    assert not any(one.finished for one in found)


def test_a_sentence_may_be_empty():
    module, batch = seq2seq("rnn-attention"), batch_of(reversals(2, 2, 4, seed=3))
    with torch.no_grad():
        module.head_bias[END] = 100.0
    found = translate(module, batch["source"], batch["lengths"], begin=END, end=END, beam=2)
    assert [one.tokens for one in found] == [(), ()]
    assert all(one.finished for one in found)


def test_a_beam_of_none_is_refused():
    module, batch = seq2seq("rnn-attention"), batch_of(reversals(2, 2, 4, seed=3))
    with pytest.raises(ValueError, match="at least 1 wide"):
        translate(module, batch["source"], batch["lengths"], begin=END, end=END, beam=0)
