"""A chart as one SVG file that stands alone, for a document: lines, ticks, and a labelled line at each mark."""

from __future__ import annotations

from html import escape

from phalanx.pages.chart import Chart

WIDTH, HEIGHT = 960, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 68, 44
COLOURS = ("#1d6fb8", "#c2571a", "#2f8f5b", "#7a4fb5", "#b8336a", "#4a6572", "#a67c00", "#555555")
STYLE = """
  text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #46546a } .title { font-size: 15px; font-weight: 650 }
  path { fill: none; vector-effect: non-scaling-stroke } .grid { stroke: #e1e6ee }
  .mark { stroke: #5b6b85; stroke-dasharray: 4 3 } .middle { text-anchor: middle } .end { text-anchor: end }
"""


def svg(chart: Chart) -> str:
    """The plot is a window in data units that is stretched to its place, as in the report."""
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    (x0, x1), (y0, y1) = chart.x_range, chart.y_range
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">',
        f'<title id="title">{escape(chart.summary)}</title>',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#ffffff"/>',
        _text("title", LEFT, 24, f"{chart.title}: {chart.unit}"),
        _text("end", WIDTH - RIGHT, HEIGHT - 10, chart.x_name),
        *(_text("end", LEFT - 8, TOP + tick.at / 100 * high + 4, tick.label) for tick in chart.y_ticks),
        *(_text("middle", LEFT + tick.at / 100 * wide, HEIGHT - 26, tick.label) for tick in chart.x_ticks),
    ]
    for number, mark in enumerate(chart.marks):  # in two rows, as neighbours may be near
        parts.append(_text("middle", LEFT + (mark.x - x0) / (x1 - x0) * wide, TOP - 8 - 14 * (number % 2), mark.label))
    place = f'x="{LEFT}" y="{TOP}" width="{wide}" height="{high}"'
    parts.append(f'<svg {place} viewBox="{chart.view_box}" preserveAspectRatio="none">')
    parts.append(f'<path class="grid" d="{"".join(f"M{x0} {-tick.value}H{x1}" for tick in chart.y_ticks)}"/>')
    parts += [f'<path class="mark" d="M{mark.x:.6g} {-y1}V{-y0}"/>' for mark in chart.marks]
    for line in chart.lines:
        look = 'stroke-opacity="0.25"' if line.faint else 'stroke-width="2"'
        parts.append(f'<path stroke="{COLOURS[line.tone - 1]}" {look} d="{line.path}"/>')
    return "\n".join([*parts, "</svg>", "</svg>", ""])


def _text(kind: str, x: float, y: float, words: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'
