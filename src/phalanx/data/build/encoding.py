"""Tokens of many texts, several times faster than the library alone: words that come again are not encoded again.

Byte-level BPE as GPT-2 has it, and WordPiece as BERT has it, encode each word by itself, so a table of the words seen
gives what the library would. Words are split here as the library does, by a regular expression, where that is certain:
in texts of ASCII and of Latin, Greek and Cyrillic letters with common punctuation, whose classes are the same in every
version of Unicode. Words with any other character, and all words of any other vocabulary, go to the library. Knows
nothing of files.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data.vocabulary import Vocabulary

# Assigned since Unicode 4.1: ASCII without controls but tab, line feed and return; Latin-1 to Latin Extended-B, Greek,
# Cyrillic, and what typesetters use.
_RANGES = ((0x20, 0x7E), (0xA1, 0xAC), (0xAE, 0x241), (0x391, 0x3A1), (0x3A3, 0x3CE), (0x400, 0x45F), (0x490, 0x4CC))
_SINGLE = "\t\n\r‐‑‒–—‘’‚“”„†‡•…‰‹›€™−"
_LONGEST = 64
_ENTRY_BYTES = 250  # of a word and its tokens in the table


Encode = Callable[[Sequence[str]], list[NDArray[Any]]]


def encoder(vocabulary: Vocabulary, memory: int) -> Encode:
    """A function that gives what `vocabulary.encode_all` does; its table takes up to `memory` bytes."""
    pattern = _word_pattern(json.loads(vocabulary.to_json()))
    return vocabulary.encode_all if pattern is None else _TableEncoder(vocabulary, pattern, memory)


class _TableEncoder:
    """Of a text with other characters, what stands between two safe places goes to the library: a place between two
    known characters that are no white space, after a lone line feed or before a lone space, where each way of
    splitting begins a word anyhow."""

    def __init__(self, vocabulary: Vocabulary, pattern: re.Pattern[str], memory: int) -> None:
        self._vocabulary = vocabulary
        self._words = pattern.findall
        known = _class(_known())
        visible = _class([one for one in _known() if not one.isspace()])
        self._uncertain = re.compile(f"[^{known}]").search
        self._parts = re.compile(f"(?<=[{visible}]\n)(?=[{visible}])|(?<=[{visible}])(?= [{visible}])").split
        self._table = _Table(vocabulary, max(memory // _ENTRY_BYTES, 1))

    def __call__(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        others: list[str] = []
        found: list[list[bytes | None]] = []  # None: the next of the others
        for text in texts:
            parts: list[bytes | None] = []
            for part in self._parts(text) if self._uncertain(text) else (text,):
                if self._uncertain(part):
                    others.append(part)
                    parts.append(None)
                else:
                    words: list[str] = self._words(part)
                    parts.append(b"".join(map(self._table.__getitem__, words)))
            found.append(parts)
        from_library = iter(self._vocabulary.encode_all(others) if others else ())
        return [
            np.frombuffer(
                b"".join(next(from_library).tobytes() if part is None else part for part in parts),
                self._vocabulary.dtype,
            )
            for parts in found
        ]


class _Table(dict[str, bytes]):
    """Tokens of each word, as bytes; emptied when it is full."""

    def __init__(self, vocabulary: Vocabulary, most: int) -> None:
        super().__init__()
        self._vocabulary, self._most = vocabulary, most

    def __missing__(self, word: str) -> bytes:
        tokens = self._vocabulary.encode(word).tobytes()
        if len(word) <= _LONGEST:
            if len(self) >= self._most:
                self.clear()
            self[word] = tokens
        return tokens


def _word_pattern(whole: dict[str, Any]) -> re.Pattern[str] | None:
    """How a vocabulary (as its JSON) splits text into words, when that is one of the two ways that are known here."""
    model, splitter, normalizer = (whole[part] or {"type": None} for part in ("model", "pre_tokenizer", "normalizer"))
    if not all(token["special"] for token in whole["added_tokens"]):  # these are found before words are split
        return None
    if (model["type"], splitter["type"], normalizer["type"]) == ("BPE", "ByteLevel", None):
        plain = splitter["use_regex"] and not splitter["add_prefix_space"] and not model["dropout"]
        return _gpt2_words() if plain else None
    if (model["type"], splitter["type"]) == ("WordPiece", "BertPreTokenizer"):
        return _bert_words() if normalizer["type"] in (None, "BertNormalizer") else None
    return None


def _gpt2_words() -> re.Pattern[str]:
    """GPT-2's pattern (Radford 2019, encoder.py) for the known characters, of which only ASCII has white space.

    Contractions come after what never begins with an apostrophe: the same matches, found sooner.
    """
    letters, digits = (_class(_known(kind)) for kind in "LN")
    contractions, white = "'(?:[stmd]|re|ve|ll)", r"\s+(?!\S)|\s+"
    return re.compile(rf" ?[{letters}]+| ?[{digits}]+|{contractions}| ?[^\s{letters}{digits}]+|{white}", re.ASCII)


def _bert_words() -> re.Pattern[str]:
    """Runs without white space and punctuation, and each mark of punctuation (Devlin 2018, tokenization.py)."""
    ascii_marks = "".join(chr(point) for point in range(0x21, 0x7F) if not chr(point).isalnum())
    marks = _class(sorted({*ascii_marks, *_known("P")}))
    return re.compile(rf"[^ \t\n\r{marks}]+|[{marks}]")


def _known(kind: str = "") -> list[str]:
    """The characters that are split here; `kind`: only those of a general category."""
    points = chain.from_iterable(range(first, last + 1) for first, last in _RANGES)
    return [one for one in (*map(chr, points), *_SINGLE) if unicodedata.category(one).startswith(kind)]


def _class(characters: Sequence[str]) -> str:
    """The inside of a regular expression's class."""
    return "".join(map(re.escape, characters))
