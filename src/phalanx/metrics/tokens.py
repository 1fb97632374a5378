"""How a text is cut into words before n-grams of it are counted, so that scores of different papers can be compared.

`13a` is what WMT's mteval-v13a.pl does, `intl` mteval-v14.pl with its international option, `char` takes characters for
words and `none` cuts at white space only. Knows no metric.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from functools import cache

_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
_WESTERN = (
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),  # punctuation and symbols of ASCII, but ' , - .
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def western(line: str) -> list[str]:
    """`13a`: points and commas stay only between digits, other punctuation of ASCII never."""
    line = line.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, meant in _ENTITIES.items():
        line = line.replace(entity, meant)
    return _rewritten(f" {line} ", _WESTERN)


def international(line: str) -> list[str]:
    """`intl`: every mark of punctuation but between digits, and every symbol, of all of Unicode."""
    return _rewritten(line, _international())


def characters(line: str) -> list[str]:
    """`char`: each, but white space."""
    return [char for char in line if not char.isspace()]


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "13a": western,
    "intl": international,
    "char": characters,
    "none": str.split,
}


def _rewritten(line: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> list[str]:
    for pattern, meant in rules:
        line = pattern.sub(meant, line)
    return line.split()


@cache
def _international() -> tuple[tuple[re.Pattern[str], str], ...]:
    numbers, marks, symbols = (_class_of(major) for major in "NPS")
    return (
        (re.compile(f"([^{numbers}])([{marks}])"), r"\1 \2 "),
        (re.compile(f"([{marks}])([^{numbers}])"), r" \1 \2"),
        (re.compile(f"([{symbols}])"), r" \1 "),
    )


def _class_of(major: str) -> str:
    """The characters whose general category begins so, as the inside of a class of `re`, which knows no categories."""
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] == major:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
