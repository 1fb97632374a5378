"""Intervals: Wilson's against statsmodels and published ones, DeLong's against scipy, the bootstrap against scipy's on the
same draws."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from scipy.stats._resampling import BootstrapResult
from sklearn.metrics import average_precision_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from phalanx.metrics import (
    BadInput,
    Bleu,
    Curve,
    MeanLoss,
    bootstrap,
    bootstrap_ranking,
    bootstrap_states,
    rank,
    roc_auc_interval,
    wilson,
)
from phalanx.metrics.intervals import bootstrap_draws, normal_quantile

VALUES = np.random.default_rng(3).gamma(2.0, size=60)
LABELS = np.random.default_rng(4).random(3000) < 0.03
SCORES = np.random.default_rng(5).standard_normal(3000) + 1.5 * LABELS


@given(st.integers(1, 10**9), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_wilsons_interval_is_that_of_statsmodels(total: int, share: float, level: float) -> None:
    successes = round(share * total)
    found = wilson(successes, total, level)
    low, high = proportion_confint(successes, total, alpha=1 - level, method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value == successes / total


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_that_of_newcombe(successes: int, total: int, low: float, high: float) -> None:
    """Statistics in Medicine 17 (1998) 857, table I, method 3."""
    found = wilson(successes, total)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_of_nothing_a_share_is_undefined_and_may_be_anything() -> None:
    found = wilson(0, 0)
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0, 1)
    assert str(found) == "undefined (95 % interval 0.0 to 1.0, Wilson)"
    assert str(wilson(0, 100)) == "0.000 (95 % interval 0.000 to 0.037, Wilson)"
    assert wilson(0, 7).low == 0
    assert wilson(7, 7).high == 1


@given(st.floats(1e-6, 1 - 1e-6))
def test_quantiles_of_the_normal_are_those_of_scipy(level: float) -> None:
    assert normal_quantile(level) == pytest.approx(stats.norm.ppf((1 + level) / 2), rel=1e-9)


def test_delongs_interval_is_the_error_times_the_quantile_on_either_scale() -> None:
    curve = rank(lambda: [(LABELS, SCORES)])
    wins = (SCORES[LABELS][:, None] > SCORES[~LABELS]).astype(float)
    variance = sum(wins.mean(axis=axis).var(ddof=1) / wins.shape[1 - axis] for axis in (0, 1))
    area, error, quantile = roc_auc_score(LABELS, SCORES), math.sqrt(variance), stats.norm.ppf(0.95)
    found = roc_auc_interval(curve, 0.9)
    assert (found.value, found.low, found.high) == pytest.approx(
        (area, area - quantile * error, area + quantile * error), abs=1e-12
    )
    found = roc_auc_interval(curve, 0.9, logit=True)
    ends = special.expit(special.logit(area) + np.array([-1, 1]) * quantile * error / (area * (1 - area)))
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-12)
    assert found.method == "DeLong, logit"


def test_delongs_interval_stays_within_0_and_1_and_is_undefined_of_needles_wholly_apart() -> None:
    near = rank(lambda: [([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6])])
    assert roc_auc_interval(near).high == 1
    assert roc_auc_interval(near, logit=True).high < 1
    apart = rank(lambda: [([0, 0, 1, 1], [1, 2, 3, 4])])
    for logit in (False, True):
        found = roc_auc_interval(apart, logit=logit)
        assert found.value == 1
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    assert math.isnan(roc_auc_interval(rank(lambda: [([0, 1], [1, 2], [1, 2])])).low)


@pytest.mark.parametrize("statistic", [np.mean, np.median, lambda values: float(np.var(values))])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_both_bootstraps_are_scipys_on_the_same_draws(statistic: Any, level: float) -> None:
    _, draws = bootstrap_draws(statistic, VALUES, repeats=500, seed=1)
    for method in ("percentile", "bca"):
        found = bootstrap(statistic, VALUES, repeats=500, seed=1, level=level, method=method)
        expected = stats.bootstrap(
            (VALUES,),
            lambda sample, axis: np.apply_along_axis(statistic, axis, sample),
            n_resamples=0,
            confidence_level=level,
            method=method,
            bootstrap_result=BootstrapResult(None, draws, None),
        ).confidence_interval
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert found.value == statistic(VALUES)


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    first, again, other = (bootstrap(np.mean, VALUES, repeats=100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert str(first).startswith(f"{VALUES.mean():.3f} (95 % interval {first.low:.3f} to ")


def test_clusters_are_drawn_together() -> None:
    """Copies of an example are no new evidence: named as clusters, they leave its interval as it was."""
    alone = bootstrap(np.mean, VALUES, repeats=300, method="bca")
    order = np.random.default_rng(1).permutation(np.tile(np.arange(60), 5))
    together = bootstrap(np.mean, VALUES[order], clusters=order, repeats=300, method="bca")
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    apart = bootstrap(np.mean, VALUES[order], repeats=300)
    assert apart.high - apart.low < 0.6 * (alone.high - alone.low)


def test_clusters_of_unlike_size_are_whole_in_every_draw() -> None:
    clusters = ["a", "b", "a", "c", "b", "a"]
    rows = np.arange(6)

    def check(drawn: np.ndarray) -> float:
        counts = np.bincount(drawn, minlength=6)
        assert counts[0] == counts[2] == counts[5]
        assert counts[1] == counts[4]
        assert counts[0] + counts[1] + counts[3] == 3
        return float(counts[3])

    found = bootstrap_draws(check, rows, repeats=200, seed=0, clusters=clusters)
    assert found[0] == 1
    assert set(found[1]) == {0, 1, 2, 3}


def test_strata_keep_their_sizes() -> None:
    strata = np.array([1, 0, 0, 1, 0, 0, 0])

    def needles(drawn: np.ndarray) -> float:
        return float(strata[drawn].sum())

    assert set(bootstrap_draws(needles, np.arange(7), repeats=100, seed=0, strata=strata)[1]) == {2}
    assert len(set(bootstrap_draws(needles, np.arange(7), repeats=100, seed=0)[1])) > 2


def test_draws_without_a_value_are_left_out_and_counted() -> None:
    labels, scores = np.array([1, 0, 0, 0, 0]), np.array([2.0, 1, 3, 0, 0])

    def area(truth: np.ndarray, found: np.ndarray) -> float:
        return rank(lambda: [(truth, found)]).roc_auc

    found = bootstrap(area, labels, scores, repeats=400)
    assert 0.2 < found.undefined / 400 < 0.5  # (4/5)^5 = 0.33 of the draws have no needle
    assert found.low <= 0.75 <= found.high
    assert "draws undefined" in str(found)
    assert bootstrap(area, labels, scores, repeats=400, strata=labels).undefined == 0
    mostly = bootstrap(lambda rows: math.nan if len(set(rows)) < 5 else 1.0, np.arange(5), repeats=100)
    assert math.isnan(mostly.low)
    assert math.isnan(bootstrap(lambda rows: math.nan, np.arange(5), repeats=10).value)


def test_states_are_drawn_and_merged() -> None:
    texts = [
        ("the cat sat on the mat", "the cat sat on a mat"),
        ("a dog ran off", "the dog ran away"),
        ("x y", "x y z"),
    ]
    states = [Bleu().update([text], [reference]) for text, reference in texts]
    before = [state.to_bytes() for state in states]
    found = bootstrap_states(states, lambda state: state.compute().score, repeats=50, seed=2)
    whole = Bleu().update([text for text, _ in texts], [reference for _, reference in texts])
    assert found.value == whole.compute().score
    assert found.low < found.value < found.high
    assert [state.to_bytes() for state in states] == before
    losses = [MeanLoss().update([each], 1) for each in VALUES.tolist()]
    for method in ("percentile", "bca"):
        of_states = bootstrap_states(losses, lambda state: state.compute(), repeats=60, method=method)
        of_values = bootstrap(np.mean, VALUES, repeats=60, method=method)
        assert (of_states.low, of_states.high) == pytest.approx((of_values.low, of_values.high), abs=1e-12)


def test_a_ranking_is_drawn_by_its_gaps_as_by_its_examples() -> None:
    curve = rank(lambda: [(LABELS, SCORES)])
    quick = bootstrap_ranking(curve, lambda drawn: drawn.average_precision, repeats=1000)
    slow = bootstrap(average_precision_score, LABELS, SCORES, repeats=300, strata=LABELS)
    assert quick.value == pytest.approx(slow.value, abs=1e-12)
    assert quick.undefined == 0
    width = slow.high - slow.low
    assert (quick.low, quick.high) == pytest.approx((slow.low, slow.high), abs=0.15 * width)
    areas = bootstrap_ranking(curve, lambda drawn: drawn.roc_auc, repeats=1000)
    delong = roc_auc_interval(curve)
    assert (areas.low, areas.high) == pytest.approx((delong.low, delong.high), abs=0.15 * (delong.high - delong.low))
    assert bootstrap_ranking(curve, lambda drawn: drawn.positives + drawn.negatives).low == 3000
    assert bootstrap_ranking(curve, lambda drawn: drawn.recall_at_fpr(0.01), repeats=50).high <= 1


def test_a_draw_of_gaps_is_the_curve_of_its_examples() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    scores = np.array([5.0, 4, 4, 2, 6, 5, 4.5, 4, 3, 1])

    def check(drawn: Curve) -> float:
        gaps = np.concatenate([drawn.above, [drawn.below]])
        tops = np.append(np.inf, drawn.scores)
        bottoms = np.append(drawn.scores, -np.inf)
        inside = [
            scores[labels == 0][(low < scores[labels == 0]) & (scores[labels == 0] < top)]
            for low, top in zip(bottoms, tops, strict=True)
        ]
        assert all(len(held) or not count for held, count in zip(inside, gaps, strict=True))
        needles = np.repeat(drawn.scores, drawn.needles.astype(int))
        in_gaps = [np.full(int(count), held.mean()) for held, count in zip(inside, gaps, strict=True) if count]
        straws = np.concatenate([np.repeat(drawn.scores, drawn.straws.astype(int)), *in_gaps])
        assert (len(needles), len(straws)) == (4, 6)
        truth = np.repeat([1, 0], [4, 6])
        again = np.concatenate([needles, straws])
        assert drawn.average_precision == pytest.approx(average_precision_score(truth, again), abs=1e-12)
        assert drawn.roc_auc == pytest.approx(roc_auc_score(truth, again), abs=1e-12)
        return float(len(drawn.scores))

    found = bootstrap_ranking(rank(lambda: [(labels, scores)]), check, repeats=200)
    assert (found.value, found.low) == (3, 1)


def test_where_draws_do_not_vary_the_corrected_bootstrap_is_undefined() -> None:
    found = bootstrap(np.mean, np.ones(5), repeats=20, method="bca")
    assert (found.value, bootstrap(np.mean, np.ones(5), repeats=20).low) == (1, 1)
    assert math.isnan(found.low)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(1, 2, 95), "level of an interval lies between 0 and 1, not 95"),
        (lambda: wilson(3, 2), "3 of 2 is no share"),
        (lambda: wilson(-1, 2), "-1 of 2 is no share"),
        (lambda: wilson(math.nan, 2), "nan of 2 is no share"),
        (lambda: bootstrap(np.mean), "needs columns"),
        (lambda: bootstrap(np.mean, 7), "needs columns"),
        (lambda: bootstrap(np.mean, []), "no examples to draw from"),
        (lambda: bootstrap_states([], float), "no examples to draw from"),
        (lambda: bootstrap(np.mean, [1, 2], [1]), "column 0 has 2, column 1 has 1"),
        (lambda: bootstrap(np.mean, [1, 2], repeats=1), "many draws, not 1"),
        (lambda: bootstrap(np.mean, [1, 2], level=1), "level of an interval"),
        (lambda: bootstrap(np.mean, [1, 2], method="studentized"), "no bootstrap 'studentized'"),
        (lambda: bootstrap(np.mean, [1, 2], method="bca", strata=[1, 1]), "knows no strata"),
        (lambda: bootstrap(np.mean, [1, 2], clusters=[1, 2], strata=[1, 1]), "not by both"),
        (lambda: bootstrap(np.mean, [1, 2], clusters=[1, 2, 3]), "columns has 2, clusters has 3"),
        (lambda: bootstrap(np.mean, [1, 2], clusters=[1, 1]), "there is one cluster"),
        (lambda: bootstrap_ranking(rank(lambda: [([0, 1], [1, 2], [1, 2])]), float), "weighted examples"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()
