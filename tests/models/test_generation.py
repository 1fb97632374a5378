"""Text out of causal models: the tokens of transformers, with kept keys and values as without, alone as in a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.models import Decoder, GenerationSettings, generate
from phalanx.models.causal import CausalModel
from tests.models.peers import FAMILIES, both, written_by_transformers
from tests.models.test_decoder import LENGTH, VOCABULARY, decoder

PROMPT = [3, 1, 4, 1, 5]
PROMPTS = [[3, 4, 5, 6, 7], [8, 9], [10, 11, 12], [2]]


def sharp() -> Decoder:
    """Sure enough of itself that rounding decides nothing."""
    module = decoder().eval()
    with torch.no_grad():
        module.head.weight.mul_(20)
    return module


def written(model: CausalModel, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
    texts: list[list[int]] = [[] for _ in prompts]
    for tokens in generate(model, prompts, GenerationSettings(**options)):
        for text, token in zip(texts, tokens, strict=True):
            if token is not None:
                text.append(token)
    return texts


def alone(model: CausalModel, prompt: Sequence[int], **options: Any) -> list[int]:
    return written(model, [prompt], **options)[0]


def without_cache(model: Decoder, prompt: list[int], count: int) -> Iterator[int]:
    """Greedy, every token from a fresh reading of the text since the window's beginning."""
    text, begin = list(prompt), max(0, len(prompt) - LENGTH)
    for _ in range(count):
        if len(text) - begin > LENGTH:
            begin = len(text) - LENGTH // 2
        with torch.no_grad():
            text.append(int(model(torch.tensor([text[begin:]]))[0, -1].argmax()))
        yield text[-1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stop", [(), (0, 10, 29, 31)])
def test_greedy_texts_are_those_of_transformers(family: str, stop: tuple[int, ...]) -> None:
    ours = [tuple(text) for text in written(both(family)[1], PROMPTS, max_tokens=24, temperature=0, stop=stop)]
    assert ours == written_by_transformers(family, PROMPTS, stop, max_new_tokens=24)
    if not stop:
        assert ours == written_by_transformers(family, PROMPTS, stop, max_new_tokens=24, use_cache=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_repetition_penalty_too(family: str) -> None:
    model = both(family)[1]
    ours = written(model, PROMPTS, max_tokens=24, temperature=0, repetition_penalty=1.4)
    for prompt, text in zip(PROMPTS, ours, strict=True):  # transformers would also weaken what pads a batch
        assert [tuple(text)] == written_by_transformers(family, [prompt], (), max_new_tokens=24, repetition_penalty=1.4)
    assert ours != written(model, PROMPTS, max_tokens=24, temperature=0)


@pytest.mark.parametrize("prompt", [PROMPT, [7], list(range(LENGTH)), list(range(VOCABULARY))])
def test_generation_equals_reading_everything_anew_for_each_token(prompt: list[int]) -> None:
    model = sharp()
    count = 3 * LENGTH  # beyond the model's length, twice
    assert alone(model, prompt, max_tokens=count, temperature=0) == list(without_cache(model, prompt, count))


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=LENGTH + 3), min_size=1, max_size=4),
    st.integers(1, 2 * LENGTH),
    st.sampled_from([{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 0.8, "top_k": 5, "top_p": 0.8}]),
    st.sampled_from([(), (3, 11)]),
)
def test_a_batch_writes_what_each_prompt_writes_alone(
    prompts: list[list[int]], count: int, options: dict[str, Any], stop: tuple[int, ...]
) -> None:
    """Also where the texts outgrow the model's length, each at its own time."""
    model = sharp()
    together = written(model, prompts, max_tokens=count, seed=5, stop=stop, **options)
    for row, prompt in enumerate(prompts):
        assert together[row] == alone(model, prompt, max_tokens=count, seed=5 + row, stop=stop, **options)


def test_a_text_that_is_ended_from_outside_leaves_the_others_as_they_were() -> None:
    model = sharp()
    expected = written(model, PROMPTS, max_tokens=12, temperature=0)
    found: list[list[int]] = [[] for _ in PROMPTS]
    steps = generate(model, PROMPTS, GenerationSettings(max_tokens=12, temperature=0))
    for step, tokens in enumerate(steps):
        for text, token in zip(found, tokens, strict=True):
            text += [] if token is None else [token]
        if step in (2, 5):
            steps.end(step // 3)
            steps.end(step // 3)
    assert found == [expected[0][:3], expected[1][:6], *expected[2:]]
    for row in range(4):
        steps.end(row)
    assert next(steps, None) is None


def test_the_same_seed_gives_the_same_tokens_and_another_others() -> None:
    model = decoder().eval()
    draws = [alone(model, PROMPT, max_tokens=30, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert all(0 <= token < VOCABULARY for token in draws[0])


def test_top_k_draws_among_the_likeliest_only() -> None:
    model = decoder().eval()
    with torch.no_grad():
        best = set(model(torch.tensor([PROMPT]))[0, -1].topk(3).indices.tolist())
    drawn = {alone(model, PROMPT, max_tokens=1, temperature=5.0, top_k=3, seed=seed)[0] for seed in range(60)}
    assert drawn == best
    greedy = alone(model, PROMPT, max_tokens=10, temperature=0)
    assert alone(model, PROMPT, max_tokens=10, top_k=1) == greedy
    assert alone(model, PROMPT, max_tokens=10, top_p=1e-9) == greedy
    assert alone(model, PROMPT, max_tokens=10, min_p=1.0) == greedy


def test_draws_follow_the_models_probabilities() -> None:
    """Chi-square of 2,000 first tokens against softmax(logits / temperature); 99.99 % of honest draws are below."""
    model = decoder().eval()
    temperature, count = 0.7, 2000
    with torch.no_grad():
        probability = (model(torch.tensor([PROMPT]))[0, -1].double() / temperature).softmax(-1)
    tokens = [text[0] for text in written(model, [PROMPT] * count, max_tokens=1, temperature=temperature)]
    seen = torch.bincount(torch.tensor(tokens), minlength=VOCABULARY)
    often = probability * count >= 5
    expected = torch.cat([probability[often], probability[~often].sum()[None]]) * count
    found = torch.cat([seen[often], seen[~often].sum()[None]])
    statistic = float(((found - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    assert statistic < freedom + 6 * (2 * freedom) ** 0.5


def test_it_ends_before_a_token_to_stop_at() -> None:
    free = alone(sharp(), PROMPT, max_tokens=20, temperature=0)
    stopped = alone(sharp(), PROMPT, max_tokens=20, temperature=0, stop=(free[4], free[6]))
    assert stopped == free[: min(free.index(free[4]), free.index(free[6]))]


def test_tokens_come_one_by_one() -> None:
    endless = generate(sharp(), [PROMPT], GenerationSettings(max_tokens=10**9, temperature=0))
    assert len(list(islice(endless, 5))) == 5
    assert list(generate(sharp(), [PROMPT], GenerationSettings(max_tokens=0))) == []


def test_inference_mode_is_not_left_on_between_two_tokens() -> None:
    for _ in islice(generate(sharp(), [PROMPT]), 2):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("prompts", [[], [[]], [PROMPT, []], [[VOCABULARY]], [[-1]]])
def test_prompts_that_cannot_be_gone_on_with_are_refused_before_the_first_token(prompts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="prompt"):
        generate(sharp(), prompts)


@pytest.mark.parametrize(
    "option",
    [
        {"max_tokens": -1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"seed": -1},
    ],
)
def test_settings_outside_their_range_are_refused_by_name(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        GenerationSettings(**option)
