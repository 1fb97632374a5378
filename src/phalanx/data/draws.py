"""Randomness that is a function of its key: orders and draws that need no state and no memory.

An order is a keyed permutation of 0..n-1 that any index can be asked for at any time; a draw comes
from the counter-based generator Philox (Salmon et al. 2011) at a place named by the caller. Nothing
depends on how many processes ask, or in which order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
# Distinct uses of one seed never share a stream.
MASKS, ORDER, SHIFT, VALIDATION_MASKS, VALIDATION_ORDER = 1, 2, 3, 4, 5
DOCUMENTS, PACKED_ROWS, SAMPLE, BUCKETS = 6, 7, 8, 9


def generator(seed: int, purpose: int, first: int = 0, second: int = 0) -> np.random.Generator:
    """Of the stream (seed, purpose) at the place (first, second); up to 2^128 draws lie between two places."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, first, second]))


def words(seed: int, purpose: int, first: int, places: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
    """`count` random words of 64 bits for each of `places`, uint64 [count, n]: each a function of seed, purpose,
    `first` and the place alone, and much cheaper than a generator a place."""
    keys = generator(seed, purpose, first).integers(0, 2**64, (count, 2), dtype=np.uint64)
    base = places.astype(np.uint64)
    return np.stack([_mix(_mix(base ^ one) + other) for one, other in keys])


class Permutation:
    """A permutation of 0..n-1 keyed by (seed, purpose, epoch, part), in constant memory.

    A balanced Feistel network over the next power of four, walked until it lands below n
    (Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains"); under four steps on average.
    """

    def __init__(self, n: int, seed: int, purpose: int, epoch: int = 0, part: int = 0) -> None:
        self._n = n
        self._half = np.uint64(max(1, ((max(n, 2) - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = generator(seed, purpose, epoch, part).integers(0, 2**64, _ROUNDS, dtype=np.uint64)

    def __call__(self, index: NDArray[Any]) -> NDArray[np.int64]:
        """Images of `index`, integers [m] in 0..n-1."""
        values = self._walk(np.asarray(index, np.uint64))
        while (outside := values >= self._n).any():
            values[outside] = self._walk(values[outside])
        return values.astype(np.int64)

    def _walk(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._half, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return (left << self._half) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele et al. 2014); unsigned arithmetic wraps."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
