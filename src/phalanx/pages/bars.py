"""Horizontal bars, stacked or spread over time, as values in percent of their row. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """A stretch of a bar: `start` and `width` in percent; `tip` is shown on hover."""

    name: str
    start: float
    width: float
    tone: int
    tip: str


@dataclass(frozen=True)
class Bar:
    label: str
    pieces: tuple[Piece, ...]
    value: str
    strong: bool = False


@dataclass(frozen=True)
class Key:
    name: str
    tone: int


def stacked(
    label: str,
    parts: Mapping[str, float],
    full: float,
    tones: Mapping[str, int],
    tips: Mapping[str, str],
    value: str,
    *,
    strong: bool = False,
) -> Bar:
    """One bar whose pieces follow each other; `full` is the amount that fills the row."""
    pieces: list[Piece] = []
    start = 0.0
    for name, amount in parts.items():
        width = share(amount, full)
        if width > 0:
            pieces.append(Piece(name, round(start, 3), round(width, 3), tones[name], tips[name]))
        start += width
    return Bar(label, tuple(pieces), value, strong)


def share(amount: float, full: float) -> float:
    """Percent of `full`, within 0 and 100; 0 for what is no number."""
    if not math.isfinite(amount) or full <= 0:
        return 0.0
    return min(100.0, max(0.0, amount / full * 100))


def keys(bars: Sequence[Bar]) -> list[Key]:
    """The legend of some bars, in order of appearance."""
    seen: dict[str, int] = {}
    for bar in bars:
        for piece in bar.pieces:
            seen.setdefault(piece.name, piece.tone)
    return [Key(name, tone) for name, tone in seen.items()]
