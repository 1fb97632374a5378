"""DeLong's test of two rankings: the values that pROC publishes, its definition over all pairs, scikit-learn's areas, and
the same bits from any parts."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from phalanx.metrics import (
    BadInput,
    Comparison,
    DifferentDefinition,
    PairedGaps,
    PairedNeedles,
    State,
    compare_rankings,
    delong_test,
    paired,
    rank,
    roc_auc_interval,
)

# 113 patients with a subarachnoid haemorrhage: outcome (1 is poor), and three markers of it. Turck et al., Intensive
# Care Medicine 36 (2010) 107; the data set aSAH of the R package pROC (Robin et al., BMC Bioinformatics 12 (2011) 77).
_OUTCOME = """
0 0 0 0 1 1 0 1 0 0 1 0 1 1 0 0 1 0 1 1 1 0 1 0 0 0 0 0 0 0 0 0 1 0 0 1 1 0 1 1 0 0 0 0 0 0 0 0 0 1 1 0 0 0 1 0
0 0 1 0 1 0 0 1 1 1 0 1 1 0 1 1 1 1 0 0 0 1 1 0 1 0 0 0 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 1 1 1 1 1 1 0 0 0 1 0 0
0
"""
_WFNS = """
1 1 1 1 3 2 5 4 1 2 5 2 5 5 1 2 5 2 2 5 2 1 1 1 1 2 1 2 1 1 3 4 2 1 4 5 4 1 4 2 5 5 1 1 2 4 1 1 2 5 5 2 1 2 5 1
2 2 2 1 5 1 1 2 5 2 1 4 5 2 4 4 1 4 1 2 1 4 2 1 2 3 2 4 2 1 4 5 1 1 5 4 2 2 1 1 1 3 1 2 5 2 2 5 5 5 2 4 4 5 1 1
1
"""
_S100B = """
0.13 0.14 0.1 0.04 0.13 0.1 0.47 0.16 0.18 0.1 0.12 0.1 0.44 0.71 0.04 0.08 0.49 0.04 0.07 0.33 0.09 0.09 0.07
0.11 0.07 0.17 0.07 0.11 0.13 0.19 0.05 0.16 0.41 0.14 0.34 0.35 0.48 0.09 0.96 0.25 0.5 0.46 0.16 0.07 0.43
0.45 0.11 0.08 0.09 0.86 0.52 0.08 0.06 0.13 2.07 0.1 0.14 0.15 0.07 0.06 0.77 0.05 0.09 0.3 0.03 0.09 0.04 0.23
0.7 0.09 0.27 0.71 0.08 0.26 0.08 0.16 0.09 0.13 0.1 0.08 0.11 0.33 0.11 0.28 0.07 0.1 0.32 0.22 0.07 0.05 0.24
0.38 0.1 0.15 0.08 0.14 0.1 0.07 0.04 0.19 0.56 0.14 0.58 0.32 0.82 0.74 0.15 0.47 0.17 0.44 0.15 0.5 0.48
"""
_NDKA = """
3.01 8.54 8.09 10.42 17.4 12.75 6 13.2 15.54 6.01 15.96 17.86 5.18 8.9 13.41 20.75 11.6 16.11 32.37 54.82 32.41
49.94 40.34 9.47 6.29 12.53 6.54 6.3 80.3 12.8 9.8 9.81 9.85 18.21 5.03 14.04 21.93 8.02 7.42 8.38 6.59 9.63
13.12 7.96 14.34 41.43 7.63 7.06 12.59 13.56 3.87 9.44 7.66 12.98 419.19 27.19 22.27 9.95 21.22 11.73 10.4 58.83
6.39 11.09 12.22 13.67 17.21 22.63 12.9 9.7 21.57 8.23 72.57 15.54 10.51 10.6 14.57 5.19 9.63 4.61 21.48 17.3
12.71 9.44 11.07 19.46 10.83 5.37 11.97 7.75 9.83 10.55 28.49 8.53 12.57 12.9 46.83 11.68 12.67 9.01 9.57 34.06
11.72 14.26 47.61 11.67 24.58 10.33 13.87 15.89 22.43 6.79 13.45
"""
OUTCOME, WFNS, S100B, NDKA = (np.array(each.split(), float) for each in (_OUTCOME, _WFNS, _S100B, _NDKA))
RANDOM = np.random.default_rng(0)

levels = st.sampled_from([-1.0, -0.0, 0.0, 0.1, 0.5, 1e30]) | st.floats(-1e6, 1e6, width=32)
examples = st.lists(st.tuples(st.booleans(), levels, levels), min_size=4, max_size=30).filter(
    lambda rows: 2 <= sum(needle for needle, _, _ in rows) <= len(rows) - 2
)


def columns(rows: list[tuple[bool, float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, a, b = zip(*rows, strict=True)
    return np.array(labels), np.array(a), np.array(b)


def by_definition(labels: np.ndarray, *scores: np.ndarray) -> tuple[list[float], float]:
    """The areas and the standard error of their difference, from every pair of a needle and a straw."""
    wins = []
    for each in scores:
        needles, straws = each[labels.astype(bool)][:, None], each[~labels.astype(bool)]
        wins.append((needles > straws) + 0.5 * (needles == straws))
    of_needles, of_straws = (np.cov([each.mean(axis=axis) for each in wins]) for axis in (1, 0))
    covariance = of_needles / wins[0].shape[0] + of_straws / wins[0].shape[1]
    contrast = np.array([1, -1])
    return [each.mean() for each in wins], math.sqrt(max(contrast @ covariance @ contrast, 0))


@pytest.mark.parametrize(
    ("a", "b", "statistic", "p_value", "low", "high"),
    [  # tests/testthat/test-roc.test.R of pROC
        (WFNS, S100B, 2.20898359144091, 0.0271757822291882, 0.0104061769564846, 0.174214419249478),
        (WFNS, NDKA, 2.79777591868904, 0.00514557970691098, 0.0634011709339876, 0.3600405634833566),
        (NDKA, S100B, -1.39077002573558, 0.164295175223054, -0.2876917446341914, 0.0488706064228094),
    ],
)
def test_it_is_what_proc_publishes(
    a: np.ndarray, b: np.ndarray, statistic: float, p_value: float, low: float, high: float
) -> None:
    found = delong_test(OUTCOME, a, b)
    assert found.p_value == pytest.approx(p_value, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    error = (found.high - found.low) / 2 / 1.959963984540054
    assert found.difference / error == pytest.approx(statistic, rel=1e-12)
    assert found.n == 113


def test_areas_and_their_intervals_are_those_of_proc() -> None:
    needles = PairedNeedles().update(OUTCOME, NDKA, S100B)
    first, second = needles.gaps().update(OUTCOME, NDKA, S100B).curves()
    found = roc_auc_interval(first)  # tests/testthat/test-ci.auc.R of pROC
    expected = (0.501244999271703, 0.611957994579946, 0.722670989888189)
    assert (found.low, found.value, found.high) == pytest.approx(expected, rel=1e-12)
    assert second.roc_auc == pytest.approx(0.731368563685637, rel=1e-12)
    assert delong_test(OUTCOME, NDKA, WFNS).b == pytest.approx(0.8237, abs=5e-5)


def test_the_sentence_says_which_is_better() -> None:
    assert delong_test(OUTCOME, WFNS, S100B).sentence("WFNS", "S100b") == (
        "WFNS is better: +0.092 ROC-AUC (95 % interval 0.010 to 0.174, p = 0.027, DeLong)"
    )
    assert delong_test(OUTCOME, S100B, WFNS).sentence("S100b", "WFNS") == (
        "WFNS is better: +0.092 ROC-AUC (95 % interval 0.010 to 0.174, p = 0.027, DeLong)"
    )
    assert delong_test(OUTCOME, NDKA, S100B).sentence() == (
        "no difference can be told: A minus B is -0.119 ROC-AUC (95 % interval -0.288 to 0.049, p = 0.164, DeLong)"
    )
    assert delong_test(OUTCOME, WFNS, S100B, level=0.99).better is None


@given(examples)
@settings(deadline=None)
def test_it_is_delongs_by_definition_and_the_areas_are_those_of_scikit_learn(
    rows: list[tuple[bool, float, float]],
) -> None:
    labels, a, b = columns(rows)
    found = delong_test(labels, a, b)
    (area_a, area_b), error = by_definition(labels, a, b)
    assert found.a == pytest.approx(roc_auc_score(labels, a), abs=1e-12)
    assert found.b == pytest.approx(roc_auc_score(labels, b), abs=1e-12)
    assert found.difference == pytest.approx(area_a - area_b, abs=1e-12)
    if error < 1e-9:
        assert found.p_value == 1 or math.isnan(found.p_value)
        return
    assert found.low == pytest.approx(max(-1, area_a - area_b - 1.959963984540054 * error), abs=1e-9)
    assert found.high == pytest.approx(min(1, area_a - area_b + 1.959963984540054 * error), abs=1e-9)
    assert found.p_value == pytest.approx(math.erfc(abs(area_a - area_b) / error / math.sqrt(2)), abs=1e-9)


@given(examples, st.integers(0, 30), st.integers(0, 30), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_any_parts_in_any_order_give_the_bits_of_the_whole(
    rows: list[tuple[bool, float, float]], cut: int, second_cut: int, random: Any
) -> None:
    whole = PairedNeedles().update(*columns(rows))
    expected = whole.gaps().update(*columns(rows))
    shuffled = list(rows)
    random.shuffle(shuffled)

    def in_parts(make: Any, at: int) -> Any:
        one, two = make(), make()
        for part in (shuffled[at:], shuffled[:at]):
            if part:
                two.update(*columns(part))
            one, two = State.from_bytes(two.to_bytes()), one
        return one.merge(two)

    needles = in_parts(PairedNeedles, cut)
    assert needles == whole
    gaps = in_parts(needles.gaps, second_cut)
    assert gaps == expected
    assert gaps.compute() == expected.compute()


@given(examples)
def test_curves_are_those_of_each_alone(rows: list[tuple[bool, float, float]]) -> None:
    labels, a, b = columns(rows)
    first, second = PairedNeedles().update(labels, a, b).gaps().update(labels, a, b).curves()
    for found, scores in ((first, a), (second, b)):
        alone = rank(lambda scores=scores: [(labels, scores)])
        assert found.roc_auc == alone.roc_auc
        assert found.average_precision == alone.average_precision
        assert np.array_equal(found.scores, alone.scores)


def test_chunks_are_so_small_that_products_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = RANDOM.random(5000) < 0.05
    a, b = (np.round(RANDOM.standard_normal(5000) + labels, 1) for _ in range(2))
    expected = delong_test(labels, a, b)
    needles = int(labels.sum())
    monkeypatch.setattr(paired, "_MOST", 7 * (2 * needles) ** 2)
    state = PairedNeedles().update(labels, a, b).gaps()
    assert state._chunk == 7
    assert state.update(labels, a, b).compute() == expected
    (area_a, area_b), error = by_definition(labels, a, b)
    assert expected.difference == pytest.approx(area_a - area_b, abs=1e-13)
    assert (expected.high - expected.low) / 2 == pytest.approx(1.959963984540054 * error, rel=1e-11)


def test_sums_beyond_64_bits_stay_exact() -> None:
    labels = np.arange(40) % 4 == 0
    a, b = (RANDOM.integers(0, 12, 40).astype(float) + labels for _ in range(2))
    once, twice = delong_test(labels, a, b), 55
    needles = PairedNeedles().update(labels, a, b)
    needles.straws <<= twice
    state = needles.gaps().update(labels[~labels], a[~labels], b[~labels])
    for _ in range(twice):
        state = State.from_bytes(state.to_bytes()).merge(state)
    assert isinstance(state, PairedGaps)
    state.update(labels[labels], a[labels], b[labels])
    assert state._products > 1 << 63
    found = State.from_bytes(state.to_bytes()).compute()
    assert (found.a, found.b, found.difference) == (once.a, once.b, once.difference)
    pairs = [
        (each[labels][:, None] > each[~labels]) + 0.5 * (each[labels][:, None] == each[~labels]) for each in (a, b)
    ]
    of_needles = math.sqrt((pairs[0].mean(axis=1) - pairs[1].mean(axis=1)).var(ddof=1) / labels.sum())
    assert (found.high - found.low) / 2 == pytest.approx(1.959963984540054 * of_needles, rel=1e-12)


def test_of_two_that_are_equally_good_one_in_twenty_is_called_better() -> None:
    random, called = np.random.default_rng(8), 0
    labels = np.arange(240) < 60
    for _ in range(400):
        shared = random.standard_normal(240) + labels
        found = delong_test(labels, *(shared + random.standard_normal(240) for _ in range(2)))
        called += found.better is not None
    assert 0.02 < called / 400 < 0.085  # 0.05 +- 3 standard errors


def test_where_nothing_tells_them_apart_the_p_value_is_one() -> None:
    found = delong_test(OUTCOME, WFNS, 2 * WFNS + 1)
    assert (found.p_value, found.difference, found.low, found.high) == (1.0, 0.0, 0.0, 0.0)
    assert found.better is None
    assert found.sentence().startswith("no difference can be told: A minus B is +0.000 ROC-AUC")


def test_where_chance_cannot_be_judged_nothing_is_told() -> None:
    found = delong_test([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert found.difference == 1
    assert math.isnan(found.p_value)
    assert math.isnan(found.low)
    assert found.better is None
    assert found.sentence() == (
        "nothing can be told: A minus B is 1.000 ROC-AUC, and its spread is undefined on these 4 examples (DeLong)"
    )


def test_labels_that_are_words_and_narrow_floats_are_taken() -> None:
    words = np.where(OUTCOME == 1, "poor", "good")
    found = delong_test(words, S100B.astype(np.float32), WFNS.astype(np.float16), positive="poor")
    expected = delong_test(OUTCOME, S100B.astype(np.float32).astype(float), WFNS)
    assert found == expected
    assert isinstance(found, Comparison)


@pytest.mark.parametrize(
    ("labels", "a", "b", "message"),
    [
        ([0, 1], [1, 2, 3], [1, 2], "labels has 2, scores_a has 3, scores_b has 2"),
        ([0, 0, 1, 1], [1, 2, 3, math.nan], [1, 2, 3, 4], r"scores_a\[3\] is nan, not a finite number; 1 of 4"),
        ([0, 0, 1, 1], [1, 2, 3, 4], [1, math.inf, 3, 4], r"scores_b\[1\] is inf"),
        ([0, 0, 2, 1], [1, 2, 3, 4], [1, 2, 3, 4], r"labels\[2\] is 2, neither 0 nor 1"),
        ([1, 1, 1], [1, 2, 3], [1, 2, 3], "two needles and two straws, not 3 and 0"),
        ([0, 0, 0], [1, 2, 3], [1, 2, 3], "two needles and two straws, not 0 and 3"),
        ([0, 0, 1], [1, 2, 3], [1, 2, 3], "two needles and two straws, not 1 and 2"),
        ([], [], [], "two needles and two straws, not 0 and 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(labels: Any, a: Any, b: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        delong_test(labels, a, b)


def test_a_source_that_changes_between_passes_is_noticed() -> None:
    batches = iter([[(OUTCOME, WFNS, NDKA)], [(OUTCOME[1:], WFNS[1:], NDKA[1:])]])
    with pytest.raises(BadInput, match="second pass saw 41 needles and 71 straws, the first 41 and 72"):
        compare_rankings(lambda: next(batches))


def test_other_needles_do_not_merge_and_other_bytes_are_refused() -> None:
    gaps = PairedNeedles().update(OUTCOME, WFNS, NDKA).gaps()
    with pytest.raises(DifferentDefinition, match="needles is"):
        gaps.merge(PairedNeedles().update(OUTCOME, WFNS, S100B).gaps())
    with pytest.raises(BadInput, match="no scores of needles in pairs"):
        PairedNeedles.of_parts({}, {"pairs": np.zeros((2, 3)), "straws": np.array(1)})
    with pytest.raises(BadInput, match="needles are not those"):
        PairedGaps.of_parts(gaps.definition(), gaps.parts() | {"pairs": np.zeros((41, 2))})
    with pytest.raises(BadInput, match="level of an interval lies between 0 and 1, not 95"):
        delong_test(OUTCOME, WFNS, NDKA, level=95)
