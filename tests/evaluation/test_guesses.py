"""Guesses of a model against scikit-learn's top-k accuracy and counting by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from phalanx.evaluation.guesses import Guess, Guesses


def test_guesses_in_parts_are_those_of_all_together() -> None:
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(300, 12, generator=draw)
    targets = torch.randint(0, 12, (300,), generator=draw)
    cluster = np.arange(300) // 30
    parts = [Guess.of(logits[part], targets[part]) for part in (slice(0, 70), slice(70, 300))]
    found = Guesses.of(parts, cluster, 10)
    for k in (1, 5):
        expected = top_k_accuracy_score(targets.numpy(), logits.numpy(), k=k, labels=range(12))
        assert found.top[k][0] == pytest.approx(expected)
    sure = torch.softmax(logits.double(), 1).max(1).values.numpy()
    right = (logits.argmax(1) == targets).numpy()
    places = np.minimum(np.ceil(sure * 10) - 1, 9)
    off = sum(abs(sure[places == bin_].sum() - right[places == bin_].sum()) for bin_ in range(10)) / 300
    assert found.expected_error == pytest.approx(off, abs=1e-6)
    assert sum(each.examples for each in found.bins) == 300
    by_cluster = right.reshape(10, 30).mean(1)
    assert found.top[1][1] == pytest.approx(by_cluster.std(ddof=1) / np.sqrt(10)), "clusters of equal size: their means"
    assert found.to_dict()["top1"] == {"value": found.top[1][0], "standard_error": found.top[1][1]}


def test_one_cluster_has_no_standard_error() -> None:
    found = Guesses.of([Guess.of(torch.eye(3), torch.arange(3))], np.zeros(3, np.int64), 1)
    assert found.top == {1: (1.0, None), 5: (1.0, None)}
