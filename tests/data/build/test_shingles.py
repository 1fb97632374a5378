"""Words, shingles and MinHash in numpy, compared with sets, a regular expression and the formulas of the literature."""

from __future__ import annotations

import functools
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.build.shingles import (
    SIGNATURE,
    WIDTH,
    band_hashes,
    bands_and_rows,
    jaccard,
    shingle_set,
    shingles_of,
    signatures,
    words_of,
)
from tests.data.build.corpora import altered, document

# Letters, marks and digits joined; a letter of these scripts alone. `\\w` lacks some marks, so the alphabet has none.
ALONE = "\u3040-\u30ff\u4e00-\u9fff\u0e01-\u0e2e"
WORD = re.compile(f"[{ALONE}]|[^\\W_{ALONE}]+")
TEXT = st.text("abcÄß é1９.,_-\n\t漢字かなกขя", max_size=60)


def plain_words(text: str) -> list[str]:
    return WORD.findall(text.lower())


@functools.lru_cache(maxsize=2000)
def plain_shingles(text: str) -> frozenset[tuple[str, ...]]:
    found = plain_words(text)
    if not found:
        return frozenset()
    return frozenset(tuple(found[start : start + WIDTH]) for start in range(max(len(found) - WIDTH + 1, 1)))


def plain_jaccard(one: str, other: str) -> float:
    left, right = plain_shingles(one), plain_shingles(other)
    return len(left & right) / len(left | right) if left | right else 0.0


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_words_are_those_of_a_regular_expression(texts: list[str]) -> None:
    found = words_of(texts)
    expected = [(word, number) for number, text in enumerate(texts) for word in plain_words(text)]
    assert found.document.tolist() == [number for _, number in expected]
    assert found.lengths.tolist() == [len(word) for word, _ in expected]
    hashes = found.hashes.tolist()
    by_word: dict[str, int] = {}
    for (word, _), own in zip(expected, hashes, strict=True):
        assert by_word.setdefault(word, own) == own
    assert len(set(by_word.values())) == len(by_word)


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_shingles_stay_inside_their_text(texts: list[str]) -> None:
    together = shingles_of(words_of(texts))
    for number, text in enumerate(texts):
        mine = set(together.hashes[together.document == number].tolist())
        assert mine == set(shingle_set(text).tolist())
        assert len(mine) == len(plain_shingles(text))


@given(TEXT, TEXT)
def test_similarity_is_that_of_sets(one: str, other: str) -> None:
    assert jaccard(shingle_set(one), shingle_set(other)) == pytest.approx(plain_jaccard(one, other))


def test_a_signature_estimates_similarity() -> None:
    """Each value is equal with a probability that is the similarity: over many pairs the mean error is small."""
    chance = random.Random(1)
    errors, spread = [], []
    for _ in range(200):
        one = document(chance, 100, 200)
        other = altered(one, chance.randrange(1, 12), chance)
        found = signatures(shingles_of(words_of([one, other])), 2, SIGNATURE)
        similarity = plain_jaccard(one, other)
        errors.append(float((found[0] == found[1]).mean()) - similarity)
        spread.append(similarity * (1 - similarity) / SIGNATURE)
    assert abs(np.mean(errors)) < 4 * np.sqrt(np.mean(spread) / len(errors))  # no bias
    assert np.std(errors) == pytest.approx(np.sqrt(np.mean(spread)), rel=0.2)  # as if drawn independently


def test_two_texts_without_words_share_nothing() -> None:
    found = signatures(shingles_of(words_of(["...", "", "one"])), 3, 4)
    assert (found[:2] == np.iinfo(np.uint64).max).all()
    assert jaccard(shingle_set("..."), shingle_set("")) == 0


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_find_nearly_all_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = bands_and_rows(threshold)
    assert bands * rows <= SIGNATURE
    assert 1 - (1 - threshold**rows) ** bands >= 0.99
    if rows < SIGNATURE:  # one row more would find fewer than that
        assert 1 - (1 - threshold ** (rows + 1)) ** (SIGNATURE // (rows + 1)) < 0.99


def test_bands_are_found_as_often_as_the_formula_says() -> None:
    chance = random.Random(2)
    bands, rows = bands_and_rows(0.8)
    hits, expected = 0, 0.0
    for _ in range(300):
        one = document(chance, 60, 100)
        other = altered(one, chance.randrange(3, 10), chance)
        found = band_hashes(signatures(shingles_of(words_of([one, other])), 2, bands * rows), bands, rows)
        assert found.shape == (2, bands)
        hits += bool((found[0] == found[1]).any())
        expected += 1 - (1 - plain_jaccard(one, other) ** rows) ** bands
    assert hits == pytest.approx(expected, rel=0.12)


def test_bands_of_different_numbers_never_share_a_hash() -> None:
    same = np.full((1, 12), 7, np.uint64)
    assert len(np.unique(band_hashes(same, 4, 3))) == 4


def test_the_hashes_are_what_they_always_were() -> None:
    """A change would make sketches disagree between versions, of a build that is taken up by the next one."""
    assert shingle_set("The quick brown fox jumps").tolist() == [0xA69AB1A7D5C7B81E]
    assert shingle_set("the QUICK, brown; fox. Jumps!").tolist() == [0xA69AB1A7D5C7B81E]
    found = band_hashes(signatures(shingles_of(words_of(["The quick brown fox jumps over"])), 1, 6), 2, 3)
    assert found.tolist() == [[5666320677224633497, 497673203453491069]]
