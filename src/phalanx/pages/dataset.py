"""The page of a dataset: how much there is, how long its documents are, what was left out, and what it reads like.

One HTML file that needs nothing else, from the document that `phalanx data inspect DIR --json` prints.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import phalanx
from phalanx.foundation import write_atomic
from phalanx.pages import quantities
from phalanx.pages.bars import Bar, stacked
from phalanx.pages.frame import render_page
from phalanx.pages.quantities import count, number, percent, size
from phalanx.pages.verdict import Tile

_SPLIT_NAMES = {"train": "for training", "held_out": "held out"}
_TONE, _FAINT = 1, 8


def write_dataset_page(document: Mapping[str, Any], out: Path) -> Path:
    """Draw what an inspection found into `out`. Raises StorageError when it cannot be written."""
    write_atomic(out, render_dataset(document))
    return out


def render_dataset(document: Mapping[str, Any], now_ns: int | None = None) -> str:
    """The page as text. `now_ns`: when it was written; the present time if None."""
    train = document["splits"]["train"]
    return render_page(
        "dataset.html",
        title=document["directory"],
        headline=f"{count(train['tokens'])} tokens in {count(train['documents'])} documents to train on",
        tiles=_tiles(document),
        lengths=[
            {"name": _SPLIT_NAMES[name], "bars": _length_bars(facts["lengths"]), "facts": facts["lengths"]}
            for name, facts in document["splits"].items()
            if facts["lengths"]
        ],
        slots=_slot_bars(train["slots"]) if train["slots"] else [],
        sequence_length=train["slots"]["sequence_length"] if train["slots"] else None,
        excluded=document["excluded"],
        samples=document["samples"],
        version=phalanx.__version__,
        written=quantities.moment(now_ns if now_ns is not None else time.time_ns()),
    )


def _tiles(document: Mapping[str, Any]) -> list[Tile]:
    train, held = document["splits"]["train"], document["splits"]["held_out"]
    tokenizer = document["tokenizer"]
    per_token = train["bytes"] / train["tokens"] if train["tokens"] else None
    return [
        Tile("text", size(train["bytes"]), f"{number(per_token)} bytes a token"),
        Tile("held out", count(held["documents"]), f"documents, {count(held['tokens'])} tokens"),
        Tile("vocabulary", count(tokenizer["size"]), f"{tokenizer['kind']} entries"),
        Tile("left out", count(sum(each["documents"] for each in document["excluded"].values())), "documents"),
        Tile("sources", count(document["sources"]["files"]), f"files, {size(document['sources']['bytes'])}"),
        Tile("checksums", "compared" if document["verified"] else "not compared", "with --verify every byte is read"),
    ]


def _length_bars(lengths: Mapping[str, Any]) -> list[Bar]:
    most = max(documents for _, _, documents, _ in lengths["bins"])
    return [
        stacked(
            f"{low:,} to {high:,}" if high > low else f"{low:,}",
            {"documents": documents},
            most,
            {"documents": _TONE},
            {"documents": f"{count(tokens)} tokens"},
            count(documents),
        )
        for low, high, documents, tokens in lengths["bins"]
    ]


def _slot_bars(slots: Mapping[str, Any]) -> list[Bar]:
    tones = {"tokens": _TONE, "padding": _FAINT}
    return [
        stacked(
            label,
            {"tokens": 1 - slots[name], "padding": slots[name]},
            1.0,
            tones,
            {"tokens": "tokens", "padding": "padding"},
            f"{percent(slots[name])} padding",
        )
        for label, name in (("one a row", "one_a_row"), ("packed", "packed"), ("joined", "joined"))
    ]
