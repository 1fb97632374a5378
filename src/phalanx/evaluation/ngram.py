"""Byte n-gram tables with interpolated Witten-Bell smoothing: the baselines that a decoder must beat.

    p_n(b | c) = (count(c b) + types(c) p_{n-1}(b | c')) / (count(c) + types(c))

with c' the context without its oldest byte, types(c) the number of different symbols seen after c,
and p_0 uniform (Witten & Bell 1991, method C; Chen & Goodman 1999, eq. 17). Symbols are the 256
bytes and the end of a document. Six symbols of nine bits fit in 64, so a context is one integer,
exactly, and counting is sorting. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data import Vocabulary

END = 256
SYMBOLS = 257
MAX_ORDER = 7  # of nine-bit symbols in 64 bits
_BITS = np.uint64(9)


def witten_bell(
    train: NDArray[np.uint16],
    text: NDArray[np.uint16],
    targets: NDArray[np.int64],
    orders: Collection[int],
    progress: Callable[[float], None] | None = None,
) -> dict[int, NDArray[np.float64]]:
    """Nats that each symbol `text[targets]` costs, float64 [m], under the n-gram of each order.

    `train`, `text`: symbols 0..256. An order-n model sees the n - 1 symbols before a target; before
    the text lies an end of document. Raises ValueError for an order below 1 or above 7.
    """
    if not orders or min(orders) < 1 or max(orders) > MAX_ORDER:
        raise ValueError(f"orders from 1 to {MAX_ORDER}, not {sorted(orders)}")
    padding = np.full(max(orders) - 1, END, np.uint16)
    train, text = np.concatenate([padding, train]), np.concatenate([padding, text])
    probability = np.full(len(targets), 1 / SYMBOLS)
    costs: dict[int, NDArray[np.float64]] = {}
    for order in range(1, max(orders) + 1):
        grams, cumulated = _count(_pack(train, np.arange(len(padding), len(train)), order))
        asked = _pack(text, targets + len(padding), order)
        probability = _interpolate(grams, cumulated, asked, probability)
        if order in orders:
            costs[order] = -np.log(probability)
        if progress:
            progress(order / max(orders))
    return costs


def _pack(symbols: NDArray[np.uint16], ends: NDArray[np.int64], order: int) -> NDArray[np.uint64]:
    """The `order` symbols up to and with each end as one integer, the oldest in the highest bits."""
    keys = np.zeros(len(ends), np.uint64)
    for back in range(order - 1, -1, -1):
        keys <<= _BITS
        keys |= symbols[ends - back]
    return keys


def _count(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Different keys, ascending, [u], and how many keys lie before each, [u + 1]. Sorts in place."""
    keys.sort()
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.int64)
    return keys[starts], np.append(starts, len(keys))


def _interpolate(
    grams: NDArray[np.uint64], cumulated: NDArray[np.int64], asked: NDArray[np.uint64], lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    context = (asked >> _BITS) << _BITS
    # Neighbouring questions find neighbouring places: sorted ones are several times faster.
    by_key = np.argsort(asked)
    place, first, last = (np.empty(len(asked), np.int64) for _ in range(3))
    place[by_key] = np.searchsorted(grams, asked[by_key])
    first[by_key] = np.searchsorted(grams, context[by_key])
    last[by_key] = np.searchsorted(grams, context[by_key] + (np.uint64(1) << _BITS))
    total = cumulated[last] - cumulated[first]
    types = last - first
    found = np.zeros(len(asked), bool)
    inside = place < len(grams)
    found[inside] = grams[place[inside]] == asked[inside]
    count = np.where(found, cumulated[np.minimum(place + 1, len(grams))] - cumulated[place], 0)
    seen = total > 0
    probability: NDArray[np.float64] = np.where(seen, (count + types * lower) / np.where(seen, total + types, 1), lower)
    return probability


def symbols_of(tokens: NDArray[Any], vocabulary: Vocabulary) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """The symbols that tokens stand for, uint16 [s], and where in them each token begins, int64 [n + 1].

    The end-of-document token is the symbol 256. Raises ValueError for a vocabulary that loses bytes.
    """
    if not vocabulary.is_lossless:
        raise ValueError(f"a {vocabulary.kind} vocabulary does not give the bytes back")
    spelled = [list(piece) for piece in vocabulary.pieces]
    if vocabulary.eos_id is not None:
        spelled[vocabulary.eos_id] = [END]
    lengths = np.array([len(symbols) for symbols in spelled], np.int64)
    flat = np.array([symbol for symbols in spelled for symbol in symbols], np.uint16)
    begins = np.cumsum(lengths) - lengths
    ids = np.asarray(tokens, np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths[ids])]).astype(np.int64)
    offset = np.repeat(begins[ids] - starts[:-1], lengths[ids])
    return flat[np.arange(starts[-1]) + offset], starts
