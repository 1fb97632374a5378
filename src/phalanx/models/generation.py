"""Tokens out of a causal model, one after the other for several texts at once, each token read once: keys and values of
the earlier ones are kept.

Texts of unequal length are padded on the left, and each ends by itself; those that have ended are no longer computed.
When a text outgrows the model's length, its last half is read anew and goes on from there. Knows no tokenizer: tokens
in, tokens out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phalanx.models.cache import Cache
from phalanx.models.causal import CausalModel
from phalanx.models.sampling import Sampler


@dataclass(frozen=True)
class GenerationSettings:
    """How tokens are drawn, and when a text ends: after `max_tokens`, or before one of the tokens `stop`.

    `temperature` 0 always takes the likeliest token; 1 draws as often as the model believes. Of the draw are left out
    all but the `top_k` likeliest, all outside the fewest that have `top_p` of the probability, and those with less than
    `min_p` times the likeliest's. `repetition_penalty` above 1 weakens what the text already holds. Text r draws with
    numbers seeded by `seed` + r. Raises ValueError for what is outside its range.
    """

    max_tokens: int = 200
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, fits, range_ in (
            ("max_tokens", self.max_tokens >= 0, "0 or more"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 or more, and finite"),
            ("top_k", self.top_k is None or self.top_k >= 1, "1 or more, or None"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0, and finite"),
            ("seed", self.seed >= 0, "0 or more"),
        ):
            if not fits:
                raise ValueError(f"{name} must be {range_}, not {getattr(self, name)}")


class Generation:
    """An iterator over what is written: each step gives a token for each text, None for those that have ended.

    It ends when all have. Apart from rounding, a text does not depend on the others beside it. Raises NoNumbers where
    the model's answers are none.
    """

    def __init__(self, model: CausalModel, prompts: Sequence[Sequence[int]], settings: GenerationSettings) -> None:
        check_prompts(model, prompts)
        self._model, self._settings = model, settings
        self._texts = [list(prompt) for prompt in prompts]
        limit = model.config.sequence_length
        self._begins = [max(0, len(prompt) - limit) for prompt in prompts]  # of what is read of each text
        self._alive = list(range(len(prompts)))
        self._steps = 0
        self._cache: Cache | None = None
        self._padding: Tensor | None = None
        self._sampler = Sampler(
            self._texts,
            model.config.vocabulary_size,
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            seed=settings.seed,
        )

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> list[int | None]:
        if not self._alive or self._steps == self._settings.max_tokens:
            raise StopIteration
        self._steps += 1
        # Not around the whole: it would be in force for the caller too, between two tokens.
        with torch.inference_mode():
            drawn = self._sampler.next(self._logits(), self._alive)
        written: list[int | None] = [None] * len(self._texts)
        for row, token in zip(list(self._alive), drawn, strict=True):
            if token in self._settings.stop:
                self.end(row)
            else:
                self._texts[row].append(token)
                written[row] = token
        if not self._alive:
            raise StopIteration
        return written

    def end(self, row: int) -> None:
        """Write no more of this text."""
        if row not in self._alive:
            return
        place = self._alive.index(row)
        self._alive.remove(row)
        if self._cache is not None and self._alive:
            kept = torch.tensor([other for other in range(len(self._alive) + 1) if other != place])
            with torch.inference_mode():
                self._cache.reorder(kept)
                self._padding = None if self._padding is None else self._padding[kept]

    def _logits(self) -> Tensor:
        """Of the next token of each text that goes on: float32 [rows, V]."""
        if self._cache is None or self._cache.used == self._cache.length:
            tokens = self._begin()
        else:
            tokens = torch.tensor([self._texts[row][-1:] for row in self._alive])
        logits: Tensor = self._model(tokens, self._cache, self._padding, last=True)
        return logits[:, -1]

    def _begin(self) -> Tensor:
        """A new cache, and all that is to be read into it: int64 [rows, T]."""
        limit = self._model.config.sequence_length
        for row in self._alive:
            if len(self._texts[row]) - self._begins[row] > limit:
                self._begins[row] = len(self._texts[row]) - max(1, limit // 2)
        windows = [self._texts[row][self._begins[row] :] for row in self._alive]
        tokens, self._padding = pad_left(windows)
        to_come = self._settings.max_tokens - self._steps
        self._cache = self._model.new_cache(len(windows), min(limit, tokens.shape[1] + to_come))
        return tokens


def generate(
    model: CausalModel, prompts: Sequence[Sequence[int]], settings: GenerationSettings | None = None
) -> Generation:
    """Go on with every prompt, as `settings` say (None: the defaults); of one longer than the model's `sequence_length`
    its end is read.

    Raises ValueError for no prompt, an empty one, or a token that is not in the model's vocabulary.
    """
    return Generation(model, prompts, settings or GenerationSettings())


def check_prompts(model: CausalModel, prompts: Sequence[Sequence[int]]) -> None:
    """Raises ValueError for prompts that cannot be gone on with."""
    size = model.config.vocabulary_size
    if not prompts or not all(prompts) or not all(0 <= token < size for prompt in prompts for token in prompt):
        raise ValueError("there must be a prompt, each of at least one token, all of the model's vocabulary")


def pad_left(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
    """Tokens int64 [texts, T], shorter ones preceded by token 0, and how much of that each has: int64 [texts], None if
    none has any."""
    longest = max(map(len, texts))
    padding = [longest - len(text) for text in texts]
    tokens = torch.tensor([[0] * missing + list(text) for missing, text in zip(padding, texts, strict=True)])
    return tokens, torch.tensor(padding) if any(padding) else None
