"""The linear baseline against scikit-learn's on the very same features."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression, Ridge

from phalanx.data import Split
from phalanx.evaluation import bag_of_words
from phalanx.evaluation.bag_of_words import Features, features_of, fit

VOCABULARY = 50


def made(examples: int, texts: int, seed: int) -> Split:
    draw = np.random.default_rng(seed)
    sizes = draw.integers(0, 9, examples * texts)
    tokens = draw.integers(0, VOCABULARY, sizes.sum()).astype(np.uint16)
    return Split(tokens, np.concatenate([[0], np.cumsum(sizes)]))


def sparse(features: Features) -> scipy.sparse.csr_array:
    starts = np.append(features.starts, len(features.columns))
    return scipy.sparse.csr_array((features.values, features.columns, starts), (len(features.starts), features.width))


@pytest.mark.parametrize("texts", [1, 2])
def test_features_say_which_tokens_and_neighbours_occur(texts: int) -> None:
    split = made(40, texts, 1)
    features = features_of(split, texts, VOCABULARY)
    matrix = sparse(features).toarray()
    np.testing.assert_allclose(np.square(matrix).sum(1), 1, rtol=1e-5)
    for example in range(40):
        own = [
            split.tokens[split.offsets[at] : split.offsets[at + 1]]
            for at in range(example * texts, (example + 1) * texts)
        ]
        singles = {1 + text * VOCABULARY + int(token) for text, tokens in enumerate(own) for token in tokens}
        on = set(np.flatnonzero(matrix[example]).tolist())
        assert {place for place in on if 0 < place <= texts * VOCABULARY} == singles
        assert 0 in on
        pairs = {(text, *pair) for text, tokens in enumerate(own) for pair in itertools.pairwise(tokens)}
        assert len({place for place in on if place > texts * VOCABULARY}) == len(pairs)  # none share a bucket here
    few = features_of(split, texts, VOCABULARY, 7)
    np.testing.assert_array_equal(sparse(few).toarray(), matrix[:7])


def test_products_are_those_of_the_matrix() -> None:
    features = features_of(made(30, 1, 2), 1, VOCABULARY)
    matrix = sparse(features)
    draw = np.random.default_rng(0)
    weights, residuals = draw.normal(size=(features.width, 3)), draw.normal(size=(30, 3))
    np.testing.assert_allclose(features.times(weights), matrix @ weights, rtol=1e-6)
    np.testing.assert_allclose(features.transposed_times(residuals), matrix.T @ residuals, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_labels_are_fitted_as_by_scikit_learn(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bag_of_words, "_PENALTY", 1e-2)
    monkeypatch.setattr(bag_of_words, "_STEPS", 2000)
    features = features_of(made(120, 1, 3), 1, VOCABULARY)
    labels = np.random.default_rng(4).integers(0, classes, 120)
    ours = fit(features, labels, classes).predict(features)
    # The mean of the costs with a penalty is scikit-learn's sum of them with C = 1 / (n * penalty). Of two classes it
    # learns one set of weights where softmax has two, which share the penalty.
    penalty = 1e-2 if classes > 2 else 1e-2 / 2
    other = LogisticRegression(C=1 / (120 * penalty), fit_intercept=False, tol=1e-10, max_iter=10_000)
    theirs = other.fit(sparse(features), labels).predict_log_proba(sparse(features))
    mine = ours - np.log(np.exp(ours).sum(1, keepdims=True))
    np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_numbers_are_fitted_as_by_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bag_of_words, "_PENALTY", 1e-2)
    monkeypatch.setattr(bag_of_words, "_STEPS", 2000)
    features = features_of(made(80, 1, 5), 1, VOCABULARY)
    numbers = np.random.default_rng(6).normal(3, 2, 80).astype(np.float32)
    theirs = Ridge(alpha=80 * 1e-2, fit_intercept=False, tol=1e-12).fit(sparse(features), numbers - numbers.mean())
    ours = fit(features, numbers, 0).predict(features)[:, 0]
    np.testing.assert_allclose(ours, theirs.predict(sparse(features)) + numbers.mean(), atol=1e-3)


def test_it_learns_what_one_word_decides() -> None:
    split = made(400, 1, 7)
    labels = np.array([7 in split.tokens[a:b] for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)], int)
    features = features_of(split, 1, VOCABULARY)
    fitted = fit(features, labels, 2)
    assert (fitted.predict(features).argmax(1) == labels).mean() > 0.99
    again = fit(features_of(split, 1, VOCABULARY), labels, 2)
    assert again.weights.tobytes() == fitted.weights.tobytes()
