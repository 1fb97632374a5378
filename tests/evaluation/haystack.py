"""A labelled haystack that every machine has: the named characters, of which the currency signs are the needles."""

from __future__ import annotations

import csv
import functools
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

WORDS = {"SIGN": 2.0, "CURRENCY": 3.0, "DOLLAR": 2.5, "CENT": 1.0, "POUND": 1.5, "RUPEE": 2.5, "EURO": 1.5, "PESO": 2.0}


@functools.cache
def characters() -> tuple[tuple[str, str, bool, float, str], ...]:
    """Code, name, whether it is a currency sign, a score by the words of its name, its plane."""
    rows = []
    for code in range(0x110000):
        name = unicodedata.name(chr(code), "")
        if name:
            words = name.split()
            score = sum(WORDS.get(word, 0.0) for word in words) - 0.1 * len(words)
            rows.append((f"U+{code:04X}", name, unicodedata.category(chr(code)) == "Sc", score, f"plane {code >> 16}"))
    return tuple(rows)


def columns() -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores."""
    return np.array([row[2] for row in characters()]), np.array([row[3] for row in characters()])


def write_csv(file: Path, rows: list[list[object]], heads: list[str]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerows([heads, *rows])
    return file


def write_haystack(file: Path) -> Path:
    """As CSV or Parquet, by the file's ending, with columns character, name, is_currency, score and plane."""
    heads = ["character", "name", "is_currency", "score", "plane"]
    if file.suffix == ".csv":
        return write_csv(file, [[a, b, int(c), d, e] for a, b, c, d, e in characters()], heads)
    table = pa.table(dict(zip(heads, map(list, zip(*characters(), strict=True)), strict=True)))
    pa.parquet.write_table(table, file, row_group_size=20_000)
    return file
