"""Keys and values of the tokens that a causal model has read, so that each is read once.

Allocated once, written in place. Knows no model: layers are numbers, rows are texts (or beams).
"""

from __future__ import annotations

import torch
from torch import Tensor


class Cache:
    """Keys and values [rows, heads, length, width] of each layer, and the tokens [rows, length] they are of.

    `used`: tokens that are in it, of all `length`.
    """

    def __init__(
        self, layers: int, rows: int, heads: int, length: int, width: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.length, self.used = length, 0
        self._tokens = torch.zeros(rows, length, dtype=torch.int64)
        self._keys, self._values = torch.empty(2, layers, rows, heads, length, width, dtype=dtype).unbind()

    @property
    def rows(self) -> int:
        """How many texts (or beams) there are."""
        return self._keys.shape[1]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of the layer, [rows, heads, used + T, width], with the new ones, of T tokens, last.

        Views of the cache. Raises ValueError when they do not fit.
        """
        end = self.used + key.shape[2]
        if end > self.length:
            raise ValueError(f"a cache of {self.length} tokens has no room for {end}")
        keys, values = self._keys[layer, :, :, :end], self._values[layer, :, :, :end]
        keys[:, :, self.used :] = key
        values[:, :, self.used :] = value
        return keys, values

    def note(self, tokens: Tensor) -> Tensor:
        """All tokens, int64 [rows, used + T], with `tokens` [rows, T], which are about to be read, last."""
        end = self.used + tokens.shape[1]
        self._tokens[:, self.used : end] = tokens
        return self._tokens[:, :end]

    def advance(self, tokens: int) -> None:
        """`tokens` more were given to every layer."""
        self.used += tokens

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was; int64 [n], repeats allowed. There may be fewer or more than before."""
        moved = [place for place, row in enumerate(rows.tolist()) if place != row]
        if len(rows) == self.rows and not moved:
            return
        self._tokens = self._tokens[rows]
        changed = torch.tensor(moved, device=rows.device)
        self._keys, self._values = (self._reordered(whole, rows, changed) for whole in (self._keys, self._values))

    def _reordered(self, whole: Tensor, rows: Tensor, moved: Tensor) -> Tensor:
        used = whole[:, :, :, : self.used]
        if len(rows) != self.rows:
            fresh = whole.new_empty(len(whole), len(rows), *whole.shape[2:])
            fresh[:, :, :, : self.used] = used.index_select(1, rows)
            return fresh
        used.index_copy_(1, moved, used.index_select(1, rows[moved]))
        return whole
