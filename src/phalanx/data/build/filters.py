"""Which documents are left out, and why: limits of length, of what is no text, and of repetition. Any language.

The limits are those of `options.Filters`; each document is judged alone. Knows nothing of files and duplicates.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
from numpy.typing import NDArray

from phalanx.data.build.options import Filters
from phalanx.data.build.shingles import shingles_of, words_of

_NGRAM = 5
_NO_TEXT = frozenset({"Cc", "Cn", "Co", "Cs"})
_WHITE = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85"
_ASSIGNED = 0x32400  # planes above hold tags and variation selectors (0xE0000 on) and private use only


def reason_to_leave_out(text: str, limits: Filters) -> str | None:
    """The first limit that `text` is beyond, in words; None when it is within all of them."""
    if not text or text.isspace():
        return "empty"
    if limits.min_characters is not None and len(text) < limits.min_characters:
        return f"shorter than {limits.min_characters:,} characters"
    if limits.max_characters is not None and len(text) > limits.max_characters:
        return f"longer than {limits.max_characters:,} characters"
    if limits.max_non_text is not None and non_text_share(text) > limits.max_non_text:
        return f"more than {limits.max_non_text:.0%} is no text"
    if limits.max_word is not None and longest_word(text) > limits.max_word:
        return f"a word longer than {limits.max_word:,} letters"
    if limits.max_repeated_lines is not None and repeated_lines_share(text) > limits.max_repeated_lines:
        return f"more than {limits.max_repeated_lines:.0%} repeated lines"
    if limits.max_repeated_ngrams is not None and repeated_ngrams_share(text) > limits.max_repeated_ngrams:
        return f"more than {limits.max_repeated_ngrams:.0%} repeated sequences of {_NGRAM} words"
    return None


def non_text_share(text: str) -> float:
    """Share of characters that are controls (but white space), unassigned, private use, or U+FFFD."""
    if text.replace("\n", " ").replace("\t", " ").isprintable() and "\ufffd" not in text:
        return 0.0
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return float(_no_text_table()[np.minimum(points, _ASSIGNED)].mean())


@functools.cache
def _no_text_table() -> NDArray[np.bool_]:
    """bool [points]: whether each code point is no text; the last entry stands for all above."""
    table = np.array([unicodedata.category(chr(point)) in _NO_TEXT for point in range(_ASSIGNED + 1)])
    table[[ord(character) for character in _WHITE]] = False
    table[0xFFFD] = True
    table[_ASSIGNED] = True
    return table


def longest_word(text: str) -> int:
    """Letters and digits of the longest run of them; scripts written without spaces count letter by letter."""
    lengths = words_of([text]).lengths
    return int(lengths.max()) if len(lengths) else 0


def repeated_lines_share(text: str) -> float:
    """Share of lines that stood in the text before (Rae 2021); blank ones do not count."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def repeated_ngrams_share(text: str) -> float:
    """Share of words that are part of a sequence of five words which stood in the text before (Rae 2021)."""
    words = words_of([text])
    if len(words.hashes) < _NGRAM:
        return 0.0
    found = shingles_of(words, _NGRAM).hashes
    _, first = np.unique(found, return_index=True)
    repeated = np.ones(len(found), bool)
    repeated[first] = False
    covered = np.zeros(len(words.hashes) + 1, np.int64)
    starts = np.flatnonzero(repeated)
    np.add.at(covered, starts, 1)
    np.add.at(covered, np.minimum(starts + _NGRAM, len(words.hashes)), -1)
    return float((np.cumsum(covered[:-1]) > 0).mean())
