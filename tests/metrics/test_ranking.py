"""Rankings by needles, against scikit-learn, a DeLong by its definition over all pairs, and any split of the same data."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from phalanx.metrics import BadInput, Curve, DifferentDefinition, Gaps, Needles, State, rank

levels = st.sampled_from([-2.5, -1.0, -0.0, 0.0, 0.1, 0.5, 1e-300, 7.0, 1e30])
examples = st.lists(
    st.tuples(st.booleans(), levels | st.floats(-1e6, 1e6, width=32), st.floats(0.125, 8)), min_size=2, max_size=40
).filter(lambda rows: 0 < sum(needle for needle, _, _ in rows) < len(rows))


def columns(rows: list[tuple[bool, float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.array([needle for needle, _, _ in rows]),
        np.array([score for _, score, _ in rows]),
        np.array([weight for _, _, weight in rows]),
    )


@given(examples, st.booleans())
def test_areas_are_those_of_scikit_learn(rows: list[tuple[bool, float, float]], weighted: bool) -> None:
    labels, scores, weights = columns(rows)
    found = rank(lambda: [(labels, scores, weights) if weighted else (labels, scores)])
    given_weights = weights if weighted else None
    assert found.roc_auc == pytest.approx(roc_auc_score(labels, scores, sample_weight=given_weights), abs=1e-12)
    expected = average_precision_score(labels, scores, sample_weight=given_weights)
    assert found.average_precision == pytest.approx(expected, abs=1e-12)
    false, true, _ = roc_curve(labels, scores, sample_weight=given_weights, drop_intermediate=False)
    for rate in (0.05, 0.3, 1.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            partial = roc_auc_score(labels, scores, max_fpr=rate, sample_weight=given_weights)
        assert found.partial_auc(rate) == pytest.approx(partial, abs=1e-12)
        assert found.recall_at_fpr(rate) == pytest.approx(true[false <= rate * (1 + 1e-12)].max(), abs=1e-9)
    mine = np.column_stack(found.roc())
    for point in np.column_stack([false, true]):  # of needles' scores all corners, of others those on straight lines
        below = np.interp(point[0], mine[:, 0], mine[:, 1], left=0)
        assert below >= point[1] - 1e-12 or (np.abs(mine - point).max(axis=1) < 1e-12).any()


@given(examples)
def test_the_error_is_delongs_by_definition(rows: list[tuple[bool, float, float]]) -> None:
    labels, scores, _ = columns(rows)
    needles, straws = scores[labels], scores[~labels]
    found = rank(lambda: [(labels, scores)])
    if len(needles) < 2 or len(straws) < 2:
        assert math.isnan(found.roc_auc_error)
        return
    wins = (needles[:, None] > straws) + 0.5 * (needles[:, None] == straws)
    variance = wins.mean(axis=1).var(ddof=1) / len(needles) + wins.mean(axis=0).var(ddof=1) / len(straws)
    assert found.roc_auc_error == pytest.approx(math.sqrt(variance), abs=1e-12)
    assert found.roc_auc == pytest.approx(wins.mean(), abs=1e-14)


@settings(max_examples=40)
@given(
    examples,
    st.booleans(),
    st.lists(st.integers(0, 40), max_size=3),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)
def test_streams_and_ranks_give_the_bits_of_one_array(
    rows: list[tuple[bool, float, float]], weighted: bool, cuts: list[int], backwards: bool, kind: type
) -> None:
    labels, scores, weights = columns(rows)
    scores = scores.astype(kind)
    whole = (labels, scores, weights) if weighted else (labels, scores)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [tuple(each[a:b] for each in whole) for a, b in itertools.pairwise(edges)][:: -1 if backwards else 1]

    def over_ranks(make: object, batches: list[tuple[np.ndarray, ...]]) -> State:
        ranks = [make().update(*batch) for batch in batches]  # type: ignore[operator]
        sent = [State.from_bytes(each.to_bytes()) for each in ranks]
        for other in sent[1:]:
            sent[0].merge(other)
        return sent[0]

    one = Needles(weighted=weighted).update(*whole)
    many = over_ranks(lambda: Needles(weighted=weighted), parts)
    assert one == many
    assert isinstance(many, Needles)
    one_gaps, many_gaps = one.gaps().update(*whole), over_ranks(many.gaps, parts)
    assert one_gaps == many_gaps
    a, b = one_gaps.compute(), many_gaps.compute()
    assert isinstance(b, Curve)
    assert (a.roc_auc, a.average_precision) == (b.roc_auc, b.average_precision)


def test_thousands_of_needles_and_batches_of_a_generator_opened_twice() -> None:
    opened = 0

    def batches() -> object:
        nonlocal opened
        opened += 1
        random = np.random.default_rng(3)
        for _ in range(5):
            labels = random.random(200_000) < 0.01
            yield labels, np.round(random.standard_normal(200_000) + labels, 3).astype(np.float32)

    found = rank(batches)
    assert opened == 2
    labels, scores = (np.concatenate(column) for column in zip(*batches(), strict=True))
    assert found.roc_auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-13)
    assert found.average_precision == pytest.approx(average_precision_score(labels, scores), abs=1e-13)


def test_scores_of_one_kind_of_float_among_another_keep_their_places() -> None:
    needles = Needles().update([1, 1, 0], np.array([0.1, 0.5, 0.2]))  # 0.1 is less as a float32 than as a float64
    gaps = needles.gaps().update([1, 1, 0], np.array([0.1, 0.5, 0.2]))
    assert gaps.compute().roc_auc == 0.5
    single = np.array([0.1], np.float32)
    mixed = Needles().update([1], np.array([0.1])).update([0], single)
    assert mixed.gaps().update([1], np.array([0.1])).update([0], single).compute().roc_auc == 0.0


@pytest.mark.parametrize(
    ("labels", "scores", "weights", "words"),
    [
        ([0, 0], [0.1, 0.2], None, "the needles are missing: a ranking needs both classes"),
        ([1, 1], [0.1, 0.2], None, "the straws are missing"),
        ([], [], None, "the needles are missing"),
        ([0, 1], [0.1, 0.2], [0, 1], "the straws weigh nothing together"),
        ([0, 1], [0.1, 0.2], [1, 0], "the needles weigh nothing together"),
        ([0, 1], [0.1, math.nan], None, r"scores\[1\] is nan"),
        ([0, 2], [0.1, 0.2], None, r"labels\[1\] is 2, neither 0 nor 1"),
    ],
)
def test_what_cannot_be_ranked_is_refused(labels: list[int], scores: list[float], weights: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        rank(lambda: [(labels, scores) if weights is None else (labels, scores, weights)])


def test_a_source_that_gives_other_scores_the_second_time_is_noticed() -> None:
    sources = iter([[([0, 1, 0], [0.1, 0.2, 0.3])], [([0, 1], [0.1, 0.2])]])
    with pytest.raises(BadInput, match="the second pass saw 1 needles and 1 straws, the first 1 and 2"):
        rank(lambda: next(sources))
    with pytest.raises(BadInput, match="there are no scores"):
        rank(list)


def test_gaps_between_other_needles_do_not_merge() -> None:
    one, other = (Needles().update([1, 0], [score, 0.0]).gaps() for score in (0.5, 0.75))
    with pytest.raises(DifferentDefinition, match="needles is '"):
        one.merge(other)
    with pytest.raises(DifferentDefinition, match="a Gaps does not merge with a Needles"):
        one.merge(Needles())  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="whose needles are not those"):
        Gaps.of_parts(one.definition(), other.parts())


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, math.nan])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    found = rank(lambda: [([0, 1], [0.1, 0.2])])
    with pytest.raises(BadInput, match="false-positive rate lies"):
        found.partial_auc(rate)
    if rate != 0:
        with pytest.raises(BadInput, match="false-positive rate lies"):
            found.recall_at_fpr(rate)
