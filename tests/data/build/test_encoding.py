"""Tokens by the table of words, compared with the library's."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from phalanx.data.build.encoding import _known, _TableEncoder, encoder
from phalanx.data.learn import learn_vocabulary, vocabulary_of_bytes
from phalanx.data.stdlib import stdlib_root
from phalanx.data.vocabulary import Vocabulary
from phalanx.job import VocabularySpec
from tests.data.build.corpora import document

Encode = Callable[[Sequence[str]], list[NDArray[Any]]]

SAMPLE = [document(random.Random(seed)) for seed in range(20)] + [
    "def f(x):\n    return x + 1  # it's what they'll say, isn't it?\n\n\n\tThey've 3.14 and 1,000 ways -- don't they'd?",
    "Ça coûte 5 € … «Привет», 'n' “quoted” — Ελληνικά 10½ x² ª º Ǆ ſ ß İ ı",
]
BPE = learn_vocabulary(VocabularySpec(kind="bpe", size=600), "causal-lm", SAMPLE)
WORDPIECE = learn_vocabulary(VocabularySpec(kind="wordpiece", size=600), "masked-lm", SAMPLE)
CASED = Tokenizer.from_str(WORDPIECE.to_json())
CASED.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
VOCABULARIES = {"bpe": BPE, "wordpiece": WORDPIECE, "cased": Vocabulary(CASED)}

KNOWN = "".join(_known())
TEXT = st.one_of(
    st.text(KNOWN, max_size=60),
    st.text("'stdmrevl nTLx1.,\n\t  ", max_size=40),
    st.lists(
        st.sampled_from(
            [*string.punctuation, " ", "  ", "\n", "\r\n", "it's", "'LL", "don", "ß", "Ж9", "½", "<eos>", "[MASK]"]
        )
    ).map("".join),
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            [*"ab'1.s", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\x1c", "\x85", "\u0301", "\u200b"]
        )
        | st.sampled_from(["漢字", "😀", "ก", "٣", "\u0661", "é", "Ж", "\ufffd", "\x00", "'s", " 's", "１", "Ⅷ", "．"]),
        max_size=25,
    ).map("".join),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(TEXT, max_size=5), st.sampled_from([*VOCABULARIES]), st.sampled_from([1, 1000, 10**6]))
def test_tokens_are_those_of_the_library(texts: list[str], name: str, memory: int) -> None:
    vocabulary = VOCABULARIES[name]
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    encode = encoder(vocabulary, memory)
    assert isinstance(encode, _TableEncoder)
    for _ in range(2):  # from the table the second time
        found = encode(texts)
        expected = vocabulary.encode_all(texts)
        assert [one.tolist() for one in found] == [one.tolist() for one in expected]
        assert all(one.dtype == vocabulary.dtype for one in found)


@pytest.mark.parametrize("name", [*VOCABULARIES])
def test_every_known_character_in_every_company(name: str) -> None:
    """Each between letters, digits, spaces, marks and its like, where a wrong class would split otherwise."""
    vocabulary = VOCABULARIES[name]
    encode = encoder(vocabulary, 10**6)
    texts = [
        f"{before}{one}{after}"
        for one in KNOWN
        for before, after in (
            ("a", "b"),
            ("1", "2"),
            (" ", " "),
            ("  ", "x"),
            (".", "!"),
            ("'", "s"),
            (one, "\n"),
            ("\n", one),
        )
    ]
    for text, found, expected in zip(texts, encode(texts), vocabulary.encode_all(texts), strict=True):
        assert found.tolist() == expected.tolist(), repr(text)


def test_files_of_the_library() -> None:
    texts = [path.read_text("utf-8") for path in sorted(stdlib_root().glob("*.py"))[:20]]
    for vocabulary in VOCABULARIES.values():
        for found, expected in zip(encoder(vocabulary, 10**5)(texts), vocabulary.encode_all(texts), strict=True):
            np.testing.assert_array_equal(found, expected)


def changed(vocabulary: Vocabulary, change: Callable[[Tokenizer], None]) -> Vocabulary:
    tokenizer = Tokenizer.from_str(vocabulary.to_json())
    change(tokenizer)
    return Vocabulary(tokenizer)


def _set(name: str, value: object) -> Callable[[Tokenizer], None]:
    return lambda tokenizer: setattr(tokenizer, name, value)


@pytest.mark.parametrize(
    "vocabulary",
    [
        vocabulary_of_bytes("causal-lm"),
        changed(BPE, _set("normalizer", normalizers.NFC())),
        changed(BPE, _set("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True))),
        changed(BPE, _set("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))),
        changed(BPE, lambda tokenizer: tokenizer.add_tokens([AddedToken("it's")])),
        changed(WORDPIECE, _set("pre_tokenizer", pre_tokenizers.Whitespace())),
        changed(WORDPIECE, _set("normalizer", normalizers.Lowercase())),
    ],
)
def test_any_other_vocabulary_is_left_to_the_library(vocabulary: Vocabulary) -> None:
    assert encoder(vocabulary, 1000) == vocabulary.encode_all


def test_the_table_does_not_grow_beyond_its_memory() -> None:
    encode = encoder(BPE, 250 * 100)
    assert isinstance(encode, _TableEncoder)
    encode([document(random.Random(seed), 200, 300) for seed in range(30)])
    assert 0 < len(encode._table) <= 100
    encode(["x" * 10_000])
    assert max(map(len, encode._table)) <= 64
