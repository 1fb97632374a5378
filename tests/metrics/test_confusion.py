"""Confusion matrices against scikit-learn, and by the same bits from any parts."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from phalanx.metrics import BadInput, Confusion, ConfusionMatrix, DifferentDefinition, State

kinds = st.sampled_from([["a", "bc", "ä"], [0, 1], [-5, 3, 2**40], [False, True], [2.0, 7.0, -1.0]])


@st.composite
def guesses(draw: st.DrawFn) -> tuple[list[object], list[object], list[float]]:
    labels = draw(kinds)
    size = draw(st.integers(1, 30))
    column = st.lists(st.sampled_from(labels), min_size=size, max_size=size)
    return draw(column), draw(column), draw(st.lists(st.floats(0.25, 4), min_size=size, max_size=size))


@settings(max_examples=40)
@given(guesses(), st.booleans())
def test_the_matrix_and_what_follows_are_those_of_scikit_learn(
    data: tuple[list[object], list[object], list[float]], weighted: bool
) -> None:
    truth, called, weights = data
    found = ConfusionMatrix(weighted=weighted).update(truth, called, weights if weighted else None).compute()
    options = {"sample_weight": weights if weighted else None}
    close = {"abs": 1e-12, "nan_ok": True}
    assert list(found.labels) == sorted(set(truth) | set(called))
    assert found.counts == pytest.approx(sklearn_metrics.confusion_matrix(truth, called, **options), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found.accuracy == pytest.approx(sklearn_metrics.accuracy_score(truth, called, **options))
        expected = sklearn_metrics.balanced_accuracy_score(truth, called, **options)
        assert found.balanced_accuracy == pytest.approx(expected, abs=1e-12)
        for average in (None, "micro", "macro", "weighted"):
            same = options | {"average": average, "labels": list(found.labels), "zero_division": math.nan}
            precision = sklearn_metrics.precision_score(truth, called, **same)
            if average in (None, "micro"):  # where a class is undefined scikit-learn averages the others
                assert found.precision(average) == pytest.approx(precision, **close)
                assert found.recall(average) == pytest.approx(
                    sklearn_metrics.recall_score(truth, called, **same), **close
                )
            assert found.f_beta(0.5, average) == pytest.approx(
                sklearn_metrics.fbeta_score(truth, called, beta=0.5, **same), **close
            )
            assert found.jaccard(average) == pytest.approx(
                sklearn_metrics.jaccard_score(truth, called, **(same | {"zero_division": 0.0})), **close
            )
        mcc = sklearn_metrics.matthews_corrcoef(truth, called, **options)
        assert found.mcc == pytest.approx(mcc, abs=1e-7) or (math.isnan(found.mcc) and mcc == 0)
        for kind in (None, "linear", "quadratic"):
            kappa = sklearn_metrics.cohen_kappa_score(truth, called, weights=kind, **options)
            assert found.kappa(kind) == pytest.approx(kappa, **close)
    multi = sklearn_metrics.multilabel_confusion_matrix(truth, called, **options)
    with np.errstate(invalid="ignore"):
        expected = multi[:, 0, 0] / multi[:, 0].sum(axis=1)
    assert found.specificity() == pytest.approx(expected, **close)


@settings(max_examples=60)
@given(guesses(), st.booleans(), st.lists(st.integers(0, 30), max_size=3), st.booleans())
def test_streams_and_ranks_give_the_bits_of_one_array(
    data: tuple[list[object], list[object], list[float]], weighted: bool, cuts: list[int], backwards: bool
) -> None:
    columns = data if weighted else data[:2]
    whole = ConfusionMatrix(weighted=weighted).update(*columns)
    edges = [0, *sorted(min(cut, len(data[0])) for cut in cuts), len(data[0])]
    parts = [tuple(column[a:b] for column in columns) for a, b in itertools.pairwise(edges)][:: -1 if backwards else 1]
    stream, merged = ConfusionMatrix(weighted=weighted), ConfusionMatrix(weighted=weighted)
    for part in parts:
        stream.update(*part)
        sent = State.from_bytes(ConfusionMatrix(weighted=weighted).update(*part).to_bytes())
        assert isinstance(sent, ConfusionMatrix)
        merged.merge(sent)
    assert np.array_equal(stream.compute().counts, whole.compute().counts)
    assert merged.compute().labels == stream.compute().labels == whole.compute().labels
    assert merged == stream == whole


def test_labels_that_are_fixed_keep_their_order_and_refuse_others() -> None:
    state = ConfusionMatrix(["no", "maybe", "yes"]).update(["yes", "no"], ["no", "no"])
    assert state.compute().labels == ("no", "maybe", "yes")
    assert state.compute().counts.tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]
    with pytest.raises(BadInput, match=r"y_pred\[1\] is 'never', which is none of the labels .*; 1 of 2 do not do"):
        state.update(["no", "no"], ["no", "never"])
    assert state.compute().total == 2
    merged = ConfusionMatrix(["no", "maybe", "yes"]).update(["maybe"], ["yes"]).merge(state)
    assert merged.compute().counts.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_counts_whose_products_overflow_64_bits_are_right() -> None:
    large = Confusion((0, 1), np.array([[4_000_000_000, 3], [5, 2_000_000_000]], np.int64))
    true, false = 4_000_000_000 * 2_000_000_000, 15
    spread = 4_000_000_003 * 2_000_000_005 * 4_000_000_005 * 2_000_000_003
    assert large.mcc == pytest.approx((true - false) / math.sqrt(spread), rel=1e-15)
    assert 0.99999 < large.kappa() < 1


def test_the_state_is_the_same_however_wide_the_types_that_held_the_labels() -> None:
    assert ConfusionMatrix().update(np.array(["a", "b"], "U10"), ["a", "a"]) == ConfusionMatrix().update(
        ["a", "b"], ["a", "a"]
    )
    narrow = np.array([0, 5_000], np.int32)
    apart = ConfusionMatrix().update([5_000], [5_000]).merge(ConfusionMatrix().update([0], [0]))
    assert ConfusionMatrix().update(narrow, narrow) == apart
    ends = np.array([-(2**63), -(2**63) + 9, -(2**63) + 9])
    assert ConfusionMatrix().update(ends, ends[::-1]).compute().counts.tolist() == [[0, 1], [1, 1]]
    assert ConfusionMatrix().update(ends ^ -1, ends).compute().labels == (*ends[:2].tolist(), 2**63 - 10, 2**63 - 1)
    truths = ConfusionMatrix().update([True, False], [True, True])
    assert truths.compute().labels == (False, True)
    assert truths.compute().words()[0].startswith("of 1 False, 0 were called False")
    assert truths.update([0], [1]).compute().labels == (0, 1)


def test_a_long_array_of_many_classes_counts_as_its_parts_do() -> None:
    truth, called = np.random.default_rng(1).integers(-300, 300, (2, 300_000))
    weights = np.random.default_rng(2).uniform(size=300_000)
    whole, parts = ConfusionMatrix(weighted=True), ConfusionMatrix(weighted=True)
    whole.update(truth, called, weights)
    for start in range(0, 300_000, 70_001):
        parts.update(*(each[start : start + 70_001] for each in (truth, called, weights)))
    assert whole == parts
    options = {"labels": list(whole.compute().labels), "sample_weight": weights}
    expected = sklearn_metrics.confusion_matrix(truth, called, **options)
    np.testing.assert_allclose(whole.compute().counts, expected, rtol=1e-12)


def test_what_is_refused_in_a_later_part_leaves_no_trace() -> None:
    state = ConfusionMatrix([0, 1])
    called = np.zeros(200_000, np.int64)
    called[170_000] = 2
    with pytest.raises(BadInput, match=r"y_pred\[170000\] is 2, which is none of the labels \[0, 1\]; 1 of"):
        state.update(np.zeros(200_000, np.int64), called)
    assert state == ConfusionMatrix([0, 1])


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_the_size_of_weights_does_not_matter_to_shares_and_correlations(size: float) -> None:
    columns = [0, 1, 1, 0, 1], [0, 1, 0, 0, 1]
    found = ConfusionMatrix(weighted=True).update(*columns, [size] * 5).compute()
    plain = ConfusionMatrix().update(*columns).compute()
    assert found.mcc == pytest.approx(plain.mcc, rel=1e-12)
    assert found.kappa("linear") == pytest.approx(plain.kappa("linear"), rel=1e-12)
    assert found.f1("macro") == pytest.approx(plain.f1("macro"), rel=1e-12)


def test_a_share_of_nothing_is_undefined_and_f1_is_defined_where_precision_is_not() -> None:
    found = ConfusionMatrix([0, 1]).update([0, 1, 1], [0, 0, 0]).compute()
    assert math.isnan(found.precision()[1])
    assert found.recall()[1] == 0
    assert found.f1()[1] == 0
    assert math.isnan(found.precision("macro"))
    assert math.isnan(ConfusionMatrix().compute().accuracy)
    assert found.words()[1] == "of 2 1, 0 were called 1 and 2 were not; of 0 called 1, 0 were not"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ConfusionMatrix().update([0, 1], [0]), "y_true has 2, y_pred has 1"),
        (lambda: ConfusionMatrix().update([0, 1], ["a", "b"]), "different kinds of labels"),
        (lambda: ConfusionMatrix([0, 1]).update(["a"], ["b"]), "the labels so far are numbers, but these are words"),
        (lambda: ConfusionMatrix([0, 0]), "labels has one twice"),
        (lambda: ConfusionMatrix().update([0], [0], [1.0]), "weights are given, but"),
        (lambda: ConfusionMatrix(weighted=True).update([0], [0]), "weights are missing, but"),
        (lambda: ConfusionMatrix(weighted=True).update([0], [0], [-1]), r"weights\[0\] is negative"),
        (lambda: ConfusionMatrix(weighted=True).update([0], [0], [0]).compute(), "the weights are 0 together"),
        (lambda: ConfusionMatrix().update([0, 1], [0.0, math.nan]), r"y_pred\[1\] is nan, not a finite number; 1 of 2"),
        (lambda: ConfusionMatrix().update(np.array([1, "a"], object), [1, 2]), "y_true holds .* not labels"),
        (lambda: ConfusionMatrix().update([b"a"], [b"a"]), "y_true holds bytes, not labels"),
        (lambda: ConfusionMatrix().update(np.array([2**63], np.uint64), [1]), "beyond 64 bits"),
        (
            lambda: ConfusionMatrix().update(np.arange(9_000), np.arange(9_000)),
            "a matrix of 9,000 classes is too large",
        ),
        (lambda: ConfusionMatrix().update([0], [0]).compute().kappa("cubic"), "linear, quadratic or None, not 'cubic'"),
        (lambda: ConfusionMatrix().update([0], [0]).compute().f_beta(-1), "beta is a finite number from 0, not -1"),
        (lambda: ConfusionMatrix().update([0], [0]).compute().f1("samples"), "several labels are averaged by samples"),
        (lambda: ConfusionMatrix().update([0], [0]).compute().f1("most"), "micro, macro, weighted, samples or None"),
    ],
)
def test_bad_input(call: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()  # type: ignore[operator]


def test_other_labels_do_not_merge() -> None:
    with pytest.raises(DifferentDefinition, match=r"labels is \[0, 1\] here and \[1, 2\] there"):
        ConfusionMatrix([0, 1]).merge(ConfusionMatrix([1, 2]))
