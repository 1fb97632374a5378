"""Which token comes next, given logits: what is left out, and the draw among the rest.

Each row draws with numbers of its own, so that what it gets does not depend on the rows beside it. Knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from phalanx.foundation import PhalanxError

GREEDY_BELOW = 1e-6  # of a temperature: logits divided by less overflow, and the likeliest is certain long before
_NUCLEUS = 256  # tokens that a nucleus is looked for in at first
_BITS = 52  # of a draw: a share below 1 of any sum in float64 is then less than the sum


class NoNumbers(PhalanxError):
    """The logits hold NaN, or infinities that leave nothing to choose from."""


class Sampler:
    """Draws for several texts. `texts`: their tokens so far, which a repetition penalty weakens.

    `temperature` below 1e-6 takes the likeliest. Row r draws from Mersenne Twister seeded with `seed` + r.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[int]],
        vocabulary_size: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
    ) -> None:
        self._temperature, self._penalty = temperature, repetition_penalty
        self._top_k, self._top_p, self._min_p = top_k, top_p, min_p
        self._draws = [random.Random(seed + row) for row in range(len(texts))]
        self._said = said(texts, vocabulary_size) if repetition_penalty != 1 else None

    def next(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """A token for each of the texts numbered `rows`, of logits float32 [len(rows), V]. Raises NoNumbers."""
        if self._said is not None:
            logits = weaken(logits, self._said[list(rows)], self._penalty)
        if self._temperature < GREEDY_BELOW:
            best, chosen = logits.max(-1)
            finite = bool(best.isfinite().all())
        else:
            logits = (logits - logits.amax(-1, keepdim=True)) / self._temperature
            if self._top_k is not None:
                logits = keep_top_k(logits, self._top_k)
            if self._top_p < 1:
                logits = keep_top_p(logits, self._top_p)
            if self._min_p > 0:
                logits = keep_min_p(logits, self._min_p)
            shares = [self._draws[row].getrandbits(_BITS) / (1 << _BITS) for row in rows]
            chosen, finite = pick(logits.softmax(-1), shares)
        if not finite:
            raise NoNumbers(
                "the model's answers are no numbers: NaN or infinite",
                remedy="its training went astray; take an earlier checkpoint",
            )
        tokens: list[int] = chosen.tolist()
        if self._said is not None:
            self._said[list(rows), tokens] = True
        return tokens


def pick(probabilities: Tensor, shares: Sequence[float]) -> tuple[Tensor, bool]:
    """The token, int64 [rows], at which the sum of `probabilities` [rows, V] passes its row's share of the whole, and
    whether all sums were finite. A token of probability 0 is never picked, for shares in [0, 1 - 2^-52]."""
    sums = probabilities.cumsum(-1, dtype=torch.float64)
    wanted = torch.tensor(shares, dtype=torch.float64, device=sums.device)[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, wanted, right=True)[:, 0], bool(sums[:, -1].isfinite().all())


def said(texts: Sequence[Sequence[int]], vocabulary_size: int) -> Tensor:
    """Which tokens each text holds: bool [texts, V]."""
    held = torch.zeros(len(texts), vocabulary_size, dtype=torch.bool)
    for row, text in zip(held, texts, strict=True):
        row[list(text)] = True
    return held


def weaken(scores: Tensor, held: Tensor, penalty: float) -> Tensor:
    """Scores [rows, V] of what is `held` (bool, the same shape) divided by `penalty` where positive, else multiplied by
    it (Keskar et al. 2019, as transformers does it with the negative ones)."""
    return torch.where(held, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def keep_top_k(logits: Tensor, count: int) -> Tensor:
    """Minus infinity for all but the `count` likeliest of each row, and what is as likely as the last of them (Fan et
    al. 2018)."""
    if count >= logits.shape[-1]:
        return logits
    least = logits.topk(count).values[..., -1:]
    return logits.masked_fill(logits < least, float("-inf"))


def keep_top_p(logits: Tensor, mass: float) -> Tensor:
    """Minus infinity outside the fewest tokens of each row whose probabilities sum to `mass` or more: the nucleus
    (Holtzman et al. 2020)."""
    probabilities, size = logits.softmax(-1), logits.shape[-1]
    # Mostly a few tokens are enough, and finding those is much quicker than sorting all.
    count = min(_NUCLEUS, size)
    while True:
        likeliest, order = probabilities.topk(count)
        before = likeliest.cumsum(-1, dtype=torch.float64) - likeliest
        if count == size or bool((before[..., -1] >= mass).all()):
            break
        count = min(16 * count, size)
    before[..., 0] = 0  # the likeliest stays, whatever `mass`
    outside = torch.ones_like(logits, dtype=torch.bool).scatter_(-1, order, before >= mass)
    return logits.masked_fill(outside, float("-inf"))


def keep_min_p(logits: Tensor, share: float) -> Tensor:
    """Minus infinity for tokens that are less likely than `share` of the likeliest (Nguyen et al. 2024)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < share * probabilities.amax(-1, keepdim=True), float("-inf"))
