from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.foundation import duration_in_words, estimate_in_words, size_in_words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (37.26 * 2**20, "37.3 MiB"),
        (99.96 * 2**20, "100 MiB"),
        (114 << 20, "114 MiB"),
        (1023.7 * 2**20, "1.00 GiB"),
        (9.996 * 2**30, "10.0 GiB"),
        (3 << 40, "3.00 TiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_sizes_are_binary_and_have_three_digits(count: float, words: str) -> None:
    assert size_in_words(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (4e-4, "400 µs"),
        (0.08, "80.0 ms"),
        (0.9996, "1.00 s"),
        (9.996, "10.0 s"),
        (12.34, "12.3 s"),
        (99.99, "1 min 40 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (7530, "2 h 05 min"),
    ],
)
def test_durations_use_the_unit_that_fits(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (3.4, "3 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (7530, "2 h 05 min")]
)
def test_an_estimate_is_no_finer_than_a_second(seconds: float, words: str) -> None:
    assert estimate_in_words(seconds) == words


SIZES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
SPANS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def read_back(words: str, units: dict[str, float]) -> float:
    parts = words.split()
    return sum(float(value) * units[unit] for value, unit in zip(parts[::2], parts[1::2], strict=True))


@given(st.floats(0, 2**50))
def test_a_size_reads_back_to_within_its_digits(count: float) -> None:
    assert read_back(size_in_words(count), SIZES) == pytest.approx(count, rel=6e-3, abs=0.5)


@given(st.floats(0, 1e7))
def test_a_duration_reads_back_to_within_its_digits(seconds: float) -> None:
    near = 60 if seconds > 3599 else 0.51 if seconds > 99 else 5e-7
    assert read_back(duration_in_words(seconds), SPANS) == pytest.approx(seconds, rel=6e-3, abs=near)


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_the_longer_of_two_never_reads_as_the_shorter(one: float, other: float) -> None:
    short, long = sorted([one, other])
    assert read_back(duration_in_words(short), SPANS) <= read_back(duration_in_words(long), SPANS)
