"""The page of a dataset: counts, lengths, padding, what was left out and samples are there, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phalanx.pages.dataset import render_dataset, write_dataset_page
from tests.pages.test_predictions import HOSTILE, read


def document(**changes: Any) -> dict[str, Any]:
    lengths = {"least": 1, "tenth": 2, "median": 3, "ninetieth": 9, "most": 12, "mean": 4.5}
    bins = [[1, 1, 1, 1], [2, 3, 40, 99], [4, 7, 0, 0], [8, 15, 10, 100]]
    slots = {"sequence_length": 512, "one_a_row": 0.75, "packed": 0.0625, "joined": 0.0, "cut": 0.5}
    train = {
        "documents": 51,
        "tokens": 200,
        "bytes": 900,
        "shards": 1,
        "lengths": lengths | {"bins": bins},
        "slots": slots,
    }
    held = {"documents": 0, "tokens": 0, "bytes": 0, "shards": 0, "lengths": None, "slots": None}
    return {
        "directory": "corpus",
        "verified": True,
        "tokenizer": {"kind": "bpe", "size": 8192, "sha256": "0"},
        "sources": {"files": 7, "bytes": 2048},
        "splits": {"train": train, "held_out": held},
        "excluded": {"empty": {"documents": 3, "bytes": 0, "examples": ["a.txt@0"]}},
        "samples": [{"split": "train", "number": 25, "tokens": 9, "text": "Once upon a time"}],
    } | changes


def test_a_dataset_is_drawn(tmp_path: Path) -> None:
    text = write_dataset_page(document(), tmp_path / "page.html").read_text()
    read(text)
    for words in (
        "200 tokens in 51 documents",
        "4.50 bytes a token",
        "8 to 15",
        "75.0",
        "6.2",
        "a.txt@0",
        "Once upon",
        "compared",
    ):
        assert words in text, words
    assert text.index("2 to 3") < text.index("4 to 7") < text.index("8 to 15")


def test_nothing_left_out_and_nothing_to_show() -> None:
    text = render_dataset(document(excluded={}, samples=[]), now_ns=0)
    assert "Nothing." in text
    assert "What does it read like?" not in text


def test_what_a_source_holds_is_text() -> None:
    sample = {"split": "train", "number": 0, "tokens": 1, "text": HOSTILE}
    excluded = {HOSTILE: {"documents": 1, "bytes": 1, "examples": [HOSTILE]}}
    text = render_dataset(document(samples=[sample], excluded=excluded, directory=HOSTILE), now_ns=0)
    read(text)
    assert HOSTILE not in text
