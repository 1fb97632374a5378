"""Probabilities judged: against scikit-learn, fractions of Python, and themselves however the data is cut."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from phalanx.metrics import BadInput, Brier, Calibration, DifferentDefinition, LogLoss
from phalanx.metrics.state import State

WORDS = ["cat", "ant", "bee"]


def drawn(seed: int, count: int) -> tuple[Any, Any, Any]:
    """Truths, chances and weights of three labels."""
    draw = np.random.default_rng(seed)
    chances = draw.dirichlet([1, 1, 1], count)
    codes = (chances.cumsum(axis=1) < draw.random(count)[:, None] * 0.999999).sum(axis=1) if count else np.zeros(0, int)
    return np.array(WORDS)[codes], chances, draw.integers(0, 4, count) / 2


@pytest.mark.parametrize("weighted", [False, True])
def test_of_two_classes_they_agree_with_scikit_learn(weighted: bool) -> None:
    draw = np.random.default_rng(1)
    chances = draw.random(50_000)
    truth = (draw.random(50_000) < chances**1.2).astype(int)
    weights = draw.random(50_000) if weighted else None
    loss = LogLoss(weighted=weighted).update(truth, chances, weights)
    assert loss.compute() == pytest.approx(sklearn.metrics.log_loss(truth, chances, sample_weight=weights), rel=1e-12)
    brier = Brier(weighted=weighted).update(truth, chances, weights).compute()
    assert brier == pytest.approx(sklearn.metrics.brier_score_loss(truth, chances, sample_weight=weights), rel=1e-12)
    if not weighted:
        found = Calibration(15).update(truth, chances).compute()
        happened, confidence = calibration_curve(truth, chances, n_bins=15)
        np.testing.assert_allclose(found.happened, happened, rtol=1e-12)
        np.testing.assert_allclose(found.confidence, confidence, rtol=1e-12)
        error = (np.abs(happened - confidence) * found.weight).sum() / 50_000
        assert found.expected_error == pytest.approx(error, rel=1e-10)
        assert found.largest_error == pytest.approx(np.abs(happened - confidence).max(), rel=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_of_several_labels_they_agree_with_scikit_learn(weighted: bool) -> None:
    truth, chances, weights = drawn(4, 3_000)
    heavy = weights if weighted else None
    ordered = chances[:, np.argsort(WORDS)]  # scikit-learn's columns are in the order of the alphabet
    loss = LogLoss(WORDS, weighted=weighted).update(truth, chances, heavy).compute()
    assert loss == pytest.approx(sklearn.metrics.log_loss(truth, ordered, sample_weight=heavy), rel=1e-12)
    brier = Brier(WORDS, weighted=weighted).update(truth, chances, heavy).compute()
    assert brier == pytest.approx(sklearn.metrics.brier_score_loss(truth, ordered, sample_weight=heavy), rel=1e-12)
    right = np.array(WORDS)[chances.argmax(axis=1)] == truth
    of_labels = Calibration(7, labels=WORDS, weighted=weighted).update(truth, chances, heavy)
    of_events = Calibration(7, weighted=weighted).update(right, chances.max(axis=1), heavy)
    assert of_labels.parts()["happened.digits"].tolist() == of_events.parts()["happened.digits"].tolist()
    assert repr(of_labels.compute()) == repr(of_events.compute())


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.booleans(), st.integers(1, 4), st.sampled_from([0, 1, 2]))
def test_any_split_and_order_gives_the_same_bits(seed: int, count: int, weighted: bool, parts: int, kind: int) -> None:
    truth, chances, weights = drawn(seed, count)

    def make() -> Any:
        made = [LogLoss(WORDS, weighted=weighted), Brier(WORDS, weighted=weighted)]
        return [*made, Calibration(5, labels=WORDS, weighted=weighted)][kind]

    whole, merged = make().update(truth, chances, weights if weighted else None), make()
    for part in np.array_split(np.random.default_rng(seed).permutation(count), parts):
        other = make().update(truth[part], chances[part], weights[part] if weighted else None)
        merged = State.from_bytes(other.to_bytes()).merge(merged)
    assert merged == whole
    assert repr(merged.compute()) == repr(whole.compute())


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.integers(0, 3)), max_size=20))
def test_calibration_and_brier_are_exact(rows: list[tuple[bool, float, int]]) -> None:
    truth, chances, weights = (
        np.array([row[0] for row in rows], bool),
        [row[1] for row in rows],
        [row[2] for row in rows],
    )
    brier = Brier(weighted=True).update(truth, chances, weights).compute()
    found = Calibration([0, 0.5, 1], weighted=True).update(truth, chances, weights).compute()
    total = sum(weights)
    if not total:
        assert all(map(math.isnan, (brier, found.expected_error, found.largest_error, *found.happened)))
        return
    exact = sum(weight * Fraction(float(event) - chance) ** 2 for event, chance, weight in rows) / total
    assert brier == pytest.approx(float(exact), rel=1e-15)
    gaps = [Fraction(0), Fraction(0)]
    for event, chance, weight in rows:
        gaps[chance > 0.5] += weight * (event - Fraction(chance))
    assert found.expected_error == pytest.approx(float(sum(map(abs, gaps)) / total), rel=1e-15)


def test_what_had_no_chance_costs_infinitely_much_unless_it_weighs_nothing() -> None:
    state = LogLoss().update([1, 0, 1], [0.0, 0.5, 0.5])
    assert (state.compute(), state.impossible) == (math.inf, 1)
    assert LogLoss(weighted=True).update([1, 0], [0.0, 0.5], [0, 1]).compute() == pytest.approx(math.log(2))
    assert LogLoss().update([1, 0], [1.0, 0.0]).compute() == 0
    assert math.isnan(LogLoss().compute())
    assert math.isnan(Brier().compute())
    assert math.isnan(LogLoss(WORDS).update([], np.zeros((0, 3))).compute())


def test_the_label_of_a_needle_can_be_named_and_an_edge_belongs_to_the_bin_below() -> None:
    assert Brier(positive="spam").update(["spam", "ham"], [1.0, 0.0]).compute() == 0
    found = Calibration(np.int64(2)).update([1, 0, 1], [0.0, 0.5, 0.500001]).compute()
    assert found.weight.tolist() == [2, 1]
    assert found.happened.tolist() == [0.5, 1]


@pytest.mark.parametrize(
    ("make", "fed", "words"),
    [
        (LogLoss, ([1, 0], [0.5, 1.5]), r"y_prob\[1\] is 1.5, no probability.*1 of 2 do not do\n.*softmax"),
        (LogLoss, ([1], [math.nan]), r"y_prob\[0\] is nan"),
        (LogLoss, ([2], [0.5]), "neither 0 nor 1"),
        (lambda: LogLoss(WORDS), (["dog"], [[1, 0, 0]]), r"y_true\[0\] is dog, none of the labels"),
        (lambda: LogLoss(WORDS), ([1], [[1, 0, 0]]), "not both words or both numbers"),
        (lambda: Brier(WORDS), (["cat"], [[0.5, 0, 0]]), r"y_prob\[0\] makes up 0.5, not 1; 1 of 1"),
        (lambda: Brier(WORDS), (["cat"], [[0.5, 0.5]]), r"shape \(1, 2\), not \[n, 3\]"),
        (Brier, ([1, 0], [0.5]), "y_true has 2, y_prob has 1"),
        (lambda: Brier(weighted=True), ([1], [0.5]), "missing, but this state was made with"),
        (lambda: Brier(["a"]), ([1], [0.5]), "two or more, each once"),
        (lambda: Brier(["a", "b"], positive="a"), ([1], [0.5]), "with labels"),
        (lambda: Calibration(0), ([1], [0.5]), "at least one bin"),
        (lambda: Calibration([1.0, 0.0]), ([1], [0.5]), "ascending"),
        (lambda: LogLoss.of_parts({}, {"count": np.array(-1)}), ([1], [0.5]), "of -1 examples"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, fed: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make().update(*fed)


def test_states_of_other_bins_do_not_merge() -> None:
    with pytest.raises(DifferentDefinition, match="bins is"):
        Calibration(3).merge(Calibration(4))
