"""The cache beside tensors that are simply put one after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.models.cache import Cache

LAYERS, HEADS, LENGTH, WIDTH = 2, 3, 9, 4


def some(rows: int, length: int) -> torch.Tensor:
    return torch.randn(rows, HEADS, length, WIDTH)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_holds_what_concatenation_holds_however_rows_are_reordered(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 4))
    cache = Cache(LAYERS, rows, HEADS, LENGTH, WIDTH)
    held = [(some(rows, 0), some(rows, 0)) for _ in range(LAYERS)]
    tokens = torch.zeros(rows, 0, dtype=torch.int64)
    while cache.used < LENGTH:
        length = data.draw(st.integers(1, LENGTH - cache.used))
        for layer in range(LAYERS):
            new = some(rows, length), some(rows, length)
            held[layer] = tuple(torch.cat(pair, 2) for pair in zip(held[layer], new, strict=True))  # type: ignore[assignment]
            for found, expected in zip(cache.extend(layer, *new), held[layer], strict=True):
                assert torch.equal(found, expected)
        read = torch.randint(100, (rows, length))
        tokens = torch.cat([tokens, read], 1)
        assert torch.equal(cache.note(read), tokens)
        cache.advance(length)
        order = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=5))
        cache.reorder(torch.tensor(order))
        held = [(keys[order], values[order]) for keys, values in held]
        tokens = tokens[order]
        rows = len(order)
        assert cache.rows == rows


def test_what_does_not_fit_is_refused() -> None:
    cache = Cache(LAYERS, 1, HEADS, LENGTH, WIDTH)
    cache.extend(0, some(1, 6), some(1, 6))
    cache.advance(6)
    with pytest.raises(ValueError, match="9 tokens has no room for 10"):
        cache.extend(0, some(1, 4), some(1, 4))
