"""Validation against math.fsum and plain counting; the same bits however many ranks; bytes there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.collectives import Membership, join
from phalanx.metrics import BadInput, State
from phalanx.training.validation import Validation, merged

COSTS = st.lists(st.tuples(st.floats(0, 50, width=32), st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=60)


def fed(rows: list[tuple[float, int, int]]) -> Validation:
    costs, ranks, sizes = zip(*rows, strict=True) if rows else ((), (), ())
    return Validation().update(np.array(costs, np.float32), np.array(ranks, np.int64), sum(sizes))


@given(COSTS)
def test_every_number_is_what_its_definition_says(rows):
    found, n = fed(rows).compute(), len(rows)
    nats, size = math.fsum(cost for cost, _, _ in rows), sum(size for _, _, size in rows)
    assert found["tokens"] == n
    assert found["loss"] == nats / n
    assert found["perplexity"] == math.exp(nats / n)
    assert found["bits_per_byte"] == (pytest.approx(nats / math.log(2) / size, rel=1e-15) if size else None)
    assert found["top1"] == sum(rank == 0 for _, rank, _ in rows) / n
    assert found["top5"] == sum(rank < 5 for _, rank, _ in rows) / n


def test_numbers_to_learn_have_a_mean_squared_error_and_no_guesses():
    found = Validation().update([0.25, 4.0], np.empty(0, np.int64), 0).compute()
    assert found == {"loss": 2.125, "tokens": 2, "bits_per_byte": None, "perplexity": None, "top1": None, "top5": None}


@given(COSTS, st.integers(1, 5))
def test_ranks_that_merge_have_the_bits_of_one(rows, ranks):
    """By bytes, and in any order; a rank may have nothing."""
    parts = [State.from_bytes(fed(rows[rank::ranks]).to_bytes()) for rank in reversed(range(ranks))]
    whole = Validation()
    for part in parts:
        assert isinstance(part, Validation)
        whole.merge(part)
    assert whole == fed(rows)
    assert whole.compute() == fed(rows).compute()


def test_alone_it_is_what_this_rank_found():
    mine = fed([(1.5, 0, 2), (2.5, 7, 1)])
    assert merged(mine, join(Membership())) == mine


def test_of_nothing_nothing_is_known():
    assert Validation().compute() == dict.fromkeys(("loss", "bits_per_byte", "perplexity", "top1", "top5")) | {
        "tokens": 0
    }


def test_a_perplexity_beyond_a_double_is_infinite_and_a_cost_that_is_no_number_is_not_hidden():
    assert fed([(1000.0, 3, 1)]).compute()["perplexity"] == math.inf
    assert math.isnan(fed([(1.0, 0, 1), (math.nan, 3, 1)]).compute()["loss"] or 0.0)


def test_bytes_of_something_else_are_refused():
    data = fed([(1.0, 0, 1)]).to_bytes()
    with pytest.raises(BadInput, match="no state of a metric"):
        State.from_bytes(data[:-30])
