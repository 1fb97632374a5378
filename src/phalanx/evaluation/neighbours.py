"""Count tables of neighbouring tokens: the baselines that a masked language model must beat.

Each table answers with the token seen most often in training text between the given neighbours;
what was never seen is asked of the next simpler table. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phalanx.data import Split


@dataclass(frozen=True)
class _Table:
    """Contexts, ascending, and the most frequent token of each."""

    contexts: NDArray[np.int64]
    best: NDArray[np.int64]

    @classmethod
    def count(cls, contexts: NDArray[np.int64], tokens: NDArray[np.int64], frequency: NDArray[np.int64]) -> _Table:
        """Of pairs [n]. Of equally frequent tokens the one more frequent overall wins, then the lower id."""
        pairs, counts = np.unique(contexts * len(frequency) + tokens, return_counts=True)
        context, token = np.divmod(pairs, len(frequency))
        order = np.lexsort((token, -frequency[token], -counts, context))
        first = np.concatenate([[True], context[order][1:] != context[order][:-1]])[: len(order)]
        return cls(context[order][first], token[order][first])

    def ask(self, contexts: NDArray[np.int64], otherwise: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(self.contexts):
            return otherwise
        place = np.minimum(np.searchsorted(self.contexts, contexts), len(self.contexts) - 1)
        return np.where(self.contexts[place] == contexts, self.best[place], otherwise)


class NeighbourTables:
    """Guesses from training documents, each read as `[CLS] tokens [SEP]`. `special`: ids that are never guessed."""

    def __init__(
        self, split: Split, vocabulary_size: int, cls_id: int, sep_id: int, special: NDArray[np.int64]
    ) -> None:
        self._size = vocabulary_size
        stream = np.insert(split.tokens.astype(np.int64), np.repeat(split.offsets[1:-1], 2), 0)
        ends = split.offsets[1:-1] + 2 * np.arange(split.documents - 1)
        stream[ends], stream[ends + 1] = sep_id, cls_id
        stream = np.concatenate([[cls_id], stream, [sep_id]])
        middle = np.flatnonzero(~np.isin(stream, special))
        left, right, token = stream[middle - 1], stream[middle + 1], stream[middle]
        frequency = np.bincount(token, minlength=vocabulary_size)
        self.most_frequent = int(frequency.argmax())
        self._left = _Table.count(left, token, frequency)
        self._right = _Table.count(right, token, frequency)
        self._both = _Table.count(left * vocabulary_size + right, token, frequency)

    def guess_left(self, left: NDArray[np.int64]) -> NDArray[np.int64]:
        """The token most often seen after `left` [n]; the most frequent one after what was never seen."""
        return self._left.ask(left, np.full(len(left), self.most_frequent))

    def guess_both(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
        """The token most often seen between `left` and `right` [n]; else after left, else before right, else overall.

        A neighbour that is itself [MASK] was never seen, so that the other one decides.
        """
        alone = self._left.ask(left, self._right.ask(right, np.full(len(left), self.most_frequent)))
        return self._both.ask(left * self._size + right, alone)
