"""The baseline that a text classifier must beat: a linear model of which tokens, and pairs of neighbours, occur.

Softmax regression for labels, ridge regression for numbers, fitted by accelerated gradient descent: nothing is drawn
at random, and numpy is all it takes. Knows tokens, no text and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.data import Split

MAX_EXAMPLES = 50_000  # it is fitted on no more: some 100 bytes a token
_PAIR_BUCKETS = 1 << 18  # pairs of neighbours are counted by a hash: with so many, few share one
_PENALTY, _STEPS = 3e-5, 300
_STILL = 1e-6  # weights that change no more than this have arrived


@dataclass(frozen=True)
class Features:
    """Which features each example has, all alike in size, so that its vector is of length 1.

    `columns` int64 [entries], those of one example after those of another; `starts` int64 [examples] of each example's;
    `values` float32 [entries]. Every example has one at least.
    """

    columns: NDArray[np.int64]
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    width: int

    def times(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features times weights [width, outputs]: [examples, outputs]."""
        parts = weights[self.columns] * self.values[:, None]
        return np.add.reduceat(parts, self.starts, axis=0)

    def transposed_times(self, residuals: NDArray[np.float64]) -> NDArray[np.float64]:
        """[width, outputs] of [examples, outputs]."""
        sizes = np.diff(np.append(self.starts, len(self.columns)))
        each = np.repeat(residuals, sizes, axis=0) * self.values[:, None]
        return np.stack([np.bincount(self.columns, column, self.width) for column in each.T], axis=1)


def features_of(split: Split, texts: int, vocabulary_size: int, examples: int | None = None) -> Features:
    """Of the first `examples` (None: all) of a split of labelled examples, each of `texts` documents.

    A token of the second text is another feature than the same one of the first. Feature 0 is every example's.
    """
    count = split.documents // texts if examples is None else examples
    offsets = split.offsets[: count * texts + 1]
    tokens = np.asarray(split.tokens[: offsets[-1]], np.int64)
    document = np.repeat(np.arange(count * texts), np.diff(offsets))
    example, text = document // texts, document % texts
    singles = 1 + text * vocabulary_size + tokens
    neighbours = document[1:] == document[:-1]
    hashed = (tokens[:-1] * 1_000_003 + tokens[1:] * 8_191 + text[:-1] * 131) % _PAIR_BUCKETS
    pairs = 1 + texts * vocabulary_size + hashed[neighbours]
    width = 1 + texts * vocabulary_size + _PAIR_BUCKETS
    keys = np.unique(
        np.concatenate([np.arange(count) * width, example * width + singles, example[:-1][neighbours] * width + pairs])
    )
    rows, columns = np.divmod(keys, width)
    sizes = np.bincount(rows, minlength=count)
    values = np.repeat(1 / np.sqrt(sizes), sizes).astype(np.float32)
    return Features(columns, values, np.cumsum(sizes) - sizes, width)


@dataclass(frozen=True)
class Linear:
    """`weights` float64 [width, outputs]; `middle`: what is added to numbers."""

    weights: NDArray[np.float64]
    middle: float = 0.0

    def predict(self, features: Features) -> NDArray[np.float64]:
        """Logits [examples, labels], or numbers [examples, 1]."""
        return features.times(self.weights) + self.middle


def fit(features: Features, labels: NDArray[Any], classes: int) -> Linear:
    """The weights of least mean cost with a penalty of 3e-5 / 2 times their squares. `labels`: int64 [examples], of so
    many `classes`; or float32 with `classes` 0, numbers.

    Nesterov's method with the step that the largest curvature allows (Beck and Teboulle 2009), begun anew where it
    overshoots (O'Donoghue and Candes 2015).
    """
    middle = 0.0 if classes else float(np.mean(labels))
    targets = np.eye(classes)[labels] if classes else (np.asarray(labels, np.float64) - middle)[:, None]
    weights = np.zeros((features.width, targets.shape[1]))
    ahead, pace = weights, 1.0
    step = 1 / ((0.5 if classes else 1.0) + _PENALTY)
    for _ in range(_STEPS):
        found = features.times(ahead)
        residuals = (_softmax(found) if classes else found) - targets
        gradient = features.transposed_times(residuals) / len(targets) + _PENALTY * ahead
        following = ahead - step * gradient
        move = following - weights
        if float((gradient * move).sum()) > 0:
            pace = 1.0
        faster = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead = following + (pace - 1) / faster * move
        weights, pace = following, faster
        if float(np.abs(move).max()) < _STILL:
            break
    return Linear(weights, middle)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    found: NDArray[np.float64] = shifted / shifted.sum(1, keepdims=True)
    return found
