"""The certified interval holds the exact answer, whatever the scores are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.metrics import BadInput, DifferentDefinition, ScoreHistogram, State, rank
from phalanx.metrics.histogram import _bins

anything = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(anything, min_size=1, max_size=50), st.integers(10, 26))
def test_bins_are_in_the_order_of_scores(scores: list[float], bits: int) -> None:
    ordered = np.sort(np.array(scores))
    bins = _bins(ordered, bits)
    assert (np.diff(bins.astype(np.int64)) >= 0).all()
    assert int(bins.max()) < 1 << bits
    assert _bins(np.array([0.0, -0.0]), bits).tolist() == _bins(np.array([-0.0, 0.0], np.float32), bits).tolist()


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.5, 0.5001, 0.50011, -3.0]) | anything), min_size=2, max_size=60
    ).filter(lambda rows: 0 < sum(needle for needle, _ in rows) < len(rows)),
    st.sampled_from([10, 12, 20]),
    st.integers(0, 60),
)
def test_the_exact_answer_lies_in_the_interval(rows: list[tuple[bool, float]], bits: int, cut: int) -> None:
    labels, scores = [needle for needle, _ in rows], [score for _, score in rows]
    exact = rank(lambda: [(labels, scores)])
    state = ScoreHistogram(bits).update(labels[:cut], scores[:cut])
    state.merge(ScoreHistogram(bits).update(labels[cut:], scores[cut:]))
    assert state == ScoreHistogram(bits).update(labels, scores)
    found = state.compute()
    assert found.roc_auc.low <= exact.roc_auc <= found.roc_auc.high
    assert found.average_precision.low <= exact.average_precision <= found.average_precision.high
    assert (found.needles, found.straws) == (sum(labels), len(labels) - sum(labels))


def test_a_million_scores_are_placed_within_a_ten_thousandth() -> None:
    random = np.random.default_rng(5)
    labels = random.random(1_000_000) < 0.001
    scores = random.standard_normal(1_000_000) + 2 * labels
    found, exact = ScoreHistogram().update(labels, scores).compute(), rank(lambda: [(labels, scores)])
    assert found.roc_auc.high - found.roc_auc.low < 1e-4
    assert found.roc_auc.low <= exact.roc_auc <= found.roc_auc.high
    assert found.average_precision.low <= exact.average_precision <= found.average_precision.high
    assert found.roc_auc.value == pytest.approx(exact.roc_auc, abs=1e-4)


def test_its_size_does_not_grow() -> None:
    state = ScoreHistogram(12)
    sizes = set()
    for seed in range(3):
        scores = np.random.default_rng(seed).standard_normal(10_000)
        sizes.add(sum(part.nbytes for part in state.update(scores > 1, scores).parts().values()))
    assert sizes == {2 * 8 << 12}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ScoreHistogram(9), r"2\^10 to 2\^26 bins, not 2\^9"),
        (lambda: ScoreHistogram().update([1], [math.nan]), r"scores\[0\] is nan"),
        (lambda: ScoreHistogram().update([1, 0], [0.5]), "labels has 2, scores has 1"),
        (lambda: ScoreHistogram().update([1], [0.5]).compute(), "the straws are missing"),
        (lambda: ScoreHistogram().compute(), "the needles are missing"),
        (
            lambda: State.from_bytes(ScoreHistogram(12).to_bytes().replace(b'"bits": 12', b'"bits": 13')),
            "no state|no counts",
        ),
    ],
)
def test_bad_input(call: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()  # type: ignore[operator]


def test_other_bins_do_not_merge() -> None:
    with pytest.raises(DifferentDefinition, match="bits is 12 here and 13 there"):
        ScoreHistogram(12).merge(ScoreHistogram(13))
