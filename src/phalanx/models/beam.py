"""The likeliest texts of a causal model, found by beam search: of several at once, going on with the best.

Scores, and when the search of a text is over, are as in transformers, so that the same model finds the same texts
there. Finished texts are scored by the sum of their tokens' log-probabilities over their number to the power of a
length penalty (Wu et al. 2016, in the simpler form that is common). Knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from phalanx.models.causal import CausalModel
from phalanx.models.generation import check_prompts, pad_left
from phalanx.models.sampling import NoNumbers, said, weaken

STRONGEST = 5.0  # length penalty, either way: powers of any context's length then stay well within float32
_NONE = float("-inf")  # the score where no text has ended
_OUT = -1e9  # far below any score, and finite: added, it takes a text out of the competition


@dataclass(frozen=True)
class BeamSettings:
    """How widely to search, and what for. `beams`: texts gone on with at once; the `returned` best are given back.

    A text ends with one of the tokens `stop`, or after `max_tokens`. `length_penalty` above 0 favours long texts, below
    0 short ones; 0 is the sum of log-probabilities. `early_stopping` True: the search ends as soon as `beams` texts
    have ended; False: when the best one going on scores, at its present length, no better than the worst ended;
    "never": when it cannot at any length. `repetition_penalty` above 1 weakens what a text already holds. Raises
    ValueError for what is outside its range.
    """

    beams: int = 4
    max_tokens: int = 200
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    returned: int = 1
    repetition_penalty: float = 1.0
    stop: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.beams < 1 or not 1 <= self.returned <= self.beams:
            raise ValueError(
                f"beams {self.beams}, returned {self.returned}: at least 1, and no more returned than beams"
            )
        if not abs(self.length_penalty) <= STRONGEST:
            raise ValueError(f"length_penalty must be from {-STRONGEST:g} to {STRONGEST:g}, not {self.length_penalty}")
        if self.max_tokens < 1 or not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(
                f"max_tokens {self.max_tokens} and repetition_penalty {self.repetition_penalty} must be positive"
            )


@dataclass(frozen=True)
class Hypothesis:
    """A text found: its tokens after the prompt (without the one that ended it), its score in nats, and whether a
    token of `stop` ended it."""

    tokens: tuple[int, ...]
    score: float
    ended: bool


@torch.inference_mode()
def beam_search(
    model: CausalModel, prompts: Sequence[Sequence[int]], settings: BeamSettings | None = None
) -> list[list[Hypothesis]]:
    """For each prompt the best texts found, the best first; `settings` None: the defaults.

    Apart from rounding, a prompt's texts do not depend on the others beside it. Raises ValueError for no prompt, an
    empty one, a token outside the vocabulary, or a prompt that with `max_tokens` is longer than what the model reads at
    once; NoNumbers where the model's answers are none.
    """
    settings = settings or BeamSettings()
    check_prompts(model, prompts)
    limit = model.config.sequence_length
    longest = max(map(len, prompts))
    if longest + settings.max_tokens > limit:
        raise ValueError(f"{longest} tokens of prompt and {settings.max_tokens} more: the model reads {limit} at once")
    tokens, padding = pad_left(prompts)
    cache = model.new_cache(len(prompts), tokens.shape[1] + settings.max_tokens - 1)
    logits = model(tokens, cache, padding, last=True)[:, -1]
    search = _Search(prompts, settings, logits.shape[-1])
    # One row of each prompt has been read; from here on each of its beams has one.
    beams = torch.arange(len(prompts)).repeat_interleave(settings.beams)
    cache.reorder(beams)
    padding, logits = None if padding is None else padding[beams], logits[beams]
    while True:
        rows = search.advance(logits)
        if search.over:
            return search.found()
        cache.reorder(rows)
        logits = model(search.last(), cache, padding, last=True)[:, -1]


class _Search:
    """`beams` texts of each of P prompts that go on, and as many of each that have ended: tensors [P, beams, ...]."""

    def __init__(self, prompts: Sequence[Sequence[int]], settings: BeamSettings, vocabulary_size: int) -> None:
        self._settings, self._size = settings, vocabulary_size
        shape = (len(prompts), settings.beams)
        self._step = 0
        self._texts = torch.zeros(*shape, settings.max_tokens, dtype=torch.int64)
        # All beams begin alike, so that only the first counts at first.
        self._sums = torch.full(shape, _OUT)
        self._sums[:, 0] = 0
        self._ended = torch.zeros_like(self._texts)
        self._lengths = torch.zeros(shape, dtype=torch.int64)
        self._scores = torch.full(shape, _NONE)
        self._full = torch.zeros(shape, dtype=torch.bool)  # which places hold an ended text
        self._open = torch.ones(len(prompts), 1, dtype=torch.bool)  # whether a better text may still come
        self._any_ended = False
        self._stop = torch.tensor(settings.stop, dtype=torch.int64)
        self._firsts = torch.arange(len(prompts))[:, None] * settings.beams
        self._said: Tensor | None = None
        if settings.repetition_penalty != 1:
            self._said = said(prompts, vocabulary_size).repeat_interleave(settings.beams, 0)

    @property
    def over(self) -> bool:
        if self._step == self._settings.max_tokens:
            return True
        if not self._any_ended:
            return False
        return not bool(self._open.any()) or (self._settings.early_stopping is True and bool(self._full.all()))

    def advance(self, logits: Tensor) -> Tensor:
        """Take up the next token's logits [P * beams, V] of each text. Returns the rows that the new texts were: int64
        [P * beams]."""
        settings, beams, (prompts, _) = self._settings, self._settings.beams, self._sums.shape
        chances = logits.log_softmax(-1)
        if self._said is not None:
            chances = weaken(chances, self._said, settings.repetition_penalty)
        # Enough that as many as there are beams go on, even if each beam could end by every token of `stop`.
        wanted = max(2, 1 + len(settings.stop)) * beams
        totals = (chances.view(prompts, beams, -1) + self._sums[..., None]).flatten(1)
        sums, order = totals.topk(min(wanted, totals.shape[1]))
        if not bool(sums.isfinite().all()):
            raise NoNumbers(
                "the model's answers are no numbers: NaN or infinite",
                remedy="its training went astray; take an earlier checkpoint",
            )
        origin, token = order // self._size, order % self._size
        self._step += 1
        ends = torch.isin(token, self._stop) if settings.stop else torch.zeros_like(token, dtype=torch.bool)
        if self._step == settings.max_tokens:
            ends.fill_(True)
        if bool(ends.any()):
            self._finish(origin, token, sums, ends)
            sums = sums + ends * _OUT

        self._sums, going_on = sums.topk(beams)
        origin = origin.gather(1, going_on)
        self._texts = _of(self._texts, origin)
        self._texts[:, :, self._step - 1] = token.gather(1, going_on)
        rows = (origin + self._firsts).flatten()
        if self._said is not None:
            self._said = self._said[rows]
            self._said[torch.arange(len(rows)), self.last()[:, 0]] = True
        if self._any_ended:
            self._close()
        return rows

    def last(self) -> Tensor:
        """The newest token of each text that goes on, int64 [P * beams, 1]."""
        return self._texts[:, :, self._step - 1].reshape(-1, 1)

    def found(self) -> list[list[Hypothesis]]:
        stop = set(self._settings.stop)
        found: list[list[Hypothesis]] = []
        for texts, lengths, scores in zip(
            self._ended.tolist(), self._lengths.tolist(), self._scores.tolist(), strict=True
        ):
            found.append([])
            for text, length, score in list(zip(texts, lengths, scores, strict=True))[: self._settings.returned]:
                ended = text[length - 1] in stop
                found[-1].append(Hypothesis(tuple(text[: length - ended]), score, ended))
        return found

    def _finish(self, origin: Tensor, token: Tensor, sums: Tensor, ends: Tensor) -> None:
        """Of the candidates [P, wanted], the best first, keep those that end, if they are better than what is kept.
        Only the first `beams` count: the rest are there so that enough texts go on."""
        beams = self._settings.beams
        counted = ends & (torch.arange(ends.shape[1]) < beams)
        scores = sums / self._step**self._settings.length_penalty
        over = ~self._open
        if self._settings.early_stopping is True:
            over = over | self._full.all(1, keepdim=True)
        scores = scores.masked_fill(over | ~counted, _NONE)
        self._scores, best = torch.cat([self._scores, scores], 1).topk(beams)
        texts = _of(self._texts, origin)
        texts[:, :, self._step - 1] = token
        self._ended = _of(torch.cat([self._ended, texts], 1), best)
        lengths = torch.full_like(token, self._step)
        self._lengths = torch.cat([self._lengths, lengths], 1).gather(1, best)
        self._full = torch.cat([self._full, counted], 1).gather(1, best)
        self._any_ended = bool(self._full.any())

    def _close(self) -> None:
        """Find out for which prompts no better text is to be expected."""
        settings = self._settings
        farthest = settings.early_stopping == "never" and settings.length_penalty > 0
        length = settings.max_tokens if farthest else self._step
        hoped = self._sums[:, :1] / length**settings.length_penalty
        worst = self._scores.amin(1, keepdim=True)
        self._open &= hoped > worst


def _of(texts: Tensor, chosen: Tensor) -> Tensor:
    """Texts [P, n, L] at places [P, m] of each prompt: [P, m, L]."""
    return texts.gather(1, chosen[..., None].expand(-1, -1, texts.shape[-1]))
