"""Sums of floats without rounding, so that parts added in any order and grouping give the same bits.

Every finite double is a whole number of units of 2^-1074 (IEEE 754). A sum is kept as digits of 32 bits, least first,
of which numpy adds a million at once: digits below 2^32 add up exactly in a double while their sum is below 2^53.
The same idea with wider digits is Neal's "small superaccumulator" (arXiv:1505.05571).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BITS = 32
_BASE = float(1 << _BITS)
_CHUNK = 1 << 20  # digits that a double adds exactly: 2^20 below 2^32 are below 2^52
_ADDITIONS = 1 << 10  # of chunks, until digits of 64 bits must be carried
_RANGE = 900  # binary exponents apart, at most, of what is taken into digits together: nothing may underflow
_LOWEST = -34  # the digit of 2^-1088, below the least subnormal


class ExactSums:
    """Of each of `cells`, the sum of all that was added to it. States of the same values are equal, bit by bit.

    Infinities and NaN are summed beside the digits, as floats: they win.
    """

    def __init__(self, cells: int = 1) -> None:
        self.cells = cells
        self._low = 0  # index of the first digit: its unit is 2^(32 low)
        self._digits = np.zeros((0, cells), np.int64)
        self._special: NDArray[np.float64] | None = None
        self._additions = 0

    @classmethod
    def of(cls, values: ArrayLike) -> ExactSums:
        """One cell, of any number of values."""
        made = cls()
        made.add(values)
        return made

    def add(self, values: ArrayLike, cells: NDArray[np.integer[Any]] | None = None) -> ExactSums:
        """Floats [n], each to the cell of `cells` [n]; without `cells`, to the first. Returns itself."""
        numbers = np.asarray(values, np.float64).reshape(-1)
        for start in range(0, len(numbers), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._add(numbers[part], None if cells is None else cells[part])
        return self

    def _add(self, values: NDArray[np.float64], cells: NDArray[np.integer[Any]] | None) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            if self._special is None:
                self._special = np.zeros(self.cells)
            at = np.zeros(len(values), np.int64) if cells is None else cells
            with np.errstate(invalid="ignore"):  # the sum of both infinities is NaN, as it should be
                np.add.at(self._special, at[~finite], values[~finite])
            values, cells = values[finite], None if cells is None else cells[finite]
        apart = _exponents_apart(values)
        if apart > _RANGE:
            _, exponents = np.frexp(values)
            middle = int(exponents[values != 0].min()) + _RANGE // 2
            small = (exponents < middle) & (values != 0)
            for chosen in (small, ~small & (values != 0)):
                self._add(values[chosen], None if cells is None else cells[chosen])
            return

        def totals(digits: NDArray[np.float64]) -> NDArray[np.float64]:
            if cells is None:
                return np.append(digits.sum(), np.zeros(self.cells - 1))
            return np.bincount(cells, digits, self.cells).astype(np.float64, copy=False)

        self._take(values, totals)

    def _take(self, values: NDArray[np.float64], totals: Any) -> None:
        """Into digits, from the highest down until nothing is left; `totals` sums a digit of each value by cell."""
        largest = float(np.abs(values).max(initial=0.0))
        if largest == 0:
            return
        if self._additions >= _ADDITIONS:
            self._carry()
        self._additions += 1
        digit = math.frexp(largest)[1] // _BITS
        rest = np.ldexp(values, -_BITS * digit)
        whole = np.empty_like(rest)
        while True:
            np.trunc(rest, out=whole)
            self._digit(digit)[:] += totals(whole).astype(np.int64)
            rest -= whole
            if not rest.any():
                return
            rest *= _BASE
            digit -= 1

    def _digit(self, index: int) -> NDArray[np.int64]:
        """The row of a digit, made if it is not there."""
        if not len(self._digits):
            self._low = index
        below, above = max(self._low - index, 0), max(index - self._low - len(self._digits) + 1, 0)
        if below or above:
            self._digits = np.pad(self._digits, ((below, above), (0, 0)))
            self._low -= below
        row: NDArray[np.int64] = self._digits[index - self._low]
        return row

    def _carry(self) -> None:
        """To the one form that a sum has: digits from 0 below 2^32, but the highest, which has the sign; none spare."""
        self._additions = 0
        index = 0
        while index < len(self._digits):
            over = self._digits[index] >> _BITS
            last = index == len(self._digits) - 1
            # The highest stays whole where it fits 31 bits and a sign in every cell.
            if last and bool(((self._digits[index] >= -(1 << 31)) & (self._digits[index] < (1 << 31))).all()):
                break
            self._digit(self._low + index + 1)[:] += over
            self._digits[index] -= over << _BITS
            index += 1
        while len(self._digits) > 1:
            signed = (self._digits[-1] << _BITS) + self._digits[-2]
            if not bool(((signed >= -(1 << 31)) & (signed < (1 << 31))).all()):
                break
            self._digits = self._digits[:-1].copy()
            self._digits[-1] = signed
        spare = 0
        while spare < len(self._digits) and not self._digits[spare].any():
            spare += 1
        self._digits = self._digits[spare:]
        self._low = self._low + spare if len(self._digits) else 0

    def merge(self, other: ExactSums) -> ExactSums:
        """Add all of `other`, which has as many cells. Returns itself."""
        if other.cells != self.cells:
            raise ValueError(f"sums of {self.cells} cells and of {other.cells} do not merge")
        self._carry()
        other._carry()
        self._additions = 2
        for index, row in enumerate(other._digits):
            self._digit(other._low + index)[:] += row
        if other._special is not None:
            with np.errstate(invalid="ignore"):
                self._special = other._special + (0.0 if self._special is None else self._special)
        return self

    def spread(self, places: NDArray[np.int64], cells: int) -> ExactSums:
        """The same sums among more `cells`: what is in cell i here is in cell places[i] there."""
        self._carry()
        made = ExactSums(cells)
        made._low, made._additions = self._low, 1
        made._digits = np.zeros((len(self._digits), cells), np.int64)
        made._digits[:, places] = self._digits
        if self._special is not None:
            made._special = np.zeros(cells)
            made._special[places] = self._special
        return made

    def values(self) -> NDArray[np.float64]:
        """float64 [cells]: each sum, rounded once to the nearest double; infinite beyond the largest."""
        wholes, shift = self._wholes()
        found = np.array([_rounded(each, shift) for each in wholes], np.float64)
        return found if self._special is None else np.where(self._special == 0, found, self._special)

    def fractions(self) -> list[Fraction]:
        """Of each cell, the sum itself. Raises OverflowError when something infinite or NaN was added."""
        if self._special is not None and self._special.any():
            raise OverflowError("a sum that is not finite is no fraction")
        wholes, shift = self._wholes()
        unit = Fraction(2) ** shift
        return [each * unit for each in wholes]

    def _wholes(self) -> tuple[list[int], int]:
        """Each sum as a whole number of units of 2^shift."""
        self._carry()
        if not len(self._digits):
            return [0] * self.cells, 0
        whole = self._digits[-1].astype(object)
        for row in self._digits[-2::-1]:
            whole = (whole << _BITS) + row.astype(object)
        return whole.tolist(), self._low * _BITS

    def __float__(self) -> float:
        """Of one cell."""
        (value,) = self.values()
        return float(value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExactSums):
            return NotImplemented
        mine, theirs = self.parts(), other.parts()
        return all(np.array_equal(mine[name], theirs[name], equal_nan=name == "special") for name in mine)

    __hash__ = None  # type: ignore[assignment]

    def parts(self) -> dict[str, NDArray[Any]]:
        """All there is, for another process: `low` int64 [1], `digits` int64 [digits, cells], `special` float64."""
        self._carry()
        special = np.zeros(0) if self._special is None else self._special
        return {"low": np.array([self._low]), "digits": self._digits, "special": special}

    @classmethod
    def of_parts(cls, parts: Mapping[str, NDArray[Any]], cells: int) -> ExactSums:
        """What `parts` gave. Raises ValueError for what it cannot have given."""
        low, digits, special = parts["low"], parts["digits"], parts["special"]
        if digits.ndim != 2 or digits.shape[1] != cells or digits.dtype != np.int64 or low.shape != (1,):
            raise ValueError(f"no sums of {cells} cells")
        if special.shape not in ((0,), (cells,)) or not _LOWEST <= int(low[0]) <= -_LOWEST or len(digits) > 80:
            raise ValueError(f"no sums of {cells} cells")
        made = cls(cells)
        made._low, made._digits = int(low[0]), digits.copy()
        made._special = special.astype(np.float64) if len(special) else None
        made._additions = 1
        return made


def _rounded(whole: int, shift: int) -> float:
    """whole * 2^shift."""
    try:
        return float(whole << shift) if shift >= 0 else whole / (1 << -shift)
    except OverflowError:
        return math.inf if whole > 0 else -math.inf


def _exponents_apart(values: NDArray[np.float64]) -> int:
    """How far the binary exponents of the largest and the least of what is not 0 lie apart."""
    sizes = np.abs(values)
    largest = float(sizes.max(initial=0.0))
    least = float(sizes.min(initial=math.inf))
    if least == 0:
        least = float(np.where(sizes > 0, sizes, math.inf).min())
    return math.frexp(largest)[1] - math.frexp(least)[1] if largest > 0 else 0
