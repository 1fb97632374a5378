"""Numbers as people read them: bytes, durations, counts, shares, and round steps for an axis.

Every function takes a plain number and returns a text with its unit; `None`, NaN and infinities
become words. Knows nothing of jobs or HTML.
"""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime

from phalanx.foundation import duration_in_words, size_in_words

MISSING = "–"
_MINUS = "\u2212"


def number(value: float | None, digits: int = 3) -> str:
    """`value` with `digits` significant digits and grouped thousands; small ones in powers of ten."""
    if value is None:
        return MISSING
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    else:
        text = f"{value:,.{max(0, digits - 1 - size)}f}"
    return text.replace("-", _MINUS)


def count(value: int | float | None) -> str:
    """A whole number in full below 100,000, else rounded with its word: 3.14 million."""
    if value is None:
        return MISSING
    if abs(value) < 100_000:
        return f"{value:,.0f}".replace("-", _MINUS)
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{number(value / size)} {word}"
    return f"{number(value / 1e3)} thousand"


def size(value: float | None) -> str:
    """Bytes in binary units, as the terminal says them."""
    if value is None:
        return MISSING
    return (_MINUS if value < 0 else "") + size_in_words(abs(value))


def duration(seconds: float | None) -> str:
    """Seconds as `80.0 ms`, `12.3 s`, `3 min 12 s` or `2 h 05 min`, as the terminal says them."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    return (_MINUS if seconds < 0 else "") + duration_in_words(abs(seconds))


def clock(seconds: float) -> str:
    """Time since a start as `+0:00.3`, `+3:12` or `+2:05:07`."""
    if seconds < 10:
        return f"+0:{max(0.0, seconds):04.1f}"
    whole = round(seconds)
    if whole < 3600:
        return f"+{whole // 60}:{whole % 60:02d}"
    return f"+{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one as a percentage."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{share * 100:.{digits}f}\u00a0%".replace("-", _MINUS)


def moment(time_ns: int | None) -> str:
    """Nanoseconds since 1970 as date and time, UTC."""
    if time_ns is None:
        return MISSING
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round values within [low, high]: multiples of 1, 2 or 5 times a power of ten (Heckbert 1990)."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def tick_labels(values: list[float]) -> list[str]:
    """Labels with just the decimals that tell neighbours apart; thousands as k, millions as M."""
    if not values:
        return []
    step = min((b - a for a, b in itertools.pairwise(values)), default=abs(values[0]) or 1.0)
    largest = max(abs(value) for value in values)
    scale, suffix = next(((s, t) for s, t in ((1e9, "G"), (1e6, "M"), (1e4, "k")) if largest >= s), (1.0, ""))
    scale = 1e3 if suffix == "k" else scale
    decimals = max(0, -math.floor(math.log10(step / scale) + 1e-9)) if step > 0 else 0
    if decimals > 4:
        return [f"{value:.0e}".replace("e-0", "e-").replace("-", _MINUS) if value else "0" for value in values]
    return [f"{value / scale:.{decimals}f}{suffix if value else ''}".replace("-", _MINUS) for value in values]
