import math
import textwrap
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.learn import learn_vocabulary, vocabulary_of_bytes
from phalanx.evaluation import ngram
from phalanx.evaluation.ngram import END, SYMBOLS, symbols_of, witten_bell
from phalanx.job import VocabularySpec


class SlowModel:
    """The same formula with dictionaries, one symbol at a time."""

    def __init__(self, train: list[int], order: int) -> None:
        self.order = order
        self.followers: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        padded = [END] * (order - 1) + train
        for place in range(order - 1, len(padded)):
            for length in range(order):
                self.followers[tuple(padded[place - length : place])][padded[place]] += 1

    def probability(self, context: tuple[int, ...], symbol: int) -> float:
        lower = self.probability(context[1:], symbol) if context else 1 / SYMBOLS
        seen = self.followers.get(context)
        if not seen:
            return lower
        return (seen[symbol] + len(seen) * lower) / (seen.total() + len(seen))

    def cost(self, text: list[int], place: int) -> float:
        padded = [END] * (self.order - 1) + text
        context = tuple(padded[place : place + self.order - 1])
        return -math.log(self.probability(context, text[place]))


symbols = st.lists(st.sampled_from([0, 97, 98, 99, 255, END]), max_size=60)


@given(symbols, symbols.filter(bool), st.integers(1, 7))
def test_costs_are_those_of_a_dictionary(train: list[int], text: list[int], order: int) -> None:
    slow = SlowModel(train, order)
    places = np.arange(len(text))
    costs = witten_bell(np.array(train, np.uint16), np.array(text, np.uint16), places, [order])
    assert costs[order] == pytest.approx([slow.cost(text, place) for place in places])


def test_real_text_costs_the_same_in_every_order_and_for_any_targets() -> None:
    words, text = list(Path(textwrap.__file__).read_bytes()[:6000]), list(Path(ngram.__file__).read_bytes()[:1500])
    places = np.random.default_rng(0).choice(len(text), 400, replace=False)
    costs = witten_bell(np.array(words, np.uint16), np.array(text, np.uint16), places, [1, 4, 6])
    for order in (1, 4, 6):
        slow = SlowModel(words, order)
        assert costs[order] == pytest.approx([slow.cost(text, int(place)) for place in places])


@given(symbols, symbols)
def test_the_probabilities_of_all_symbols_sum_to_one(train: list[int], context: list[int]) -> None:
    texts = [np.array([*context, symbol], np.uint16) for symbol in range(SYMBOLS)]
    together = np.concatenate([np.concatenate([np.full(7, END, np.uint16), text]) for text in texts])
    ends = np.cumsum([len(context) + 8] * SYMBOLS) - 1
    costs = witten_bell(np.array(train, np.uint16), together, ends, [4])
    assert np.exp(-costs[4]).sum() == pytest.approx(1)


def test_without_training_text_every_symbol_costs_the_same() -> None:
    costs = witten_bell(np.empty(0, np.uint16), np.array([1, 2, 256], np.uint16), np.arange(3), [1, 6])
    assert costs[6] == pytest.approx(np.full(3, math.log(257)))


def test_progress_ends_at_one() -> None:
    told: list[float] = []
    witten_bell(np.arange(20, dtype=np.uint16), np.arange(5, dtype=np.uint16), np.arange(5), [2, 4], told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("orders", [[], [0], [8], [1, 9]])
def test_impossible_orders_are_refused(orders: list[int]) -> None:
    with pytest.raises(ValueError, match="orders from 1 to 7"):
        witten_bell(np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.int64), orders)


@given(st.lists(st.text(max_size=30), max_size=5))
def test_tokens_become_the_bytes_they_stand_for(texts: list[str]) -> None:
    for vocabulary in (vocabulary_of_bytes("causal-lm"), BPE):
        tokens = [id_ for text in texts for id_ in [*vocabulary.encode(text).tolist(), vocabulary.eos_id]]
        found, starts = symbols_of(np.array(tokens, np.int64), vocabulary)
        assert found.tolist() == [symbol for text in texts for symbol in [*text.encode(), END]]
        for place, id_ in enumerate(tokens):
            expected = [END] if id_ == vocabulary.eos_id else list(vocabulary.pieces[id_])
            assert found[starts[place] : starts[place + 1]].tolist() == expected


BPE = learn_vocabulary(VocabularySpec(kind="bpe", size=300), "causal-lm", ["the cat and the other cat " * 50])


def test_a_vocabulary_that_loses_bytes_is_refused() -> None:
    vocabulary = learn_vocabulary(VocabularySpec(kind="wordpiece", size=300), "masked-lm", ["some words"])
    with pytest.raises(ValueError, match="does not give the bytes back"):
        symbols_of(np.array([5]), vocabulary)
