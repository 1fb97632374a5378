"""A sum of floats without rounding, so that parts added in any order and grouping give the same bits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Every finite double is a whole multiple of 2^-1074, the least subnormal one (IEEE 754).
_SCALE = 1074


@dataclass(frozen=True)
class ExactSum:
    """`units`: the sum of all finite values in units of 2^-1074; `special`: the sum of the infinite and NaN ones."""

    units: int = 0
    special: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> ExactSum:
        """Of any number of values."""
        units, special = 0, 0.0
        for value in values:
            if math.isfinite(value):
                numerator, denominator = float(value).as_integer_ratio()
                units += numerator << (_SCALE + 1 - denominator.bit_length())
            else:
                special += float(value)  # not numpy's, which stays numpy's
        return cls(units, special)

    def __add__(self, other: ExactSum) -> ExactSum:
        return ExactSum(self.units + other.units, self.special + other.special)

    def __float__(self) -> float:
        """The sum, rounded once to the nearest double; infinite beyond the largest."""
        if self.special != 0:
            return self.special
        try:
            return self.units / (1 << _SCALE)
        except OverflowError:
            return math.inf if self.units > 0 else -math.inf
