"""Examples with several labels each: against scikit-learn, and by the same bits from any parts."""

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn import metrics as sklearn_metrics

from phalanx.metrics import BadInput, DifferentDefinition, MultilabelConfusion, State


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size, rows = draw(st.integers(2, 4)), draw(st.integers(1, 20))
    row = st.lists(st.integers(0, 1), min_size=size, max_size=size)
    truth, called = (np.array(draw(st.lists(row, min_size=rows, max_size=rows))) for _ in range(2))
    weights = draw(st.lists(st.floats(0.25, 4), min_size=rows, max_size=rows))
    return truth, called, np.array(weights)


SHARES: dict[str, tuple[Any, Any]] = {
    "precision": (lambda of: of.precision, sklearn_metrics.precision_score),
    "recall": (lambda of: of.recall, sklearn_metrics.recall_score),
    "f1": (lambda of: of.f1, sklearn_metrics.f1_score),
    "f half": (
        lambda of: functools.partial(of.f_beta, 0.5),
        functools.partial(sklearn_metrics.fbeta_score, beta=0.5),
    ),
    "jaccard": (lambda of: of.jaccard, sklearn_metrics.jaccard_score),
}


@settings(max_examples=30)
@given(tables(), st.booleans())
def test_counts_are_those_of_scikit_learn(data: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool) -> None:
    truth, called, weights = data
    found = MultilabelConfusion(weighted=weighted).update(truth, called, weights if weighted else None).compute()
    options: dict[str, Any] = {"sample_weight": weights if weighted else None}
    expected = sklearn_metrics.multilabel_confusion_matrix(truth, called, **options)
    assert found.counts == pytest.approx(expected, abs=1e-12)
    assert found.counts.dtype == (np.float64 if weighted else np.int64)
    assert found.exact_matches == pytest.approx(sklearn_metrics.accuracy_score(truth, called, **options))
    assert found.hamming_loss == pytest.approx(sklearn_metrics.hamming_loss(truth, called, **options), abs=1e-12)


@settings(max_examples=8)
@given(tables(), st.booleans())
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("average", [None, "micro", "macro", "weighted", "samples"])
def test_shares_are_those_of_scikit_learn(
    share: str, average: Any, data: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool
) -> None:
    truth, called, weights = data
    found = MultilabelConfusion(weighted=weighted).update(truth, called, weights if weighted else None).compute()
    ours, theirs = SHARES[share]
    options: dict[str, Any] = {"sample_weight": weights if weighted else None, "average": average}
    # Undefined is what scikit-learn, told to put 0 and then 1 for a share of nothing, gives two answers to.
    zero, one = (theirs(truth, called, zero_division=value, **options) for value in (0.0, 1.0))
    expected = np.where(np.isclose(zero, one, atol=1e-12), zero, math.nan)
    if average == "weighted" and not truth.any():  # nothing weighs anything: there the mean is taken without weights
        expected = np.array(math.nan)
    assert ours(found)(average=average) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_specificity_by_hand() -> None:
    found = (
        MultilabelConfusion(["a", "b"])
        .update([[0, 1], [0, 1], [0, 0], [1, 1]], [[1, 1], [0, 1], [0, 1], [1, 0]])
        .compute()
    )
    assert found.specificity().tolist() == [2 / 3, 0.0]
    assert found.specificity("micro") == 2 / 4
    assert found.words() == [
        "of 1 with a, 1 were called a and 0 were not; of 3 without it, 1 were called a",
        "of 3 with b, 2 were called b and 1 were not; of 1 without it, 1 were called b",
    ]


@settings(max_examples=60)
@given(tables(), st.booleans(), st.lists(st.integers(0, 20), max_size=3), st.booleans())
def test_streams_and_ranks_give_the_bits_of_one_array(
    data: tuple[np.ndarray, np.ndarray, np.ndarray], weighted: bool, cuts: list[int], backwards: bool
) -> None:
    columns = data if weighted else data[:2]
    whole = MultilabelConfusion(weighted=weighted).update(*columns)
    edges = [0, *sorted(min(cut, len(data[0])) for cut in cuts), len(data[0])]
    parts = [tuple(column[a:b] for column in columns) for a, b in itertools.pairwise(edges)][:: -1 if backwards else 1]
    stream, merged = MultilabelConfusion(weighted=weighted), MultilabelConfusion(weighted=weighted)
    for part in parts:
        stream.update(*part)
        sent = State.from_bytes(MultilabelConfusion(weighted=weighted).update(*part).to_bytes())
        assert isinstance(sent, MultilabelConfusion)
        merged.merge(sent)
    assert merged == stream == whole
    for average in (None, "samples", "macro"):
        np.testing.assert_array_equal(merged.compute().f1(average), whole.compute().f1(average))


