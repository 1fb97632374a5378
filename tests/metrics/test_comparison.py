"""Two on the same examples: McNemar's test against statsmodels, Tango's interval against published ones and as the very
interval that the test takes, the paired bootstrap against draws of its own making."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss
from statsmodels.stats.contingency_tables import mcnemar

from phalanx.metrics import (
    BadInput,
    Comparison,
    DifferentDefinition,
    PairedAccuracy,
    State,
    mcnemar_test,
    paired_bootstrap,
)

counts = st.tuples(*[st.integers(0, 60)] * 4).filter(lambda each: sum(each) > 0)


def state_of(neither: int, only_b: int, only_a: int, both: int, *arguments: Any, **options: Any) -> PairedAccuracy:
    truth = np.ones(neither + only_b + only_a + both, int)
    called_a = np.repeat([0, 0, 1, 1], [neither, only_b, only_a, both])
    called_b = np.repeat([0, 1, 0, 1], [neither, only_b, only_a, both])
    return PairedAccuracy(*arguments, **options).update(truth, called_a, called_b)


@given(counts)
def test_mcnemars_test_is_that_of_statsmodels(each: tuple[int, int, int, int]) -> None:
    neither, only_b, only_a, both = each
    table = [[both, only_a], [only_b, neither]]
    exact = state_of(*each).compute()
    assert exact.p_value == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-10)
    assert exact.difference == pytest.approx((only_a - only_b) / sum(each), abs=1e-15)
    for correction in (False, True):
        found = state_of(*each, "chi2", correction=correction).compute()
        if only_a == only_b:
            assert found.p_value == 1
        else:
            expected = mcnemar(table, exact=False, correction=correction).pvalue
            assert found.p_value == pytest.approx(expected, rel=1e-10)
    assert accuracy_score([1] * sum(each), [0] * (neither + only_b) + [1] * (only_a + both)) == exact.a


@pytest.mark.parametrize(
    ("only_a", "only_b"), [(5_000, 5_200), (1_000_000, 1_002_000), (500_000, 400), (30_000_000, 1)]
)
def test_the_exact_test_of_many_examples(only_a: int, only_b: int) -> None:
    state = PairedAccuracy.of_parts({"level": 0.9}, {"counts": np.array([0, only_b, only_a, 0])})
    expected = mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue
    assert state.compute().p_value == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_tangos_interval_is_as_published() -> None:
    # Bentur et al. 2009 in Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014) 2850.
    found = state_of(12, 7, 1, 1).compute()
    assert (found.difference, found.low, found.high) == pytest.approx((-0.286, -0.517, -0.026), abs=5e-4)
    # R's PropCIs::scoreci.mp(25, 28, 618) at 90 %, whose difference is the second less the first.
    found = state_of(300, 25, 28, 265, level=0.9).compute()
    assert (found.low, found.high) == pytest.approx((-0.0148, 0.0247), abs=5e-5)


@given(counts.filter(lambda each: each[1] != each[2]))
def test_tangos_interval_ends_at_no_difference_at_the_level_of_the_test(each: tuple[int, int, int, int]) -> None:
    neither, only_b, only_a, both = each
    p_value = mcnemar([[both, only_a], [only_b, neither]], exact=False, correction=False).pvalue
    assume(p_value > 1e-9)  # below, 1 - p does not hold its digits
    found = state_of(*each, level=1 - p_value).compute()
    assert (found.low if only_a > only_b else found.high) == pytest.approx(0, abs=1e-6)
    found = state_of(*each).compute()
    assert -1 <= found.low <= found.difference <= found.high <= 1


def test_where_nobody_errs_alone_there_is_an_interval_still() -> None:
    found = state_of(0, 0, 0, 50).compute()
    assert (found.p_value, found.difference) == (1, 0)
    assert found.high == pytest.approx(1.959963984540054**2 / (50 + 1.959963984540054**2), rel=1e-9)
    assert found.low == pytest.approx(-found.high, rel=1e-9)
    assert state_of(0, 0, 9, 0).compute().high == pytest.approx(1, abs=1e-12)


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 3), min_size=1, max_size=30), st.integers(0, 30))
def test_any_parts_give_the_state_of_the_whole(rows: list[tuple[str, str, str]], cut: int) -> None:
    whole = PairedAccuracy().update(*zip(*rows, strict=True))
    parts = [PairedAccuracy().update(*zip(*part, strict=True)) for part in (rows[cut:], rows[:cut]) if part]
    merged = PairedAccuracy()
    for part in parts:
        merged.merge(State.from_bytes(part.to_bytes()))
    assert merged == whole
    assert merged.compute() == whole.compute() == mcnemar_test(*zip(*rows, strict=True))
    only_a = sum(truth == a != b for truth, a, b in rows)
    both = sum(truth == a == b for truth, a, b in rows)
    assert (whole.only_a, whole.both) == (only_a, both)
    assert whole.only_b == sum(truth == b != a for truth, a, b in rows)


def test_the_paired_bootstrap_draws_the_same_examples_for_both() -> None:
    random = np.random.default_rng(1)
    truth = random.random(400) < 0.2
    a = random.standard_normal(400) + 2 * truth
    b = a + 0.6 * random.standard_normal(400)
    found = paired_bootstrap(average_precision_score, truth, a, b, repeats=200, seed=4)
    generator, draws = np.random.default_rng(4), []
    for _ in range(200):
        rows = generator.integers(400, size=400)
        draws.append(average_precision_score(truth[rows], a[rows]) - average_precision_score(truth[rows], b[rows]))
    low, high = np.percentile(draws, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert found.p_value == pytest.approx(
        2 * (1 + min(np.less_equal(draws, 0).sum(), np.greater_equal(draws, 0).sum())) / 201
    )
    assert found.difference == pytest.approx(average_precision_score(truth, a) - average_precision_score(truth, b))
    assert (found.n, found.metric, found.method) == (400, "average_precision_score", "paired bootstrap")
    assert found == paired_bootstrap(average_precision_score, truth, a, b, repeats=200, seed=4)


def test_one_that_is_the_same_is_not_better() -> None:
    values = np.linspace(0, 1, 50)
    found = paired_bootstrap(
        lambda truth, guess: -np.abs(truth - guess).mean(), values, values**2, values**2, name="loss"
    )
    assert (found.p_value, found.difference, found.better) == (1, 0, None)


def test_lower_may_be_better() -> None:
    random = np.random.default_rng(2)
    truth = random.random(500) < 0.4
    good, bad = np.where(truth, 0.8, 0.2), np.full(500, 0.5)
    found = paired_bootstrap(brier_score_loss, truth, bad, good, name="Brier", higher_is_better=False, repeats=200)
    assert found.better == "b"
    assert found.sentence("coin", "model") == (
        "model is better: -0.210 Brier (95 % interval -0.210 to -0.210, p = 0.010, paired bootstrap)"
    )


def test_draws_without_a_needle_are_counted_in_the_sentence() -> None:
    def recall(truth: np.ndarray, called: np.ndarray) -> float:
        return float(called[truth == 1].mean()) if (truth == 1).any() else math.nan

    truth, a, b = [1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]
    found = paired_bootstrap(recall, truth, a, b, repeats=300)
    assert 0 < found.undefined < 100  # (6/8)^8 = 0.10 of them
    assert f"{found.undefined:,} draws undefined" in found.sentence()
    assert paired_bootstrap(recall, truth, a, b, repeats=300, strata=truth).undefined == 0
    nothing = paired_bootstrap(recall, [0, 0], [1, 1], [0, 0], repeats=10)
    assert nothing.sentence() == (
        "nothing can be told: A minus B is undefined recall, and its spread is undefined on these 2 examples "
        "(paired bootstrap)"
    )


@pytest.mark.parametrize(
    ("numbers", "better", "sentence"),
    [
        (
            (0.012, 0.004, 0.020, 0.003),
            "a",
            "A is better: +0.012 F1 (95 % interval 0.004 to 0.020, p = 0.003, test)",
        ),
        (
            (-0.012, -0.020, -0.004, 0.0002),
            "b",
            "B is better: +0.012 F1 (95 % interval 0.004 to 0.020, p < 0.001, test)",
        ),
        (
            (3.5, -1.25, 8.25, 0.3),
            None,
            "no difference can be told: A minus B is +3.5 F1 (95 % interval -1.2 to 8.2, p = 0.300, test)",
        ),
    ],
)
def test_sentences_say_it_in_words(numbers: tuple[float, ...], better: str | None, sentence: str) -> None:
    difference, low, high, p_value = numbers
    assert (
        Comparison("F1", "test", 0.5, 0.5, -1e-9, -0.1, 0.1, 1.0, 9)
        .sentence()
        .startswith("no difference can be told: A minus B is +0.000 F1")
    )
    found = Comparison("F1", "test", 0.5 + difference, 0.5, difference, low, high, p_value, 100)
    assert found.better == better
    assert found.sentence() == sentence


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mcnemar_test([1, 0], [1], [1, 0]), "y_true has 2, called_a has 1, called_b has 2"),
        (lambda: mcnemar_test([], [], []), "no examples to compare on"),
        (lambda: mcnemar_test([1, 0], [1, 0], ["a", "b"]), "called_b and y_true are not both words"),
        (lambda: mcnemar_test([1, 0], [1, 0], [1, math.nan]), r"called_b\[1\] is nan"),
        (lambda: mcnemar_test([1, 0], [1, 0], [1, None]), r"called_b\[1\] has no value"),
        (lambda: mcnemar_test([1], [1], [1], "mid-p"), "exact or chi2, not 'mid-p'"),
        (lambda: mcnemar_test([1], [1], [1], level=0), "level of an interval"),
        (lambda: paired_bootstrap(accuracy_score, [1, 0], [1], [1, 0]), "y_true has 2, a has 1, b has 2"),
        (lambda: PairedAccuracy.of_parts({}, {"counts": np.array([1, -1, 0, 0])}), "no counts of two"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()


def test_other_tests_do_not_merge() -> None:
    with pytest.raises(DifferentDefinition, match="method is 'exact' here and 'chi2' there"):
        PairedAccuracy().merge(PairedAccuracy("chi2"))
