"""Which tokens of a row a masked language model must predict, and what it sees in their place (Devlin 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mask_count(ordinary: NDArray[np.int64], probability: float) -> NDArray[np.int64]:
    """Positions to predict in rows with `ordinary` tokens that are not special: the rounded share, at least one.

    A fixed number for a row, so that the number of a whole batch is known without drawing.
    """
    share = np.floor(ordinary * probability + 0.5).astype(np.int64)
    wanted: NDArray[np.int64] = np.minimum(np.maximum(share, 1), ordinary)
    return wanted


def mask_row(
    tokens: NDArray[np.int64],
    special: NDArray[np.int64],
    ordinary_ids: NDArray[np.int64],
    mask_id: int,
    probability: float,
    draws: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(what the model sees int64 [n], positions int64 [m] ascending, true tokens int64 [m]) of one row.

    Of the positions 80 % show `mask_id`, 10 % an ordinary token drawn uniformly, 10 % the true
    one. Special tokens are never chosen.
    """
    candidates = np.flatnonzero(~np.isin(tokens, special))
    count = int(mask_count(np.array([len(candidates)]), probability)[0])
    chosen = np.sort(candidates[np.argsort(draws.random(len(candidates)), kind="stable")[:count]])
    fate = draws.random(count)
    replacements = ordinary_ids[draws.integers(0, len(ordinary_ids), count)]
    seen = tokens.copy()
    seen[chosen] = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, replacements, tokens[chosen]))
    return seen, chosen, tokens[chosen]


def mask_rows(
    tokens: NDArray[np.int64],
    candidates: NDArray[np.int64],
    row: NDArray[np.int64],
    ordinary_ids: NDArray[np.int64],
    mask_id: int,
    probability: float,
    words: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """As `mask_row`, of many rows at once: `tokens` int64 [n], rows one after the other; `candidates` int64 [c],
    ascending: places that may be chosen; `row` int64 [c], from 0: whose each is; `words` uint64 [3, c]: random."""
    sizes = np.bincount(row)
    order = np.lexsort((words[0], row))
    rank = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    picked = np.sort(order[rank < mask_count(sizes, probability)[row]])  # `row` is ascending: rank i is of row[i]
    chosen = candidates[picked]
    fate = words[1, picked] / 2.0**64
    replacements = ordinary_ids[words[2, picked] % np.uint64(len(ordinary_ids))]
    seen = tokens.copy()
    seen[chosen] = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, replacements, tokens[chosen]))
    return seen, chosen, tokens[chosen]