def test_long_tables_count_as_scikit_learn_does() -> None:
    random = np.random.default_rng(0)
    truth, called = random.random((2, 30_000, 9)) < 0.2
    found = MultilabelConfusion().update(truth, called).compute()
    assert np.array_equal(found.counts, sklearn_metrics.multilabel_confusion_matrix(truth, called))
    assert found.jaccard("macro") == pytest.approx(
        sklearn_metrics.jaccard_score(truth, called, average="macro"), rel=1e-12
    )
    assert found.total == 30_000


def test_sparse_matrices_and_truths_are_taken() -> None:
    truth, called = np.array([[0, 1], [1, 1]]), np.array([[1, 1], [0, 1]])
    plain = MultilabelConfusion().update(truth, called)
    assert MultilabelConfusion().update(csr_array(truth), csr_array(called)) == plain
    assert MultilabelConfusion().update(truth > 0, called.astype(np.float32)) == plain


def test_nothing_is_undefined() -> None:
    found = MultilabelConfusion(["a", "b"]).compute()
    assert found.labels == ("a", "b")
    assert math.isnan(found.exact_matches)
    assert math.isnan(found.hamming_loss)
    assert math.isnan(found.f1("samples"))
    assert np.isnan(found.precision()).all()
    assert MultilabelConfusion().compute().labels == ()
    assert MultilabelConfusion().merge(MultilabelConfusion().update([[1, 0]], [[1, 0]])).compute().total == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MultilabelConfusion().update([0, 1], [0, 1]), r"y_true has the shape \(2,\), not \[n, labels\]"),
        (lambda: MultilabelConfusion().update([[0, 1]], [[0, 2]]), r"y_pred\[\[0, 1\]\] is 2, neither 0 nor 1; 1 of 2"),
        (lambda: MultilabelConfusion().update([[0.0, math.nan]], [[0, 1]]), "is nan, neither 0 nor 1"),
        (lambda: MultilabelConfusion().update([["a", "b"]], [[0, 1]]), "y_true holds words, not 0 and 1"),
        (lambda: MultilabelConfusion().update([[0, 1]], [[0, 1], [1, 0]]), "y_true has 1, y_pred has 2"),
        (lambda: MultilabelConfusion().update([[0, 1]], [[0, 1, 1]]), "y_pred has 3 columns, but there are 2 labels"),
        (lambda: MultilabelConfusion(["a"]).update([[0, 1]], [[0, 1]]), "y_true has 2 columns, but there are 1 labels"),
        (lambda: MultilabelConfusion().update(np.zeros((2, 0)), np.zeros((2, 0))), "y_true has 0 columns"),
        (lambda: MultilabelConfusion(["a", "a"]), "labels has one twice"),
        (lambda: MultilabelConfusion().update([[1]], [[1]], [1.0]), "weights are given, but"),
        (lambda: MultilabelConfusion(weighted=True).update([[1]], [[1]]), "weights are missing, but"),
        (lambda: MultilabelConfusion(weighted=True).update([[1]], [[1]], [-1]), r"weights\[0\] is negative"),
        (lambda: MultilabelConfusion(weighted=True).update([[1]], [[1]], [0]).compute(), "the weights are 0 together"),
        (lambda: MultilabelConfusion().update([[1]], [[1]]).compute().f1("most"), "an average is micro, macro"),
    ],
)
def test_bad_input(call: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()


def test_what_is_refused_leaves_no_trace() -> None:
    state = MultilabelConfusion()
    with pytest.raises(BadInput):
        state.update([[0, 1]], [[0, 1, 1]])
    assert state == MultilabelConfusion()


def test_other_labels_do_not_merge() -> None:
    with pytest.raises(DifferentDefinition, match="labels is"):
        MultilabelConfusion(["a"]).merge(MultilabelConfusion(["b"]))
    with pytest.raises(DifferentDefinition, match="of 1 and of 2 labels do not merge"):
        MultilabelConfusion().update([[1]], [[1]]).merge(MultilabelConfusion().update([[1, 0]], [[1, 0]]))


@pytest.mark.parametrize("spoiled", ["cells", "kinds", "many"])
def test_counts_that_cannot_be_are_refused(spoiled: str) -> None:
    state = MultilabelConfusion(["a", "b"]).update([[0, 1], [1, 1]], [[1, 1], [0, 1]])
    parts = state.parts()
    with pytest.raises(BadInput, match="no counts of examples"):
        MultilabelConfusion.of_parts(state.definition(), parts | {spoiled: parts[spoiled] + 100})
