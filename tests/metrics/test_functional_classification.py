"""Metrics of classes under scikit-learn's names at their edges: its own answers, to the word where it speaks."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from scipy.sparse import csr_array

import phalanx.metrics
from phalanx.metrics import BadInput

Call = Callable[[Any], Any]
NAN = math.nan


def told(call: Call, module: Any) -> tuple[Any, list[tuple[str, str]]]:
    """The answer, or the words of the refusal, and the kinds and words of warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = call(module)
        except ValueError as error:
            answer = str(error)
    return answer, [(each.category.__name__, str(each.message)) for each in caught]


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.precision_score([0, 1, 1], [0, 0, 0]),
        lambda m: m.recall_score([0, 0, 0], [0, 1, 0]),
        lambda m: m.f1_score([0, 0], [0, 0]),
        lambda m: m.fbeta_score([0, 0], [0, 0], beta=2),
        lambda m: m.jaccard_score([0, 0], [0, 0]),
        lambda m: m.precision_score([0, 1, 2], [0, 0, 0], average="macro"),
        lambda m: m.precision_score([0, 1, 2], [0, 0, 0], average=None),
        lambda m: m.recall_score(["a", "b"], ["a", "c"], average="weighted"),
        lambda m: m.f1_score([0, 1], [0, 1], labels=[7], average="micro"),
        lambda m: m.f1_score([0, 1], [0, 1], labels=[0, 7], average="macro"),
        lambda m: m.precision_recall_fscore_support([0, 1, 1], [0, 0, 0], average="binary"),
        lambda m: m.precision_recall_fscore_support([0, 1, 1], [0, 0, 0], average="binary", warn_for=("recall",)),
        lambda m: m.precision_score(np.array([[0, 1], [1, 1]]), np.array([[0, 0], [1, 0]]), average="samples"),
        lambda m: m.recall_score(np.array([[0, 0], [1, 1]]), np.array([[0, 0], [1, 0]]), average="samples"),
        lambda m: m.jaccard_score(np.array([[0, 0], [1, 1]]), np.array([[0, 0], [1, 0]]), average="samples"),
        lambda m: m.f1_score([0, 1], [0, 1], pos_label=0, average="macro"),
        lambda m: m.confusion_matrix([1, 1], [1, 1]),
        lambda m: m.balanced_accuracy_score(["a", "a"], ["a", "b"]),
        lambda m: m.precision_score([0, 1], [0, 0], zero_division=0),
        lambda m: m.precision_score([0, 1], [0, 0], zero_division=1),
        lambda m: m.precision_score([0, 1], [0, 0], zero_division=NAN),
        lambda m: m.precision_score([0, 1, 2], [0, 0, 0], zero_division=NAN, average="macro"),
        lambda m: m.recall_score([0, 0], [0, 2], zero_division=NAN, average="weighted", labels=[2]),
        lambda m: m.f1_score([0, 1], [0, 0], average="macro", labels=[5, 6], zero_division=NAN),
    ],
)
def test_what_is_undefined_is_answered_and_warned_of_in_the_same_words(call: Call) -> None:
    ours, words = told(call, phalanx.metrics)
    theirs, expected = told(call, sklearn.metrics)
    assert words == expected
    for one, other in zip(*(each if isinstance(each, tuple) else (each,) for each in (ours, theirs)), strict=True):
        if other is None:
            assert one is None
        else:
            np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.accuracy_score([0, 1], [0]),
        lambda m: m.accuracy_score([0, 1], [0, 1], sample_weight=[1]),
        lambda m: m.accuracy_score([0, 1], [0, 1], sample_weight=[0, 0]),
        lambda m: m.confusion_matrix([0, 1], [0, 1], sample_weight=[0.0, 0.0]),
        lambda m: m.balanced_accuracy_score([0, 1], [0, 1], sample_weight=[0.0, 0.0]),
        lambda m: m.matthews_corrcoef([0, 1], [0, 1], sample_weight=[0.0, 0.0]),
        lambda m: m.f1_score([0, 1], [0, 1], sample_weight=[0.0, 0.0]),
        lambda m: m.hamming_loss([0, 1], [0, 1], sample_weight=[[1, 2]] * 2),
        lambda m: m.accuracy_score([], []),
        lambda m: m.accuracy_score([0, 1], [0.5, 1.5]),
        lambda m: m.accuracy_score([0.5, 1.5], [0.5, 1.5]),
        lambda m: m.accuracy_score([0, 1], np.array([[0, 1], [1, 0]])),
        lambda m: m.accuracy_score(np.array([[0, 2], [1, 0]]), np.array([[0, 2], [1, 0]])),
        lambda m: m.accuracy_score(["a", "b"], [0, 1]),
        lambda m: m.accuracy_score(np.eye(2, dtype=int), np.eye(2, 3, dtype=int)),
        lambda m: m.precision_score([0, 1, 2], [0, 1, 2]),
        lambda m: m.precision_score(np.eye(2, dtype=int), np.eye(2, dtype=int)),
        lambda m: m.precision_score([0, 1], [0, 1], pos_label=2),
        lambda m: m.precision_score(["a", "b"], ["a", "b"]),
        lambda m: m.precision_score([0, 1], [0, 1], average="samples"),
        lambda m: m.f1_score(np.eye(2, dtype=int), np.eye(2, dtype=int), labels=[4], average="macro"),
        lambda m: m.f1_score(np.eye(2, dtype=int), np.eye(2, dtype=int), labels=[-1], average="macro"),
        lambda m: m.confusion_matrix(np.eye(2, dtype=int), np.eye(2, dtype=int)),
        lambda m: m.confusion_matrix([0, 1], [0, 1], labels=[]),
        lambda m: m.confusion_matrix([0, 1], [0, 1], labels=[2, 3]),
        lambda m: m.cohen_kappa_score([0, 1], [0, 1], labels=[2, 3]),
        lambda m: m.cohen_kappa_score(np.eye(2, dtype=int), np.eye(2, dtype=int)),
        lambda m: m.classification_report([0, 1], [0, 1], target_names=["a", "b", "c"]),
        lambda m: m.class_likelihood_ratios([0, 1, 2], [0, 1, 2]),
        lambda m: m.multilabel_confusion_matrix([0, 1], [0, 1], samplewise=True),
    ],
)
def test_what_cannot_be_meant_is_refused_in_the_same_words(call: Call) -> None:
    expected, _ = told(call, sklearn.metrics)
    assert isinstance(expected, str)
    with pytest.raises(BadInput) as refused:
        call(phalanx.metrics)
    assert expected in refused.value.message


