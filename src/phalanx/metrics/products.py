"""Sums of products of doubles without rounding, and what spreads about means follow from them in whole numbers.

The product of two doubles is one double and what that lacks (Dekker 1971, Veltkamp's split). From exact sums of x and
x squared the variance follows exactly, however far from 0 it lies; so it does not depend on the order either.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.errors import BadInput
from phalanx.metrics.sums import ExactSums

CHUNK = 1 << 15  # numbers that are taken together: what is made of them stays in a core's cache
LARGEST = 1e100  # the product of three is a double
_LEAST = Fraction(1, 10**290)
_SPLIT = float((1 << 27) + 1)

Floats = NDArray[np.float64]


def numbers(name: str, data: arrays.ArrayLike, outputs: int | None = None) -> Floats:
    """Float64 [n], or [n, outputs], finite. Raises BadInput for others, and beyond 1e100."""
    if outputs is None:
        found = arrays.column(name, data)
    else:
        found = arrays.array(name, data)
        if found.ndim != 2 or found.shape[1] != outputs:
            raise BadInput(f"{name} has the shape {found.shape}, not [n, {outputs}]", remedy="give all outputs")
    wide: Floats = arrays.finite(name, arrays.floats(name, found)).astype(np.float64, copy=False)
    return bounded(name, wide)


def bounded(name: str, found: Floats) -> Floats:
    """Itself. Raises BadInput when something in it is so large that products with it may be beyond a double."""
    if found.size and max(float(found.max()), -float(found.min())) > LARGEST:
        raise BadInput(
            f"{name} holds {float(np.abs(found).max()):g}; beyond 1e100 products overflow", remedy="scale it down"
        )
    return found


def add_product(sums: ExactSums, cells: NDArray[np.int64] | None, *factors: Floats | None) -> None:
    """Of arrays [n], the product; None is 1. Exact down to products of 1e-290, below which the last digits are lost."""
    given = [factor for factor in factors if factor is not None]
    terms = given[:1] or [np.ones(0)]
    for factor in given[1:]:
        terms = [part for term in terms for part in _product(term, factor)]
    for term in terms:
        sums.add(term, cells)


def total(weights: Floats | None, *factors: Floats) -> Fraction:
    """Of the product of arrays [n] and weights [n]."""
    sums = ExactSums()
    for start in range(0, len(factors[0]), CHUNK):
        part = slice(start, start + CHUNK)
        add_product(sums, None, *(factor[part] for factor in factors), None if weights is None else weights[part])
    return sums.fractions()[0]


def spreads(products: ExactSums, one: ExactSums, other: ExactSums, weight: Fraction) -> list[Fraction]:
    """Of each cell, the sum of w (x - mean of x) (y - mean of y), from the sums of wxy, wx, wy and w. 0 where it is so
    small that the products did not keep it: below 1e-290 for each weight of 1."""
    each = zip(products.fractions(), one.fractions(), other.fractions(), strict=True)
    found = [both - x * y / weight for both, x, y in each]
    return [spread if abs(spread) > weight * _LEAST else Fraction(0) for spread in found]


def root(square: Fraction) -> Fraction:
    """To 64 digits of the binary system at least; of what is not negative."""
    spare = max(0, 160 - (square.numerator.bit_length() - square.denominator.bit_length())) // 2
    scaled = (square.numerator << (2 * spare)) // square.denominator
    return Fraction(math.isqrt(scaled), 1 << spare)


def rounded(exact: Fraction) -> float:
    """To the nearest double; infinite beyond the largest."""
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _product(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """The rounded product, and what it lacks."""
    rounded = one * other
    high, low = _halves(one)
    other_high, other_low = _halves(other)
    return rounded, low * other_low - (((rounded - high * other_high) - low * other_high) - high * other_low)


def _halves(whole: Floats) -> tuple[Floats, Floats]:
    """Two of 26 bits, whose products are exact."""
    far = whole * _SPLIT
    high = far - (far - whole)
    return high, whole - high


def as_parts(**named: ExactSums) -> dict[str, NDArray[Any]]:
    """Of several sums, for a state."""
    return {f"{name}.{part}": data for name, sums in named.items() for part, data in sums.parts().items()}


def of_parts(parts: Any, name: str, cells: int) -> ExactSums:
    """The sum that `as_parts` gave."""
    own = {key.removeprefix(f"{name}."): data for key, data in parts.items() if key.startswith(f"{name}.")}
    return ExactSums.of_parts(own, cells)
