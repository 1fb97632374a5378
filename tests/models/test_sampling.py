"""What is left out of a draw, beside transformers' processors and by what each must keep; and the draw itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from phalanx.models.sampling import (
    NoNumbers,
    Sampler,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    pick,
    said,
    weaken,
)

VOCABULARY = 40


def some_logits(rows: int = 5, seed: int = 0, scale: float = 3.0) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("seed", range(4))
def test_filters_keep_what_those_of_transformers_keep(seed: int) -> None:
    logits = some_logits(seed=seed)
    none = torch.empty(len(logits), 0, dtype=torch.int64)
    for count in (1, 3, VOCABULARY, 10 * VOCABULARY):
        assert torch.equal(keep_top_k(logits, count), TopKLogitsWarper(count)(none, logits))
    for mass in (0.05, 0.3, 0.9, 0.999):
        assert torch.equal(keep_top_p(logits, mass), TopPLogitsWarper(mass)(none, logits))
    for share in (0.01, 0.3, 1.0):
        assert torch.equal(keep_min_p(logits, share), MinPLogitsWarper(share)(none, logits))


@pytest.mark.parametrize("penalty", [0.5, 1.2, 3.0])
def test_what_was_said_is_weakened_as_transformers_does_it(penalty: float) -> None:
    logits = some_logits()
    texts = torch.randint(VOCABULARY, (5, 12), generator=torch.Generator().manual_seed(1))
    expected = RepetitionPenaltyLogitsProcessor(penalty)(texts, logits)
    assert torch.equal(weaken(logits, said(texts.tolist(), VOCABULARY), penalty), expected)


def test_all_filters_together_leave_what_a_chain_of_transformers_leaves() -> None:
    logits, texts = some_logits(1), torch.tensor([[1, 5, 9, 5]])
    expected = logits
    for step in (
        RepetitionPenaltyLogitsProcessor(1.3),
        TemperatureLogitsWarper(0.8),
        TopKLogitsWarper(9),
        TopPLogitsWarper(0.9),
        MinPLogitsWarper(0.05),
    ):
        expected = step(texts, expected)
    probability = expected[0].softmax(-1).double()
    count = 1500
    options = {"temperature": 0.8, "top_k": 9, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3}
    drawn = [
        Sampler([texts[0].tolist()], VOCABULARY, seed=seed, **options).next(logits, [0])[0] for seed in range(count)
    ]
    seen = torch.bincount(torch.tensor(drawn), minlength=VOCABULARY)
    possible = probability > 0
    assert not seen[~possible].any()
    statistic = float(((seen - probability * count) ** 2 / (probability * count))[possible].sum())
    freedom = int(possible.sum()) - 1
    assert statistic < freedom + 6 * (2 * freedom) ** 0.5


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=12), st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_tokens_whose_mass_reaches_p(logits: list[float], mass: float) -> None:
    row = torch.tensor([logits])
    kept = keep_top_p(row, mass)[0] > float("-inf")
    probability = row[0].double().softmax(-1)
    rounding = 1e-6
    assert probability[kept].sum() >= mass - rounding
    assert probability[kept].sum() - probability[kept].min() < mass + rounding, "one less would not be enough"
    if not kept.all():
        assert probability[kept].min() >= probability[~kept].max() - rounding


@pytest.mark.parametrize("scale", [0.01, 0.5, 4.0])
def test_a_nucleus_of_thousands_is_found_as_well_as_one_of_a_few(scale: float) -> None:
    logits = torch.randn(3, 9000, generator=torch.Generator().manual_seed(2)) * scale
    none = torch.empty(3, 0, dtype=torch.int64)
    for mass in (0.1, 0.9, 0.99):
        kept = keep_top_p(logits, mass) > float("-inf")
        expected = TopPLogitsWarper(mass)(none, logits) > float("-inf")
        # transformers sums thousands of small numbers in float32, from the other end
        assert int((kept != expected).sum()) <= 3


def test_top_p_keeps_the_likeliest_token_whatever_p() -> None:
    assert (keep_top_p(some_logits(), 1e-30) > float("-inf")).sum(-1).tolist() == [1] * 5


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12).filter(lambda some: sum(some) > 0.01),
    st.integers(0, (1 << 52) - 1) | st.sampled_from([0, (1 << 52) - 1]),
)
def test_a_pick_is_the_token_at_which_the_sum_passes_the_share(weights: list[float], bits: int) -> None:
    share = bits / (1 << 52)
    probabilities = torch.tensor([weights])
    chosen, finite = pick(probabilities, [share])
    token = int(chosen)
    sums = np.cumsum(probabilities[0].numpy().astype(np.float64))
    assert finite
    assert weights[token] > 0
    assert sums[token] > share * sums[-1] >= (sums[token - 1] if token else 0)


def test_a_row_draws_the_same_whatever_is_beside_it() -> None:
    logits = some_logits(4)
    together = Sampler([[0]] * 4, VOCABULARY, seed=7)
    first = [together.next(logits, [0, 1, 2, 3]) for _ in range(6)]
    for row in range(4):
        alone = Sampler([[0]], VOCABULARY, seed=7 + row)
        assert [alone.next(logits[row : row + 1], [0])[0] for _ in range(6)] == [tokens[row] for tokens in first]
    without = Sampler([[0]] * 4, VOCABULARY, seed=7)
    assert [without.next(logits[[1, 3]], [1, 3]) for _ in range(6)] == [[tokens[1], tokens[3]] for tokens in first]


def test_no_generator_but_its_own_is_touched() -> None:
    torch.manual_seed(0)
    random.seed(0)
    expected = torch.rand(1), random.random()
    torch.manual_seed(0)
    random.seed(0)
    Sampler([[0]], VOCABULARY).next(some_logits(1), [0])
    assert (torch.rand(1), random.random()) == expected


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-5, 0.0])
def test_the_colder_the_surer(temperature: float) -> None:
    logits = some_logits()
    drawn = Sampler([[0]] * 5, VOCABULARY, temperature=temperature).next(logits, range(5))
    assert drawn == logits.argmax(-1).tolist()


def test_heat_makes_all_tokens_alike() -> None:
    drawn = {
        Sampler([[0]], VOCABULARY, temperature=1e30, seed=seed).next(some_logits(1), [0])[0] for seed in range(600)
    }
    assert drawn == set(range(VOCABULARY))


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused(options: dict[str, float], bad: float) -> None:
    logits = some_logits(2)
    logits[1, 3] = bad
    with pytest.raises(NoNumbers, match="no numbers"):
        Sampler([[0]] * 2, VOCABULARY, **options).next(logits, [0, 1])  # type: ignore[arg-type]