@pytest.mark.parametrize("weights", [None, [0.5, 2.25, 1.0, 4.0, 0.25, 1.5], [1, 2, 3, 1, 2, 3]])
@pytest.mark.parametrize(
    ("truth", "called", "options"),
    [
        ([0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 1, 1], {}),
        (["egg", "bacon", "egg", "ham", "ham", "egg"], ["egg", "egg", "egg", "ham", "bacon", "egg"], {"digits": 3}),
        ([0, 1, 2, 0, 1, 2], [0, 2, 2, 0, 1, 1], {"labels": [2, 0]}),
        ([0, 1, 2, 0, 1, 2], [0, 2, 2, 0, 1, 1], {"labels": [2, 0], "target_names": ["a name longer than all", "b"]}),
        ([0, 1, 2, 0, 1, 2], [0, 2, 2, 0, 1, 1], {"labels": [0, 1, 2, 3], "zero_division": 1}),
        ([0, 1, 2, 0, 1, 2], [0, 2, 2, 0, 1, 1], {"labels": [0, 1, 2, 3], "zero_division": NAN, "digits": 11}),
        (np.eye(6, 3, dtype=int), np.ones((6, 3), int), {"target_names": ["x", "y", "z"], "zero_division": 0}),
    ],
)
def test_reports_are_the_same_text(truth: Any, called: Any, options: dict[str, Any], weights: Any) -> None:
    def report(module: Any, **more: Any) -> Any:
        return module.classification_report(truth, called, sample_weight=weights, **options, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert report(phalanx.metrics) == report(sklearn.metrics)
        ours, theirs = (report(module, output_dict=True) for module in (phalanx.metrics, sklearn.metrics))
    assert list(ours) == list(theirs)
    for name, row in theirs.items():
        assert ours[name] == pytest.approx(row, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.zero_one_loss(csr_array(np.eye(3, dtype=int)), np.ones((3, 3), int), normalize=False),
        lambda m: m.accuracy_score(csr_array(np.eye(3, dtype=int)), csr_array(np.eye(3, dtype=int))),
        lambda m: m.f1_score(csr_array(np.eye(3, dtype=int)), np.ones((3, 3), int), average=None),
        lambda m: m.f1_score(np.array([[1], [0], [1]]), np.array([1, 1, 0])),
        lambda m: m.f1_score(pd.Series(["n", "y", "y"]), pd.Series(["y", "y", "n"], dtype="category"), pos_label="y"),
        lambda m: m.f1_score([True, False], np.array([1, 1])),
        lambda m: m.recall_score([0.0, 1.0, 1.0], [0, 1, 0]),
        lambda m: m.accuracy_score([[1, 0], [0, 1]], [[1, 0], [1, 1]]),
        lambda m: m.accuracy_score(np.array(["a", "bbb"], object), np.array(["a", "b"])),
        lambda m: m.fbeta_score([0, 1, 1], [1, 1, 0], beta=0),
        lambda m: m.fbeta_score([0, 1, 1], [1, 1, 1], beta=math.inf),
        lambda m: m.confusion_matrix([2, 0, 2, 7], [0, 0, 2, 2], labels=[7, 2, 0]),
        lambda m: m.confusion_matrix([2, 0, 2, 7], [0, 0, 2, 2], labels=[0, 1], normalize="true"),
        lambda m: m.confusion_matrix([2, 0, 2, 7], [0, 0, 2, 2], normalize="pred"),
        lambda m: m.confusion_matrix([0, 1, 1], [1, 1, 0], normalize="all", sample_weight=[1, 0.5, 2]),
        lambda m: m.balanced_accuracy_score([1, 1], [0, 1], adjusted=True),
        lambda m: m.balanced_accuracy_score([0, 1, 1, 2], [0, 1, 0, 2], adjusted=True),
        lambda m: m.balanced_accuracy_score([0, 1, 1], [0, 1, 0], sample_weight=[-1, 2, 1]),
        lambda m: m.precision_score([0, 1, 1], [0, 1, 0], sample_weight=[-1, 2, 1]),
        lambda m: m.cohen_kappa_score([0, 1, 2, 2], [0, 2, 2, 1], weights="quadratic", labels=[2, 1, 0]),
        lambda m: m.class_likelihood_ratios([0, 0], [0, 0], labels=[0, 9], replace_undefined_by=1.0),
        lambda m: m.class_likelihood_ratios([1, 0, 1, 0], [1, 1, 0, 0], sample_weight=[3.5, 1, 2, 1]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_unusual_columns_and_settings_give_the_same_number(call: Call) -> None:
    np.testing.assert_allclose(call(phalanx.metrics), call(sklearn.metrics), rtol=1e-12, atol=1e-15)


def test_a_tiny_likelihood_ratio_keeps_its_digits() -> None:
    truth, called, weights = [1, 1, 0, 0], [1, 0, 1, 0], [1e9, 1.0, 3.0, 1e9]
    ours = phalanx.metrics.class_likelihood_ratios(truth, called, sample_weight=weights)
    expected = 1e9 * (1e9 + 3) / (3 * (1e9 + 1)), 1 * (1e9 + 3) / (1e9 * (1e9 + 1))
    assert ours == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("of", [np.int64, np.int8, np.float64, np.str_])
def test_a_third_class_at_the_end_of_a_long_column_is_seen(of: Any) -> None:
    truth = np.tile([0, 3], 35_000)
    truth[-1] = 5
    columns = truth.astype(of), np.roll(truth, 3).astype(of)
    with pytest.raises(BadInput, match="Target is multiclass but average='binary'"):
        phalanx.metrics.f1_score(*columns)
    expected = sklearn.metrics.f1_score(*columns, average=None)
    np.testing.assert_allclose(phalanx.metrics.f1_score(*columns, average=None), expected, rtol=1e-12)
    matrix = phalanx.metrics.confusion_matrix(*columns)
    assert np.array_equal(matrix, sklearn.metrics.confusion_matrix(*columns))


def test_shares_of_thousands_of_classes_need_no_matrix() -> None:
    random = np.random.default_rng(0)
    truth, called = random.integers(0, 10_000, (2, 25_000)) * 10**9
    called = np.where(random.random(25_000) < 0.5, truth, called)
    for weights in (None, random.random(25_000)):
        for name in ("f1_score", "jaccard_score"):
            ours, theirs = (
                getattr(module, name)(truth, called, average="macro", sample_weight=weights, zero_division=0)
                for module in (phalanx.metrics, sklearn.metrics)
            )
            assert ours == pytest.approx(theirs, rel=1e-12)
    with pytest.raises(BadInput, match="classes is too large"):
        phalanx.metrics.confusion_matrix(truth, called)


def test_whole_weights_are_added_exactly_beyond_what_a_double_holds() -> None:
    weights = [2**53, 1, 1, 2**53]
    found = phalanx.metrics.confusion_matrix([0, 0, 0, 1], [0, 0, 0, 1], sample_weight=weights)
    assert found.dtype == np.int64
    assert found.tolist() == [[2**53 + 2, 0], [0, 2**53]]
    with pytest.raises(BadInput, match="the sum of the weights is beyond 64 bits"):
        phalanx.metrics.confusion_matrix([0, 0], [0, 0], sample_weight=[2**62, 2**62])


def test_correlation_of_counts_whose_products_overflow_is_right() -> None:
    weights = [3_000_000_000, 40_000, 50_000, 2_000_000_000]
    found = phalanx.metrics.matthews_corrcoef([0, 0, 1, 1], [0, 1, 0, 1], sample_weight=weights)
    a, b, c, d = weights  # whole numbers of any size, in Python
    expected = (a * d - b * c) / math.sqrt((a + b) * (a + c) * (d + b) * (d + c))
    assert found == pytest.approx(expected, rel=1e-14)


def test_likelihood_ratios_of_one_label_are_refused() -> None:
    with pytest.raises(BadInput, match="likelihood ratios are of two labels, not of 1"):
        phalanx.metrics.class_likelihood_ratios([1, 1], [1, 1])


def test_weights_that_cancel_out_are_refused() -> None:
    for name in ("accuracy_score", "zero_one_loss", "hamming_loss"):
        with pytest.raises(BadInput, match="Weights sum to zero"):
            getattr(phalanx.metrics, name)([0, 1], [0, 1], sample_weight=[1, -1])


def test_the_warning_points_at_the_line_that_called() -> None:
    calls: list[Callable[[], Any]] = [
        lambda: phalanx.metrics.precision_score([0, 1], [0, 0]),
        lambda: phalanx.metrics.jaccard_score([0, 0], [0, 0]),
        lambda: phalanx.metrics.cohen_kappa_score([1, 1], [1, 1]),
        lambda: phalanx.metrics.class_likelihood_ratios([0, 1], [0, 1]),
        lambda: phalanx.metrics.classification_report([0, 1], [0, 0]),
        lambda: phalanx.metrics.balanced_accuracy_score([0, 0], [0, 1]),
        lambda: phalanx.metrics.jaccard_score([0, 1], [0, 1], pos_label=0, average="macro"),
    ]
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert {each.filename for each in caught} == {__file__}
