from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.pages.bars import keys, share, stacked
from phalanx.pages.chart import Line, Mark, chart, smooth

values = st.floats(min_value=-1e6, max_value=1e6)


def _read(path: str) -> list[tuple[float, float]]:
    """The points of a path, as the page's script reads them."""
    numbers = [float(text) for text in re.findall(r"-?\d[\d.]*(?:e[+-]?\d+)?", path)]
    return [(x, -y) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


@given(st.lists(values, min_size=1, max_size=50))
def test_a_path_holds_the_numbers_themselves(ys: list[float]) -> None:
    points = tuple((float(step), y) for step, y in enumerate(ys, 1))
    read = _read(Line("loss", points, 1).path)
    assert [x for x, _ in read] == [x for x, _ in points]
    assert [y for _, y in read] == pytest.approx(ys, rel=1e-5)


def test_a_curve_breaks_where_a_value_is_no_number() -> None:
    line = Line("loss", ((1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf), (5, 0.5)), 1, dots=True)
    assert line.path == "M1 -2M3 -1M5 -0.5"
    assert line.dot_path == "M1 -2h0M3 -1h0M5 -0.5h0"
    assert line.last == "0.500"


def test_no_finite_point_is_no_chart() -> None:
    assert chart("Loss", "nats", [Line("a", (), 1), Line("b", ((1, math.nan),), 2)]) is None


@given(st.lists(values, min_size=1, max_size=30))
def test_every_point_lies_inside_the_window(ys: list[float]) -> None:
    picture = chart("Loss", "nats", [Line("a", tuple((float(i), y) for i, y in enumerate(ys)), 1)])
    assert picture is not None
    x, top, width, height = (float(part) for part in picture.view_box.split())
    slack = (abs(top) + height) * 1e-6
    assert all(x <= i <= x + width for i in range(len(ys)))
    assert all(top - slack <= -y <= top + height + slack for y in ys)
    assert all(-1e-6 <= tick.at <= 100 + 1e-6 for tick in (*picture.x_ticks, *picture.y_ticks))


def test_one_point_has_air_around_it() -> None:
    picture = chart("Loss", "nats", [Line("a", ((7.0, 3.0),), 1)], marks=[Mark(7, "again")])
    assert picture is not None
    assert picture.x_range == (6, 8)
    assert picture.y_range[0] < 3 < picture.y_range[1]
    assert picture.marks[0].label == "again"


def test_a_chart_from_zero_starts_at_zero_even_when_all_is_zero() -> None:
    picture = chart("Rate", "", [Line("a", ((1.0, 0.0), (2.0, 0.0)), 1)], from_zero=True)
    assert picture is not None
    assert picture.y_range == (0, 1)
    assert picture.summary == "Rate"


def test_the_summary_says_where_each_line_ends() -> None:
    lines = [Line("raw", ((1, 9.0),), 1, faint=True), Line("held-out", ((1, 2.0), (2, 1.5)), 2)]
    picture = chart("Loss", "nats", lines)
    assert picture is not None
    assert picture.summary == "Loss in nats by step: held-out ends at 1.50"


@given(st.lists(st.floats(min_value=-100, max_value=100), min_size=1, max_size=40), st.integers(1, 15))
def test_smoothing_stays_between_the_extremes_and_keeps_the_steps(ys: list[float], window: int) -> None:
    points = [(float(i), y) for i, y in enumerate(ys)]
    smoothed = smooth(points, window)
    assert [x for x, _ in smoothed] == [x for x, _ in points]
    assert all(min(ys) - 1e-9 <= y <= max(ys) + 1e-9 for _, y in smoothed)


def test_smoothing_a_straight_line_changes_nothing_and_skips_what_is_no_number() -> None:
    assert smooth([(i, 2.0 * i) for i in range(9)], 5) == tuple((i, 2.0 * i) for i in range(9))
    assert [y for _, y in smooth([(0, 1.0), (1, math.nan), (2, 3.0)], 3)][::2] == [1.0, 3.0]


@given(st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=6))
def test_stacked_pieces_follow_each_other_and_fill_their_share(amounts: list[float]) -> None:
    parts = {f"p{index}": amount for index, amount in enumerate(amounts)}
    full = sum(amounts) or 1.0
    bar = stacked("rank 0", parts, full, dict.fromkeys(parts, 1), dict.fromkeys(parts, ""), "")
    assert sum(piece.width for piece in bar.pieces) <= 100.01
    assert all(b.start >= a.start + a.width - 0.01 for a, b in zip(bar.pieces, bar.pieces[1:], strict=False))


def test_shares_of_nonsense_are_nothing() -> None:
    assert share(math.nan, 1) == share(1, 0) == share(-1, 1) == 0
    assert share(5, 1) == 100


def test_a_legend_names_each_piece_once() -> None:
    bars = [stacked(str(i), {"a": 1, "b": 1}, 2, {"a": 1, "b": 2}, {"a": "", "b": ""}, "") for i in range(3)]
    assert [(key.name, key.tone) for key in keys(bars)] == [("a", 1), ("b", 2)]
