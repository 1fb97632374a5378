"""Tokens out of a decoder, one after the other, each read once: keys and values of the earlier ones are kept.

When a text outgrows the model's length, its last half is read anew and goes on from there. Knows no
tokenizer: tokens in, tokens out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from phalanx.models.decoder import Decoder


def generate(
    model: Decoder,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    stop: int | None = None,
) -> Iterator[int]:
    """Up to `max_tokens` tokens after `prompt`; ends before a token `stop`.

    `temperature` 0 always takes the likeliest; `top_k` draws among the k likeliest. The same seed gives the
    same tokens. Raises ValueError for an empty prompt, a token that is not in the vocabulary, or a negative
    temperature or top_k below 1.
    """
    if not prompt or not all(0 <= token < model.config.vocabulary_size for token in prompt):
        raise ValueError("the prompt must have at least one token, all of the model's vocabulary")
    if temperature < 0 or (top_k is not None and top_k < 1):
        raise ValueError(f"temperature {temperature} and top_k {top_k}: at least 0 and 1")
    return _tokens(model, list(prompt), max_tokens, temperature, top_k, seed, stop)


def _tokens(
    model: Decoder,
    text: list[int],
    max_tokens: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    stop: int | None,
) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    limit = model.config.sequence_length
    window, cache = text[-limit:], model.new_cache(1, limit)
    for _ in range(max_tokens):
        if cache.used == limit:
            window, cache = text[-max(1, limit // 2) :], model.new_cache(1, limit)
        with torch.inference_mode():
            logits = model(torch.tensor([window]), cache, last=True)[0, -1]
            token = int(_draw(logits, temperature, top_k, generator))
        if token == stop:
            return
        yield token
        text.append(token)
        window = [token]


def _draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax()
    if top_k is not None and top_k < len(logits):
        least = logits.topk(top_k).values[-1]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
