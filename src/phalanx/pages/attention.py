"""The page of a model's attention: every head as a picture over the tokens, one of them large.

One HTML file that needs nothing else, and is whole without script; with it a click makes a head large, and pointing at
a cell reads it. From the values of `evaluation.attention`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import phalanx
from phalanx.foundation import UsageError, write_atomic
from phalanx.pages import quantities
from phalanx.pages.frame import render_page
from phalanx.pages.heat import HeatMap, picture
from phalanx.pages.quantities import percent
from phalanx.pages.verdict import Tile

if TYPE_CHECKING:  # it loads torch
    from phalanx.evaluation.attention import Attention

MOST_CELLS = 1 << 23  # of all heads together: a page of about 10 MB
_HEADLINE = 120  # characters


class TooMuchToShow(UsageError):
    """So many heads over so many tokens would make a page that no browser shows well."""


@dataclass(frozen=True)
class Head:
    """`caption`: where it looks, in words."""

    layer: int
    number: int
    uri: str
    caption: str

    @property
    def name(self) -> str:
        return f"layer {self.layer}, head {self.number}"


def write_attention_page(attention: Attention, text: str, out: Path) -> Path:
    """Draw what `text` makes of the model's attention into `out`, whole or not at all.

    Raises TooMuchToShow; StorageError when `out` cannot be written.
    """
    write_atomic(out, render_attention(attention, text))
    return out


def render_attention(attention: Attention, text: str, now_ns: int | None = None) -> str:
    """The page as text. `now_ns`: when it was written; the present time if None. Raises TooMuchToShow."""
    cells = attention.weights.size
    if cells > MOST_CELLS:
        layers, heads = attention.weights.shape[:2]
        raise TooMuchToShow(
            f"{layers} x {heads} heads over {len(attention.rows):,} x {len(attention.columns):,} tokens are "
            f"{cells:,} cells, and a page shows {MOST_CELLS:,}",
            remedy="name one layer with --layer, one head of it with --head, or give a shorter text",
        )
    heads = _heads(attention)
    large = HeatMap("", attention.rows, attention.columns, attention.weights[0, 0])
    whole = text if len(text) <= _HEADLINE else text[: _HEADLINE - 1] + "…"
    return render_page(
        "attention.html",
        script_file="attention.js",
        images=True,
        attention=attention,
        headline=whole,
        aligned=attention.kind == "alignment",
        tiles=_tiles(attention),
        large=large,
        first=heads[0][0],
        layers=heads,
        several=attention.weights.shape[0] * attention.weights.shape[1] > 1,
        version=phalanx.__version__,
        written=quantities.moment(now_ns if now_ns is not None else time.time_ns()),
    )


def _heads(attention: Attention) -> list[list[Head]]:
    """By layer."""
    looks = attention.looks()
    return [
        [
            Head(layer, number, picture(attention.weights[at, place]), _caption(looks, at, place))
            for place, number in enumerate(attention.heads)
        ]
        for at, layer in enumerate(attention.layers)
    ]


def _caption(looks: Mapping[str, NDArray[np.float32]], layer: int, head: int) -> str:
    shares = sorted(((float(share[layer, head]), name) for name, share in looks.items()), reverse=True)
    return ", ".join(f"{percent(share, 0)} at {name}" for share, name in shares)


def _tiles(attention: Attention) -> list[Tile]:
    layers, heads = attention.weights.shape[:2]
    if attention.kind == "alignment":
        return [
            Tile("model", attention.model, "additive attention"),
            Tile("source", f"{len(attention.columns):,}", "tokens, with the end mark"),
            Tile("translation", f"{len(attention.rows):,}", "tokens, with the end mark"),
        ]
    return [
        Tile("model", attention.model, "self-attention"),
        Tile("layers", f"{layers:,}", "shown"),
        Tile("heads", f"{heads:,}", "of each layer shown"),
        Tile("tokens", f"{len(attention.rows):,}", "rows look at columns"),
    ]
