"""Where among a few sorted levels each of very many numbers lies: exactly, and without sorting them.

The levels' middle range is cut into equal buckets, some 64 for each level, so that most hold no level, and a number in
one of these is placed by one subtraction and one product. Rounding keeps the order of numbers, and a level is put into
its bucket by the same arithmetic: a level in a lower bucket is less than the number, whatever was rounded. Within a
bucket that holds levels the number is searched among these alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BUCKETS_A_LEVEL = 64
_MOST_BUCKETS = 1 << 20
_TAIL, _FAR = 0.001, 4  # this share at each end lies outside the buckets where they would be 4 times as wide for it


class Placing:
    """Among `levels` [k], floats, ascending and distinct. Cells, 2k + 1: cell 2i is below level i and above the one
    before, cell 2i + 1 is level i itself."""

    def __init__(self, levels: NDArray[Any]) -> None:
        self.levels = levels.astype(np.float64)  # with float32 too: one arithmetic for levels and all numbers
        self.cells = 2 * len(levels) + 1
        self._buckets = 1 << min(max(len(levels) * _BUCKETS_A_LEVEL, 2).bit_length(), _MOST_BUCKETS.bit_length() - 1)
        self._low, self._high, self._scale = self._range()
        held = np.bincount(self._bucket(self.levels), minlength=self._buckets)
        self._held = np.minimum(held, 2).astype(np.uint8)
        self._first = np.concatenate([[0], np.cumsum(held)])  # of each bucket, how many levels lie in lower ones
        self._cell = (2 * self._first).astype(np.int32)

    def _range(self) -> tuple[float, float, float]:
        """Of the buckets, and how many there are to a unit."""
        if not len(self.levels):
            return 0.0, 0.0, 0.0
        low, high = float(self.levels[0]), float(self.levels[-1])
        tail = int(len(self.levels) * _TAIL)
        inner_low, inner_high = float(self.levels[tail]), float(self.levels[len(self.levels) - 1 - tail])
        if high - low > _FAR * (inner_high - inner_low) > 0:
            low, high = inner_low, inner_high
        scale = (self._buckets - 1) / (high - low) if high > low else 0.0
        if not (np.isfinite(scale) and np.isfinite(high - low)):  # then all share a bucket and are searched for
            return low, low, 0.0
        return low, high, scale

    def _bucket(self, numbers: NDArray[Any]) -> NDArray[np.int64]:
        away = np.clip(numbers, np.float64(self._low), np.float64(self._high))
        away -= self._low
        away *= self._scale
        found: NDArray[np.int64] = away.astype(np.int64)
        return found

    def cells_of(self, numbers: NDArray[Any]) -> NDArray[np.int32]:
        """The cell of each of `numbers` [n], finite."""
        bucket = self._bucket(numbers)
        cells: NDArray[np.int32] = self._cell[bucket]
        held = self._held[bucket]
        hard = np.flatnonzero(held)
        searched, first = numbers[hard], cells[hard] >> 1
        level = self.levels[first]
        above = level < searched
        found = 2 * (first + above) + (level == searched)
        further = np.flatnonzero(above & (held[hard] > 1))
        found[further] = self._search(searched[further], bucket[hard[further]])
        cells[hard] = found
        return cells

    def _search(self, numbers: NDArray[Any], bucket: NDArray[np.int64]) -> NDArray[np.int64]:
        """By halving, all at once, among the levels of each one's bucket."""
        first, last = self._first[bucket] + 1, self._first[bucket + 1]  # the first level has been passed
        while True:
            going = np.flatnonzero(first < last)
            if not len(going):
                break
            middle = (first[going] + last[going]) // 2
            higher = self.levels[middle] < numbers[going]
            first[going[higher]] = middle[higher] + 1
            last[going[~higher]] = middle[~higher]
        cells: NDArray[np.int64] = first * 2
        inside = first < len(self.levels)
        cells[inside] += self.levels[first[inside]] == numbers[inside]
        return cells
