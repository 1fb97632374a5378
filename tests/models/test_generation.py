"""Text out of a decoder: with kept keys and values as without, and what the options do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from phalanx.models import Decoder, generate
from tests.models.test_decoder import LENGTH, VOCABULARY, decoder

PROMPT = [3, 1, 4, 1, 5]


def sharp() -> Decoder:
    """Sure enough of itself that rounding decides nothing."""
    module = decoder().eval()
    with torch.no_grad():
        module.head.weight.mul_(20)
    return module


def without_cache(model: Decoder, prompt: list[int], count: int) -> Iterator[int]:
    """Greedy, every token from a fresh reading of the text since the window's beginning."""
    text, begin = list(prompt), max(0, len(prompt) - LENGTH)
    for _ in range(count):
        if len(text) - begin > LENGTH:
            begin = len(text) - LENGTH // 2
        with torch.no_grad():
            text.append(int(model(torch.tensor([text[begin:]]))[0, -1].argmax()))
        yield text[-1]


@pytest.mark.parametrize("prompt", [PROMPT, [7], list(range(LENGTH)), list(range(VOCABULARY))])
def test_generation_equals_reading_everything_anew_for_each_token(prompt):
    model = sharp()
    count = 3 * LENGTH  # beyond the model's length, twice
    assert list(generate(model, prompt, max_tokens=count, temperature=0)) == list(without_cache(model, prompt, count))


def test_the_same_seed_gives_the_same_tokens_and_another_others():
    model = decoder().eval()
    draws = [list(generate(model, PROMPT, max_tokens=30, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert all(0 <= token < VOCABULARY for token in draws[0])


def test_drawing_leaves_the_default_generator_alone():
    model = decoder().eval()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(generate(model, PROMPT, max_tokens=3, temperature=1.0))
    assert torch.rand(1) == expected


def test_top_k_draws_among_the_likeliest_only():
    model = decoder().eval()
    with torch.no_grad():
        best = set(model(torch.tensor([PROMPT]))[0, -1].topk(3).indices.tolist())
    drawn = {next(generate(model, PROMPT, max_tokens=1, temperature=5.0, top_k=3, seed=seed)) for seed in range(60)}
    assert drawn == best
    greedy = list(generate(model, PROMPT, max_tokens=10, temperature=0))
    assert list(generate(model, PROMPT, max_tokens=10, temperature=1.0, top_k=1)) == greedy
    assert len(list(generate(model, PROMPT, max_tokens=10, top_k=10 * VOCABULARY))) == 10


def test_draws_follow_the_models_probabilities():
    """Chi-square of 2,000 first tokens against softmax(logits / temperature); 99.99 % of honest draws are below."""
    model = decoder().eval()
    temperature, count = 0.7, 2000
    with torch.no_grad():
        probability = (model(torch.tensor([PROMPT]))[0, -1].double() / temperature).softmax(-1)
    tokens = [next(generate(model, PROMPT, max_tokens=1, temperature=temperature, seed=seed)) for seed in range(count)]
    seen = torch.bincount(torch.tensor(tokens), minlength=VOCABULARY)
    often = probability * count >= 5
    expected = torch.cat([probability[often], probability[~often].sum()[None]]) * count
    found = torch.cat([seen[often], seen[~often].sum()[None]])
    statistic = float(((found - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    assert statistic < freedom + 6 * (2 * freedom) ** 0.5


def test_it_ends_before_the_token_to_stop_at():
    model = sharp()
    free = list(generate(model, PROMPT, max_tokens=20, temperature=0))
    stop = free[4]
    stopped = list(generate(model, PROMPT, max_tokens=20, temperature=0, stop=stop))
    assert stopped == free[: free.index(stop)]


def test_tokens_come_one_by_one():
    endless = generate(sharp(), PROMPT, max_tokens=10**9, temperature=0)
    assert len(list(islice(endless, 5))) == 5
    assert list(generate(sharp(), PROMPT, max_tokens=0)) == []


@pytest.mark.parametrize(
    ("prompt", "options"),
    [([], {}), ([VOCABULARY], {}), ([-1], {}), (PROMPT, {"temperature": -0.1}), (PROMPT, {"top_k": 0})],
)
def test_what_makes_no_sense_is_refused_before_the_first_token(prompt, options):
    with pytest.raises(ValueError, match=r"prompt|temperature"):
        generate(sharp(), prompt, max_tokens=1, **options)
