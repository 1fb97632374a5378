"""What a rank knows of the others when the host of the store in which they met is gone."""

from __future__ import annotations

import gc

import pytest
from torch.distributed import TCPStore

from phalanx.collectives import CollectiveError
from phalanx.collectives.transports.peers import Peers

GONE = "the store in which the ranks met does not answer"


@pytest.fixture
def alone() -> Peers:
    """Rank 1 of two, after the host of rank 0 has been lost."""
    held = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    Peers(held, 0, 2)
    found = Peers(TCPStore("127.0.0.1", held.port, is_master=False), 1, 2)
    found.learn()
    assert [state.rank for state in found.states()] == [0, 1]
    del held
    gc.collect()
    return found


def test_what_it_asks_of_the_others_fails_as_what_a_group_fails_with(alone: Peers) -> None:
    with pytest.raises(CollectiveError, match=GONE):
        alone.states()
    with pytest.raises(CollectiveError, match=GONE):
        alone.publish(1, "allreduce", inside=True)


def test_that_the_store_is_gone_is_the_cause(alone: Peers) -> None:
    for cause in (alone.cause(), alone.late(1), alone.lost()):
        assert cause is not None
        assert cause.text == GONE
