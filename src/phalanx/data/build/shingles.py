"""Sets of word sequences (shingles) of texts as 64-bit hashes, and MinHash signatures of them (Broder 1997), in numpy.

Texts are taken many at once, because numpy's cost is by call. Words are runs of letters, marks and digits in lower
case; a letter of a script that is written without spaces (Han, kana, Thai ...) is a word. Two texts without a word are
never similar. The same text gives the same numbers on every machine. Knows nothing of files.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

WIDTH = 5
SIGNATURE = 128
_LEAST_RECALL = 0.99
_SEPARATOR, _LETTER, _WORD_ALONE = 0, 1, 2
_TABLE_END = 0x32400
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, _TABLE_END),
)
_PLACES = 4096


@dataclass(frozen=True)
class Words:
    """`hashes`: uint64 [n]; `lengths`: int64 [n], letters of each; `document`: int64 [n], ascending, of which text."""

    hashes: Hashes
    lengths: NDArray[np.int64]
    document: NDArray[np.int64]


@dataclass(frozen=True)
class Shingles:
    """`hashes`: uint64 [m], repeated where the text repeats itself; `document`: int64 [m], ascending."""

    hashes: Hashes
    document: NDArray[np.int64]


def words_of(texts: Sequence[str]) -> Words:
    """The words of all texts, in order."""
    lowered = [text.lower() for text in texts]
    points = np.frombuffer("\n".join(lowered).encode("utf-32-le"), np.uint32)
    kinds = _kinds_table()[np.minimum(points, _TABLE_END)]
    begins = kinds == _LETTER
    begins[1:] &= kinds[:-1] != _LETTER
    begins |= kinds == _WORD_ALONE
    letters = np.flatnonzero(kinds)
    if not len(letters):
        return Words(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
    word_begins = np.flatnonzero(begins)
    first = np.searchsorted(letters, word_begins)  # of each word, among the letters
    lengths = np.diff(first, append=len(letters))
    place = (np.arange(len(letters)) - np.repeat(first, lengths)) % _PLACES
    terms = (points[letters].astype(np.uint64) + np.uint64(1)) * _powers()[place]
    hashes = _mixed(np.add.reduceat(terms, first))
    ends = np.cumsum([len(text) + 1 for text in lowered])
    return Words(hashes, lengths, np.searchsorted(ends, word_begins, side="right"))


def shingles_of(words: Words, width: int = WIDTH) -> Shingles:
    """Sequences of `width` words inside a text; of a text with fewer words, all of them as one."""
    hashes, document = words.hashes, words.document
    factors = _constants("shingle", width)
    count = max(len(hashes) - width + 1, 0)
    sums = np.zeros(count, np.uint64)
    for number in range(width):
        sums += hashes[number : number + count] * factors[number]
    inside = document[:count] == document[width - 1 :][:count]
    sums, owners = sums[inside], document[:count][inside]
    first = np.flatnonzero(np.diff(document, prepend=-1))  # the first word of each text that has one
    lengths = np.diff(first, append=len(document))
    short = lengths < width
    if short.any():
        begun, left = first[short], lengths[short]
        alone = np.zeros(len(begun), np.uint64)
        for number in range(width):
            has = left > number
            alone[has] += hashes[begun[has] + number] * factors[number]
        sums = np.concatenate([sums, alone])
        owners = np.concatenate([owners, document[begun]])
        order = np.argsort(owners, kind="stable")
        sums, owners = sums[order], owners[order]
    return Shingles(_mixed(sums), owners)


def bands_and_rows(threshold: float, size: int = SIGNATURE) -> tuple[int, int]:
    """(bands, rows): the most rows a band with which two texts as similar as `threshold` share a band with a
    probability of at least 0.99, 1 - (1 - s^rows)^bands (Leskovec, Rajaraman, Ullman 2014, section 3.4)."""
    for rows in range(size, 0, -1):
        bands = size // rows
        if 1 - (1 - threshold**rows) ** bands >= _LEAST_RECALL:
            return bands, rows
    return size, 1


def signatures(shingles: Shingles, texts: int, size: int) -> Hashes:
    """uint64 [texts, size]: least hash of each text under `size` random functions; all ones for one without words."""
    result = np.full((texts, size), np.iinfo(np.uint64).max, np.uint64)
    if not len(shingles.hashes):
        return result
    first = np.flatnonzero(np.diff(shingles.document, prepend=-1))
    owners = shingles.document[first]
    buffer = np.empty_like(shingles.hashes)
    for number, factor in enumerate(_constants("signature", size)):
        np.multiply(shingles.hashes, factor, out=buffer)
        result[owners, number] = np.minimum.reduceat(buffer, first)
    return result


def band_hashes(signature: Hashes, bands: int, rows: int) -> Hashes:
    """uint64 [texts, bands]: one hash of each band's values; those of different bands differ."""
    parts = signature[:, : bands * rows].reshape(len(signature), bands, rows)
    sums: Hashes = (parts * _constants("row", rows)).sum(axis=2, dtype=np.uint64)
    return _mixed(sums + _constants("band", bands))


def shingle_set(text: str) -> Hashes:
    """Distinct shingles of one text, ascending."""
    return np.unique(shingles_of(words_of([text])).hashes)


def jaccard(one: Hashes, other: Hashes) -> float:
    """Size of the intersection over that of the union, of two sets as `shingle_set` gives them; 0 of empty ones."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - common
    return common / union if union else 0.0


def _mixed(values: Hashes) -> Hashes:
    """A bijection of uint64 in which every bit depends on every bit (splitmix64's finalizer, Steele 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@functools.cache
def _constants(purpose: str, count: int) -> Hashes:
    """Odd numbers, uint64 [count], that depend on the purpose only."""
    seed = np.uint64(int.from_bytes(purpose.encode()[:8].ljust(8), "little"))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _mixed(seed + steps) | np.uint64(1)


@functools.cache
def _powers() -> Hashes:
    base = np.full(_PLACES, 0xD6E8FEB86659FD93, np.uint64)
    return np.multiply.accumulate(base)


@functools.cache
def _kinds_table() -> NDArray[np.uint8]:
    """uint8 [points]: separator, letter of a word, or a word alone; the last entry stands for all above."""
    table = np.array(
        [_LETTER if unicodedata.category(chr(point))[0] in "LMN" else _SEPARATOR for point in range(_TABLE_END + 1)],
        np.uint8,
    )
    for start, end in _WITHOUT_SPACES:
        part = table[start : end + 1]
        part[part == _LETTER] = _WORD_ALONE
    table[_TABLE_END] = _SEPARATOR
    return table
