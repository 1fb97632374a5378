from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.pages.quantities import clock, count, duration, moment, number, percent, size, tick_labels, ticks

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.8071, "1.81"), (0.020, "0.0200"), (12345.6, "12,346"), (0, "0"), (-2.5, "−2.50"), (3e-6, "3e−6"), (None, "–")],
)
def test_a_number_has_three_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_what_is_no_number_is_said_in_words() -> None:
    assert number(math.nan) == "not a number"
    assert number(math.inf) == "infinite"
    assert percent(math.nan) == duration(math.inf) == duration(None) == size(None) == count(None) == "–"


@given(finite)
def test_a_number_reads_back_to_within_its_digits(value: float) -> None:
    read = float(number(value).replace(",", "").replace("−", "-"))
    assert read == pytest.approx(value, rel=6e-3, abs=1e-300)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000004, "0 µs"),
        (0.08, "80.0 ms"),
        (-0.08, "−80.0 ms"),
        (12.34, "12.3 s"),
        (99.99, "1 min 40 s"),
        (192, "3 min 12 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_use_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0 bytes"),
        (-1536, "−1.50 KiB"),
        (1023, "1023 bytes"),
        (1536, "1.50 KiB"),
        (114 << 20, "114 MiB"),
        (3 << 40, "3.00 TiB"),
    ],
)
def test_sizes_are_binary(bytes_: int, text: str) -> None:
    assert size(bytes_) == text


def test_counts_become_words_when_they_are_large() -> None:
    assert [count(99_999), count(301_222), count(4_800_000), count(3.1e11)] == [
        "99,999",
        "301 thousand",
        "4.80 million",
        "310 billion",
    ]


def test_the_clock_counts_from_a_start() -> None:
    assert [clock(0.42), clock(72), clock(7507)] == ["+0:00.4", "+1:12", "+2:05:07"]


def test_a_moment_is_utc() -> None:
    made = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
    assert moment(int(made.timestamp()) * 10**9) == "2026-09-21 14:13:20 UTC"
    assert moment(None) == "–"


@given(finite, st.floats(min_value=1e-6, max_value=1e9), st.integers(2, 10))
def test_ticks_are_inside_even_and_round(low: float, span: float, wanted: int) -> None:
    high = low + span
    if high - low < abs(low) * 1e-6:
        return  # below the resolution of a chart's numbers
    found = ticks(low, high, wanted)
    slack = (high - low) * 1e-6
    assert 1 <= len(found) <= 2 * wanted + 2
    assert all(low - slack <= value <= high + slack for value in found)
    gaps = [b - a for a, b in itertools.pairwise(found)]
    if gaps:
        mantissa = gaps[0] / 10 ** math.floor(math.log10(gaps[0] * (1 + 1e-6)))
        assert min(abs(mantissa - factor) for factor in (1, 2, 5, 10)) < 1e-2 or gaps[0] < 1e-10
        assert max(gaps) - min(gaps) <= slack + 2e-12


def test_ticks_of_nothing() -> None:
    assert ticks(math.nan, 1) == []
    assert ticks(3, 3) == [3]
    assert tick_labels([]) == []


def test_tick_labels_tell_neighbours_apart() -> None:
    assert tick_labels([0, 0.005, 0.01]) == ["0.000", "0.005", "0.010"]
    assert tick_labels([0, 10_000, 20_000]) == ["0", "10k", "20k"]
    assert tick_labels([0, 500_000, 1_000_000]) == ["0.0", "0.5M", "1.0M"]
    assert tick_labels([0, 2e-5, 4e-5]) == ["0", "2e−5", "4e−5"]


@given(st.floats(min_value=0, max_value=1e9), st.floats(min_value=1e-3, max_value=1e9))
def test_labels_of_an_axis_are_all_different(low: float, span: float) -> None:
    if span < low * 1e-3:
        return
    labels = tick_labels(ticks(low, low + span))
    assert len(set(labels)) == len(labels)
