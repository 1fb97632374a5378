"""The functional face against scikit-learn's functions of the same names: values, warnings and refusals."""

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn.calibration
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import phalanx.metrics
from phalanx.metrics import BadInput, UndefinedMetricWarning

NAMES = sorted(
    name
    for name in phalanx.metrics.__all__
    if inspect.isfunction(getattr(phalanx.metrics, name)) and hasattr(sklearn.metrics, name)
)


def both(name: str, *arguments: Any, **options: Any) -> None:
    """The same answer within 1e-12, or the same kinds of warnings and refusals."""
    answers, said = [], []
    for module in (phalanx.metrics, sklearn.metrics):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                answers.append(getattr(module, name)(*arguments, **options))
            except ValueError:
                answers.append("refused")
        said.append({each.category.__name__ for each in caught} & {"UndefinedMetricWarning"})
    ours, theirs = answers
    assert said[0] == said[1], (name, arguments, options, said)
    if isinstance(theirs, str):
        assert isinstance(ours, str), (name, arguments, options)
        assert ours == theirs
        return
    assert not isinstance(ours, str), (name, arguments, options)
    for one, other in zip(*(each if isinstance(each, tuple) else (each,) for each in (ours, theirs)), strict=True):
        if other is None:
            assert one is None
        else:
            np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_and_defaults_are_those_of_scikit_learn(name: str) -> None:
    ours, theirs = (
        inspect.signature(getattr(module, name)).parameters for module in (phalanx.metrics, sklearn.metrics)
    )

    def shown(parameters: Any) -> list[tuple[str, str, Any]]:
        kept = {key: each for key, each in parameters.items() if repr(each.default) != "'deprecated'"}
        return [(key, str(each.kind), repr(each.default)) for key, each in kept.items()]

    assert shown(ours) == shown(theirs)


labels = st.sampled_from([["a", "b", "c"], [0, 1], [0, 1, 2], [-1, 1], [False, True], [3, 70000]])


@st.composite
def classes(draw: st.DrawFn) -> tuple[list[Any], list[Any], list[float] | None]:
    of = draw(labels)
    size = draw(st.integers(1, 12))
    column = st.lists(st.sampled_from(of), min_size=size, max_size=size)
    weight = st.floats(0.25, 4) | st.sampled_from([0.0, 1.0, 2.0])
    weights = draw(st.none() | st.lists(weight, min_size=size, max_size=size).filter(any))
    return draw(column), draw(column), weights


averaged = ["precision_score", "recall_score", "f1_score", "jaccard_score", "precision_recall_fscore_support"]


@settings(max_examples=150)
@given(
    classes(),
    st.sampled_from([*averaged, "fbeta_score"]),
    st.sampled_from([None, "micro", "macro", "weighted", "binary"]),
    st.sampled_from(["warn", 0, 1, math.nan]),
)
def test_shares_of_classes(data: Any, name: str, average: str | None, zero_division: Any) -> None:
    truth, called, weights = data
    if name == "jaccard_score" and zero_division not in ("warn", 0, 1):
        zero_division = 1
    options = {"beta": 0.5} if name == "fbeta_score" else {}
    pos_label = max(truth + called)
    both(
        name,
        truth,
        called,
        average=average,
        sample_weight=weights,
        zero_division=zero_division,
        pos_label=pos_label,
        **options,
    )


@settings(max_examples=100)
@given(
    classes(),
    st.sampled_from(
        [
            "accuracy_score",
            "balanced_accuracy_score",
            "cohen_kappa_score",
            "confusion_matrix",
            "hamming_loss",
            "matthews_corrcoef",
            "multilabel_confusion_matrix",
            "zero_one_loss",
            "class_likelihood_ratios",
        ]
    ),
)
def test_counts_of_classes(data: Any, name: str) -> None:
    truth, called, weights = data
    both(name, truth, called, sample_weight=weights)


@settings(max_examples=60)
@given(
    st.integers(1, 6).flatmap(
        lambda rows: st.tuples(
            *[st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=rows, max_size=rows)] * 2
        )
    ),
    st.sampled_from(averaged),
    st.sampled_from([None, "micro", "macro", "weighted", "samples"]),
)
def test_shares_of_several_labels(data: Any, name: str, average: str | None) -> None:
    truth, called = (np.array(each) for each in data)
    both(name, truth, called, average=average)
    for other in ("accuracy_score", "hamming_loss", "multilabel_confusion_matrix"):
        both(other, truth, called)


scores = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(-100, 100)


OF_CLASSES = {"roc_auc_score": {"multi_class": "ovr"}}


@st.composite
def ranked(draw: st.DrawFn) -> tuple[list[int], list[float], list[float] | None]:
    size = draw(st.integers(1, 15))
    truth = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    weights = draw(st.none() | st.lists(st.floats(0.25, 4) | st.just(0.0), min_size=size, max_size=size).filter(any))
    return truth, draw(st.lists(scores, min_size=size, max_size=size)), weights


