"""Line charts as values: a window in the data's own units, paths, ticks. The template draws them as SVG.

Why not plotly, which the project began with: its one-file output carries 4.8 MB of script per report,
ignores the reader's dark mode and print, and needs a content policy that lets any inline script run.
Bokeh is about 1 MB with the same limits. What a report needs (lines, hover, a zoom, a legend that
switches) is 150 lines of SVG and 150 of script here: a page of ~100 KB that is complete without script,
follows light and dark, prints, scales to a phone, and whose policy admits exactly one script by its hash.

The plot is a nested window: `viewBox` is in data units with y upward negated, and the browser stretches it.
Labels stand outside of it in percent, so that text keeps its size at any width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from phalanx.pages.quantities import number, tick_labels, ticks

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """`tone` picks the colour (1-8); `faint` lines stay behind the others; `dots` shows each point."""

    name: str
    points: tuple[Point, ...]
    tone: int
    faint: bool = False
    dots: bool = False

    @property
    def path(self) -> str:
        """SVG path data in data units, y negated; broken where a value is not finite."""
        parts: list[str] = []
        pen = "M"
        for x, y in self.points:
            if not math.isfinite(y):
                pen = "M"
                continue
            parts.append(f"{pen}{x:g} {-y:.6g}")
            pen = "L"
        return "".join(parts)

    @property
    def dot_path(self) -> str:
        """Lines of no length, whose round ends are dots of one size in any window."""
        return "".join(f"M{x:g} {-y:.6g}h0" for x, y in self.points if math.isfinite(y))

    @property
    def last(self) -> str:
        finite = [y for _, y in self.points if math.isfinite(y)]
        return number(finite[-1]) if finite else ""


@dataclass(frozen=True)
class Tick:
    """`at`: percent from the left or the top of the plot; `value` in data units."""

    at: float
    value: float
    label: str


@dataclass(frozen=True)
class Mark:
    """A moment worth a vertical line, such as a restart."""

    x: float
    label: str


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    x_name: str
    lines: tuple[Line, ...]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    marks: tuple[Mark, ...] = ()
    tall: bool = False

    @property
    def view_box(self) -> str:
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return f"{x0:.8g} {-y1:.8g} {x1 - x0:.8g} {y1 - y0:.8g}"

    @property
    def x_ticks(self) -> list[Tick]:
        low, high = self.x_range
        values = ticks(low, high, 6)
        return [
            Tick((value - low) / (high - low) * 100, value, label)
            for value, label in zip(values, tick_labels(values), strict=True)
        ]

    @property
    def y_ticks(self) -> list[Tick]:
        low, high = self.y_range
        values = ticks(low, high, 5)
        return [
            Tick((high - value) / (high - low) * 100, value, label)
            for value, label in zip(values, tick_labels(values), strict=True)
        ]

    @property
    def summary(self) -> str:
        """The chart in a sentence, for readers who do not see it."""
        parts = [f"{line.name} ends at {line.last}" for line in self.lines if not line.faint and line.last]
        return f"{self.title} in {self.unit} by {self.x_name}: {', '.join(parts)}" if self.unit else self.title


def chart(
    title: str,
    unit: str,
    lines: Iterable[Line],
    *,
    x_name: str = "step",
    x_range: tuple[float, float] | None = None,
    from_zero: bool = False,
    marks: Sequence[Mark] = (),
    tall: bool = False,
) -> Chart | None:
    """A chart of the lines that have finite points, with some air around them; None when there are none."""
    kept = tuple(line for line in lines if line.path)
    points = [(x, y) for line in kept for x, y in line.points if math.isfinite(y)]
    if not points:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = (0.0, high * 1.1 or 1.0) if from_zero and low >= 0 else (low - air, high + air)
    left, right = x_range if x_range is not None else (min(xs), max(xs))
    if right <= left:
        left, right = left - 1, right + 1
    return Chart(title, unit, x_name, kept, (left, right), (low, high), tuple(marks), tall)


def smooth(points: Sequence[Point], window: int) -> tuple[Point, ...]:
    """Centred mean over `window` finite neighbours (fewer at the ends)."""
    half = window // 2
    result: list[Point] = []
    for index, (x, y) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        near = [v for _, v in points[index - reach : index + reach + 1] if math.isfinite(v)]
        result.append((x, sum(near) / len(near) if near and math.isfinite(y) else math.nan))
    return tuple(result)
