"""Beam search: the texts of transformers, token for token, and what it must find by itself."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from phalanx.models import BeamSettings, GenerationSettings, beam_search, generate
from phalanx.models.sampling import NoNumbers
from tests.models.peers import FAMILIES, LENGTH, VOCABULARY, both, written_by_transformers

PROMPTS = [[3, 4, 5, 6, 7], [8, 9], [10, 11, 12]]
STOP = tuple(range(0, VOCABULARY, 7))


def texts(family: str, prompts: list[list[int]] = PROMPTS, **options: Any) -> list[tuple[int, ...]]:
    found = beam_search(both(family)[1], prompts, BeamSettings(**options))
    return [hypothesis.tokens for hypotheses in found for hypothesis in hypotheses]


@pytest.mark.parametrize("family", ["gpt2-untied", "llama"])
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0, 2.0])
def test_it_finds_the_texts_of_transformers(family: str, penalty: float) -> None:
    for early, (beams, stop) in product((True, False, "never"), ((4, ()), (3, STOP), (2, STOP))):
        options = {"length_penalty": penalty, "early_stopping": early}
        ours = texts(family, beams=beams, returned=2, max_tokens=12, stop=stop, **options)
        theirs = written_by_transformers(
            family, PROMPTS, stop, num_beams=beams, num_return_sequences=2, max_new_tokens=12, **options
        )
        assert ours == theirs, (beams, early, stop)


def test_the_comparison_saw_texts_that_ended_and_texts_that_did_not() -> None:
    settings = BeamSettings(beams=2, max_tokens=12, stop=STOP, returned=2)
    for family in ("gpt2-untied", "llama"):
        found = beam_search(both(family)[1], PROMPTS, settings)
        assert {hypothesis.ended for hypotheses in found for hypothesis in hypotheses} == {True, False}


@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_repetition_penalty_too(family: str) -> None:
    for prompt in PROMPTS:  # transformers would also weaken what pads a batch
        ours = texts(family, [prompt], beams=3, max_tokens=12, repetition_penalty=1.5, stop=(0,))
        theirs = written_by_transformers(family, [prompt], (0,), num_beams=3, max_new_tokens=12, repetition_penalty=1.5)
        assert ours == theirs


@pytest.mark.parametrize("family", FAMILIES)
def test_one_beam_is_the_greedy_text(family: str) -> None:
    model = both(family)[1]
    greedy = [step[0] for step in generate(model, PROMPTS[:1], GenerationSettings(max_tokens=15, temperature=0))]
    assert texts(family, PROMPTS[:1], beams=1, max_tokens=15) == [tuple(greedy)]


def test_as_many_beams_as_there_are_texts_find_the_likeliest_of_all() -> None:
    """Two tokens, every pair tried."""
    model = both("gpt2")[1]
    prompt = PROMPTS[0]
    rows = torch.tensor([[*prompt, first] for first in range(VOCABULARY)])
    with torch.no_grad():
        chances = model(rows).log_softmax(-1)
    totals = chances[0, len(prompt) - 1][:, None] + chances[:, -1]
    best = totals.flatten().topk(3)
    found = beam_search(model, [prompt], BeamSettings(beams=VOCABULARY, max_tokens=2, returned=3, length_penalty=0.0))[
        0
    ]
    assert [hypothesis.tokens for hypothesis in found] == [divmod(int(at), VOCABULARY) for at in best.indices]
    torch.testing.assert_close(torch.tensor([hypothesis.score for hypothesis in found]), best.values)


def test_prompts_do_not_disturb_each_other() -> None:
    options = {"beams": 3, "max_tokens": 10, "stop": (0, 7)}
    assert texts("llama", **options) == [text for prompt in PROMPTS for text in texts("llama", [prompt], **options)]


def test_a_penalty_that_makes_scores_huge_still_finds_texts() -> None:
    found = beam_search(both("llama")[1], PROMPTS[:1], BeamSettings(max_tokens=40, length_penalty=-5.0))
    assert found[0][0].score < -1e9
    assert len(found[0][0].tokens) == 40


def test_it_ends_where_the_model_ends() -> None:
    room = LENGTH - len(PROMPTS[0])
    assert len(texts("gpt2", beams=2, max_tokens=room)[0]) == room
    with pytest.raises(ValueError, match=f"5 tokens of prompt and {room + 1} more: the model reads {LENGTH} at once"):
        texts("gpt2", beams=2, max_tokens=room + 1)


@pytest.mark.parametrize(
    "options",
    [
        {"beams": 0},
        {"beams": 2, "returned": 3},
        {"returned": 0},
        {"max_tokens": 0},
        {"repetition_penalty": 0.0},
        {"length_penalty": 5.1},
        {"length_penalty": float("nan")},
    ],
)
def test_settings_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"beams|max_tokens|length_penalty"):
        BeamSettings(**options)


def test_prompts_that_cannot_be_gone_on_with_are_refused() -> None:
    for prompts in ([], [[]], [[VOCABULARY]]):
        with pytest.raises(ValueError, match="prompt"):
            beam_search(both("gpt2")[1], prompts)


def test_a_model_whose_answers_are_no_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = both("gpt2")[1]
    monkeypatch.setattr(model, "judge", lambda hidden: torch.full((*hidden.shape[:-1], VOCABULARY), float("nan")))
    with pytest.raises(NoNumbers):
        beam_search(model, PROMPTS, BeamSettings(max_tokens=3))
