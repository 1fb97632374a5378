"""The few examples of which something is largest: the same ones, in the same order, for any split of the data."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.evaluation.predictions import Batch

Found = tuple[float, int, int, dict[str, str]]
"""How large it is, the index of its file, its row there from 0, and the columns that are shown of it."""


class Worst:
    """At most `most` of them, largest first; of equal ones the first in the files."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._kept: list[tuple[float, int, int, str]] = []

    def add(self, batch: Batch, size: NDArray[np.float64], those: NDArray[np.bool_], **shown: NDArray[Any]) -> None:
        """Of a batch, `those` examples [n], by `size` [n]. `shown`: columns [n] to be seen of them, beside its own."""
        index = np.flatnonzero(those)
        if len(index) > self.most:
            least = np.partition(size[index], len(index) - self.most)[len(index) - self.most]
            index = np.concatenate([index[size[index] > least], index[size[index] == least][: self.most]])
        columns = shown | {name.removeprefix("shown "): batch[name] for name in batch if name.startswith("shown ")}
        self._keep(
            [
                (
                    float(size[i]),
                    -int(batch["file"][i]),
                    -int(batch["row"][i]),
                    json.dumps({name: str(column[i]) for name, column in columns.items()}),
                )
                for i in index.tolist()
            ]
        )

    def merge(self, other: Worst) -> None:
        """With what another part of the data has."""
        self._keep(other._kept)

    def found(self) -> list[Found]:
        """Largest first."""
        return [(size, -file, -row, json.loads(shown)) for size, file, row, shown in self._kept]

    def part(self) -> NDArray[Any]:
        """Of a state's parts."""
        return np.array(json.dumps(self._kept), np.str_)

    @classmethod
    def of_part(cls, parts: Mapping[str, NDArray[Any]], name: str, most: int) -> Worst:
        """What `part` gave."""
        made = cls(most)
        made._keep(
            [(float(size), int(file), int(row), str(shown)) for size, file, row, shown in json.loads(str(parts[name]))]
        )
        return made

    def _keep(self, more: list[tuple[float, int, int, str]]) -> None:
        self._kept = heapq.nlargest(self.most, self._kept + more)