@settings(max_examples=150)
@given(
    ranked(),
    st.sampled_from(["roc_auc_score", "average_precision_score", "roc_curve", "precision_recall_curve", "det_curve"]),
    st.booleans(),
)
def test_curves_and_areas(data: Any, name: str, drop: bool) -> None:
    truth, found, weights = data
    options: dict[str, Any] = {"drop_intermediate": drop} if name.endswith("curve") else {}
    if weights is not None and name == "det_curve":  # where a class weighs nothing, theirs divides by it
        weights = [each or 1.0 for each in weights]
    both(name, truth, found, sample_weight=weights, **options)
    if name == "roc_auc_score" and all(weights or ()):  # as above: its part of the area has no points then
        both(name, truth, found, sample_weight=weights, max_fpr=0.3)


@pytest.mark.parametrize("weights", [[1, 0, 0, 1], [0, 1, 2, 0], [0, 0, 0, 0]])
@pytest.mark.parametrize("name", ["roc_auc_score", "average_precision_score", "roc_curve", "precision_recall_curve"])
def test_a_class_that_weighs_nothing_is_not_there(name: str, weights: list[int]) -> None:
    truth, found = [0, 1, 1, 0], [0.1, 0.2, 0.3, 0.4]
    both(name, truth, found, sample_weight=weights)
    if name.endswith("score"):
        both(name, np.column_stack([truth, truth[::-1]]), np.column_stack([found, found]), sample_weight=weights)
        both(name, [*truth, 2], np.full((5, 3), 1 / 3), sample_weight=[*weights, 1], **OF_CLASSES.get(name, {}))


@pytest.mark.parametrize("name", ["roc_curve", "precision_recall_curve", "det_curve"])
def test_curves_are_arrays_that_torch_takes(name: str) -> None:
    for column in getattr(phalanx.metrics, name)([0, 1, 1, 0], [0.1, 0.2, 0.3, 0.4]):
        assert torch.from_numpy(column).tolist() == column.tolist()


@settings(max_examples=60)
@given(
    st.integers(3, 10),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["ovr", "ovo"]),
    st.sampled_from(["macro", "weighted"]),
)
def test_areas_of_several_classes(size: int, seed: int, multi_class: str, average: str) -> None:
    random = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1, 2], random.integers(0, 3, size)])
    chances = random.dirichlet([1, 1, 1], len(truth))
    both("roc_auc_score", truth, chances, multi_class=multi_class, average=average)
    both("average_precision_score", truth, chances, average=average)
    both("top_k_accuracy_score", truth, chances, k=2)


@pytest.mark.parametrize("convert", [list, np.array, pa.array, pd.Series, pl.Series, torch.tensor])
def test_columns_of_every_library(convert: Callable[[list[Any]], Any]) -> None:
    truth, called, chances = [0, 1, 1, 0], [0, 1, 0, 0], [0.1, 0.9, 0.3, 0.4]
    assert phalanx.metrics.f1_score(convert(truth), convert(called)) == sklearn.metrics.f1_score(truth, called)
    assert phalanx.metrics.roc_auc_score(convert(truth), convert(chances)) == 0.75


def test_an_undefined_share_warns_and_is_zero() -> None:
    with pytest.warns(
        UndefinedMetricWarning, match="Precision is ill-defined and being set to 0.0 due to no predicted"
    ):
        assert phalanx.metrics.precision_score([1, 0], [0, 0]) == 0.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.roc_auc_score([0, 1], [0.5, math.nan]), "contains NaN"),
        (lambda m: m.roc_auc_score([0, 1], [0.5, math.inf]), r"y_score\[1\] is inf|contains infinity"),
        (lambda m: m.accuracy_score([0, 1], [0]), "inconsistent numbers of samples"),
        (lambda m: m.accuracy_score([], []), "empty input"),
        (lambda m: m.accuracy_score([0, 1], ["a", "b"]), "Mix of label input types|Labels in y_true and y_pred"),
        (lambda m: m.accuracy_score([0.5, 1], [0.5, 1]), "continuous is not supported"),
        (lambda m: m.precision_score([0, 1, 2], [0, 1, 2]), "Target is multiclass but average='binary'"),
        (lambda m: m.roc_curve(["a", "b"], [0.1, 0.2]), "pos_label is not specified"),
        (lambda m: m.auc([0, 2, 1], [0, 1, 2]), "neither increasing nor decreasing"),
    ],
)
def test_both_refuse_what_cannot_be_meant(call: Callable[[Any], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(sklearn.metrics)
    with pytest.raises(BadInput, match=words):
        call(phalanx.metrics)


@settings(max_examples=60)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_chances(size: int, seed: int, weighted: bool) -> None:
    random = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1], random.integers(0, 2, size)])
    chances = random.random(len(truth))
    weights = random.random(len(truth)) if weighted else None
    for name in ("log_loss", "brier_score_loss"):
        both(name, truth, chances, sample_weight=weights)
        both(name, np.array(["a", "b"])[truth], np.column_stack([1 - chances, chances]), sample_weight=weights)
    several = np.concatenate([[0, 1, 2], random.integers(0, 3, size)])
    of_each = random.dirichlet([1, 1, 1], len(several))
    for name in ("log_loss", "brier_score_loss"):
        both(name, several, of_each)
    for strategy in ("uniform", "quantile"):
        ours = phalanx.metrics.calibration_curve(truth, chances, n_bins=4, strategy=strategy)
        theirs = sklearn.calibration.calibration_curve(truth, chances, n_bins=4, strategy=strategy)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)
