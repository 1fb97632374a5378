"""Filters of documents, compared with plain loops over characters, lines and words."""

from __future__ import annotations

import random
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.build.filters import (
    longest_word,
    non_text_share,
    reason_to_leave_out,
    repeated_lines_share,
    repeated_ngrams_share,
)
from phalanx.data.build.options import Filters
from tests.data.build.corpora import document
from tests.data.build.test_shingles import plain_words

NONE = Filters(max_non_text=None)


@given(st.text(max_size=50))
def test_what_is_no_text_is_told_by_its_category(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    white = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85"
    bad = [c for c in text if c == "\ufffd" or (unicodedata.category(c) in ("Cc", "Cn", "Co") and c not in white)]
    assert non_text_share(text) == pytest.approx(len(bad) / len(text) if text else 0.0)


@given(st.lists(st.sampled_from(["a", "b", " a ", "", "c c"]), max_size=20))
def test_repeated_lines(lines: list[str]) -> None:
    seen: set[str] = set()
    again = total = 0
    for line in (line.strip() for line in lines):
        if line:
            total += 1
            again += line in seen
            seen.add(line)
    assert repeated_lines_share("\n".join(lines)) == pytest.approx(again / total if total else 0.0)


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_repeated_sequences_of_words(words: list[str]) -> None:
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for start in range(len(words) - 4):
        sequence = tuple(words[start : start + 5])
        if sequence in seen:
            covered.update(range(start, start + 5))
        seen.add(sequence)
    expected = len(covered) / len(words) if len(words) >= 5 else 0.0
    assert repeated_ngrams_share(" ".join(words)) == pytest.approx(expected)


@given(st.text("ab1 .漢", max_size=40))
def test_the_longest_word(text: str) -> None:
    assert longest_word(text) == max(map(len, plain_words(text)), default=0)


@pytest.mark.parametrize(
    ("text", "limits", "reason"),
    [
        ("", NONE, "empty"),
        (" \n\t\u3000", NONE, "empty"),
        ("four", replace(NONE, min_characters=5), "shorter than 5 characters"),
        ("fives", replace(NONE, min_characters=5), None),
        ("fives", replace(NONE, max_characters=4), "longer than 4 characters"),
        ("ab\0\0", Filters(), "more than 25% is no text"),
        ("abc\0", Filters(), None),
        ("x" * 1001, replace(NONE, max_word=1000), "a word longer than 1,000 letters"),
        ("漢" * 1001, replace(NONE, max_word=1000), None),
        ("a\na\nb", replace(NONE, max_repeated_lines=0.3), "more than 30% repeated lines"),
        ("a b c d e " * 3, replace(NONE, max_repeated_ngrams=0.15), "more than 15% repeated sequences of 5 words"),
    ],
)
def test_each_limit_has_its_reason(text: str, limits: Filters, reason: str | None) -> None:
    assert reason_to_leave_out(text, limits) == reason


def test_ordinary_text_passes_all_limits_of_the_literature() -> None:
    limits = Filters(50, 100_000, 0.25, 1000, 0.3, 0.15)
    chance = random.Random(0)
    for text in (
        document(chance),
        "def f(x):\n    return x\n" * 1 + document(chance),
        "天地玄黃宇宙洪荒" * 1 + document(chance),
    ):
        assert reason_to_leave_out(text, limits) is None
