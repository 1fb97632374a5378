"""`hvd.elastic.run` on real ranks that lose their group on the way, judged by training that was not interrupted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import phalanx.horovod.torch as hvd
from phalanx.horovod.runner.elastic.worker import HostUpdateResult
from tests.horovod.crew import Crews
from tests.horovod.torch.test_optimizer import batch, mine, model_of, same, sgd

STEPS = 12
COMMIT_EVERY = 3


def interrupted(how: dict[int, str]) -> tuple[list[int], int]:
    """What happens at which step, once each: the steps that were begun, and how often the group was formed anew."""
    left = dict(how)
    model = model_of(hvd.rank())  # what rank 0 has is what is trained
    optimizer = hvd.DistributedOptimizer(sgd(model.parameters()), model.named_parameters())
    state = hvd.elastic.TorchState(model, optimizer, step=0, own=hvd.rank())
    begun: list[int] = []
    formed: list[int] = []
    state.register_reset_callbacks([lambda: formed.append(hvd.size())])

    @hvd.elastic.run
    def train(state: hvd.elastic.TorchState, steps: int) -> str:
        while state.step < steps:
            begun.append(state.step)
            what = left.pop(state.step, "")
            inputs, targets = mine(batch(state.step))
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
            if what == "lost":  # a collective fails on all ranks, as it does when one of them is gone
                hvd.allreduce(torch.ones(1 + hvd.rank()), name="fails")
            elif what and hvd.rank() == 0:
                state.on_hosts_updated(float(state.step + 1), HostUpdateResult[what])
            state.step += 1
            if state.step % COMMIT_EVERY == 0:
                state.commit()
        return "done"

    assert train(state, steps=STEPS) == "done"
    assert formed == [hvd.size()] * len(formed)
    assert state.own == 0, "all began with what rank 0 has"
    expected = model_of()
    alone = sgd(expected.parameters())
    for step in range(STEPS):
        alone.zero_grad()
        inputs, targets = batch(step)
        nn.functional.mse_loss(expected(inputs), targets).backward()
        alone.step()
    same(model, expected, rtol=1e-9, atol=1e-12)
    return begun, len(formed)


@pytest.mark.parametrize(
    ("how", "repeated"),
    [
        ({}, []),
        ({4: "lost"}, [3, 4]),  # the last commit was of three steps
        ({0: "lost", 11: "lost"}, [0, 9, 10, 11]),
        ({4: "added"}, []),  # at the commit, so that nothing is done twice
        ({7: "removed"}, []),
        ({2: "removed", 3: "lost", 8: "added"}, [3]),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [2, 3])
def test_the_model_is_that_of_training_without_interruption(
    crew: Crews, size: int, how: dict[int, str], repeated: list[int]
) -> None:
    for begun, formed in crew(size).tell(interrupted, how):
        assert sorted(begun) == sorted([*range(STEPS), *repeated])
        assert formed == len(how)


def what_each_has(what: str) -> int:
    """After the group was formed anew because of it: this rank's own value, or that of rank 0."""
    state = hvd.elastic.TorchState(value=0)

    @hvd.elastic.run
    def train(state: hvd.elastic.TorchState) -> int:
        if state.value:
            return int(state.value)
        state.value = 10 + hvd.rank()
        if hvd.rank() == 0:
            state.on_hosts_updated(1.0, HostUpdateResult[what])
        state.commit()
        raise AssertionError("nobody was interrupted")

    return train(state)


@pytest.mark.parametrize(("what", "own"), [("removed", True), ("added", False), ("mixed", False)])
def test_nobody_syncs_when_hosts_were_only_removed(crew: Crews, what: str, own: bool) -> None:
    assert crew(2).tell(what_each_has, what) == ([10, 11] if own else [10, 10])
