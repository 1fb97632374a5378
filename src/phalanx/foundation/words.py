"""Sizes and durations as people read them, with three digits: the same number reads the same everywhere.

Of finite numbers from zero up; what is missing or below zero is for the caller to say.
"""

from __future__ import annotations

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size_in_words(count: float) -> str:
    """Bytes in binary units, such as `512 bytes`, `1.50 KiB` or `114 MiB`."""
    if count < 1023.5:
        return f"{count:.0f} bytes"
    for unit in _UNITS[1:]:
        count /= 1024
        if count < 1023.5 or unit == _UNITS[-1]:
            break
    return f"{_three_digits(count)} {unit}"


def duration_in_words(seconds: float) -> str:
    """Such as `80.0 ms`, `12.3 s`, `3 min 20 s` or `2 h 05 min`."""
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1e3)} ms"
    if seconds < 99.95:
        return f"{_three_digits(seconds)} s"
    return _minutes(round(seconds))


def estimate_in_words(seconds: float) -> str:
    """As `duration_in_words`, but no finer than a second, which is more than an estimate knows."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else _minutes(whole)


def _minutes(whole: int) -> str:
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _three_digits(value: float) -> str:
    """Of a number not below 1; the limits are where rounding makes a digit more."""
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"
