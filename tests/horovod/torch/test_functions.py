"""What one rank has and all get: parameters, states of optimizers, objects."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import phalanx.horovod.torch as hvd

BOTH_SIZES = pytest.mark.parametrize("size", [2, 3])


def values(tensors: Any) -> Any:
    """As what can be sent and compared."""
    if isinstance(tensors, Tensor):
        return str(tensors.dtype), tensors.tolist()
    if isinstance(tensors, dict):
        return {str(key): values(value) for key, value in tensors.items()}
    return [values(each) for each in tensors] if isinstance(tensors, list | tuple) else tensors


# Parameters


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2).to(torch.bfloat16))


def parameters_of(root: int, how: str) -> tuple[Any, Any, Any]:
    model = network(hvd.rank()).to(memory_format=torch.channels_last if hvd.rank() == 1 else torch.preserve_format)
    before = values(list(model.parameters()))
    if how == "state dict":
        hvd.broadcast_parameters(model.state_dict(), root_rank=root)
    elif how == "named":
        hvd.broadcast_parameters(list(model.named_parameters()), root_rank=root)
    else:
        hvd.broadcast_parameters(list(model.parameters()), root_rank=root)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    return before, values(list(model.parameters())), values(model.state_dict())


@BOTH_SIZES
@pytest.mark.parametrize("how", ["state dict", "named", "parameters"])
def test_parameters_become_those_of_the_root(crew, size, how):
    told = crew(size).tell(parameters_of, 1, how)
    before, _, state = told[1]
    assert told[0][0] != before
    assert all(after == before for _, after, _ in told)
    assert all(each == state for _, _, each in told) or how != "state dict"


def not_parameters() -> None:
    for wrong in (nn.Linear(1, 1).parameters(), 3, "weights"):
        with pytest.raises(ValueError, match="invalid params of type"):
            hvd.broadcast_parameters(wrong, root_rank=0)


def test_what_is_no_list_of_parameters_is_refused(crew):
    crew(2).tell(not_parameters)


# Optimizers

CLASSES = [
    kind.__name__
    for kind in torch.optim.Optimizer.__subclasses__()
    if kind.__module__.startswith("torch.optim")
    and kind.__name__ not in ("LBFGS", "SparseAdam", "Muon", "_MultiTensorOptimizer")
]


def states_of_optimizers(root: int) -> list[Any]:
    """The root's has taken steps and has options of its own; the others' are new, or have done something else."""
    told = []
    for name in CLASSES:
        for new in (True, False):
            torch.manual_seed(hvd.rank())
            model = nn.Linear(3, 2)
            optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1 * (1 + hvd.rank()))
            for _ in range(0 if new and hvd.rank() != root else 1 + hvd.rank()):
                optimizer.zero_grad()
                model(torch.randn(4, 3)).sum().backward()
                optimizer.step()
            before = values(list(model.parameters()))
            state = values(optimizer.state_dict())
            hvd.broadcast_optimizer_state(optimizer, root_rank=root)
            assert values(list(model.parameters())) == before, "no step was taken"
            after = optimizer.state_dict()
            told.append((name, state, values(after)))
            for group in after["param_groups"]:
                assert all(type(value) is not Tensor for value in group.values())
            optimizer.zero_grad()
            model(torch.randn(4, 3)).sum().backward()
            optimizer.step()  # what came can be used
    return told


def test_optimizers_get_the_state_and_the_options_of_the_root(crew):
    told = crew(2).tell(states_of_optimizers, 1)
    for places in zip(*told, strict=True):
        name, wanted, _ = places[1]
        for _, _, after in places:
            assert after == wanted, name
    assert told[0][1][1] != told[1][1][1]


def nothing_trained_yet() -> Any:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.index = nn.Parameter(torch.tensor([1, 3]), requires_grad=False)
            self.weight = nn.Parameter(torch.ones(4))
            self.embedding = nn.Embedding(5, 2, sparse=True)

    model = Mixed()
    for index, parameter in enumerate(model.parameters()):
        parameter.data.fill_(index)
    options = {"weight_decay": 0.5, "momentum": 0.9, "lr": 0.1 + hvd.rank()}
    optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), **options), model.named_parameters())
    hvd.broadcast_optimizer_state(optimizer, root_rank=0, model=model)
    assert torch.equal(model.weight, torch.ones(4)), "not even by weight decay"
    assert model.index.grad is None
    assert torch.equal(model.weight.grad, torch.zeros(4))
    assert model.embedding.weight.grad.is_sparse
    assert optimizer.state_dict()["state"] == {}
    return optimizer.param_groups[0]["lr"]


def test_an_optimizer_that_has_done_nothing_gets_options_and_gradients_of_zero(crew):
    assert crew(2).tell(nothing_trained_yet) == [0.1, 0.1]


def rates_that_are_tensors() -> float:
    rate = torch.tensor(0.1 * (1 + hvd.rank()))
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))], lr=rate)
    hvd.broadcast_optimizer_state(optimizer, root_rank=1)
    assert optimizer.param_groups[0]["lr"] is rate
    return round(rate.item(), 6)


def test_a_learning_rate_that_is_a_tensor_stays_the_same_tensor(crew):
    assert crew(2).tell(rates_that_are_tensors) == [0.2, 0.2]


def optimizers_that_differ() -> str:
    parameters = [nn.Parameter(torch.ones(1)) for _ in range(2 + hvd.rank())]
    try:
        hvd.broadcast_optimizer_state(torch.optim.SGD(parameters, lr=1.0), root_rank=0)
    except ValueError as error:
        return str(error)
    return ""


def test_optimizers_of_other_parameters_are_told(crew):
    first, second = crew(2).tell(optimizers_that_differ)
    assert first == ""
    assert second == "the optimizer of rank 1 has parameter groups of [3] parameters, and that of rank 0 of [2]"


def lbfgs() -> None:
    with pytest.raises(ValueError, match=r"cannot broadcast torch\.optim\.LBFGS state"):
        hvd.broadcast_optimizer_state(torch.optim.LBFGS([nn.Parameter(torch.ones(1))]), root_rank=0)


def test_lbfgs_is_refused(crew):
    crew(2).tell(lbfgs)


# Objects


class OfTheScript:
    def __init__(self, number: int) -> None:
        self.number = number


def any_object() -> list[Any]:
    factor = 3
    sent = {"f": lambda value: factor * value, "own": OfTheScript(7), 0: [1, {2}], "tensor": torch.arange(3)}
    got = hvd.broadcast_object(sent if hvd.rank() == 1 else None, root_rank=1)
    assert hvd.rank() != 1 or got is sent
    named = hvd.broadcast_object("a" if hvd.rank() == 0 else "other", name="letter")
    return [got["f"](5), got["own"].number, got[0], got["tensor"].tolist(), named]


@BOTH_SIZES
def test_any_object_is_broadcast(crew, size):
    assert crew(size).tell(any_object) == [[15, 7, [1, {2}], [0, 1, 2], "a"]] * size


def all_objects() -> list[Any]:
    mine = {"rank": hvd.rank(), "text": "x" * 1000 * hvd.rank()} if hvd.rank() != 1 else None
    return hvd.allgather_object(mine), hvd.allgather_object(OfTheScript(hvd.rank()), name="own")[-1].number


@BOTH_SIZES
def test_objects_of_any_size_are_gathered_in_the_order_of_the_ranks(crew, size):
    expected = [{"rank": rank, "text": "x" * 1000 * rank} if rank != 1 else None for rank in range(size)]
    assert crew(size).tell(all_objects) == [(expected, size - 1)] * size


def objects_in_process_sets() -> Any:
    both = hvd.add_process_set([1, 2])
    got = hvd.broadcast_object(hvd.rank() * 10, root_rank=2, process_set=both) if hvd.rank() else None
    hvd.remove_process_set(both)
    return got


def test_an_object_is_broadcast_in_a_process_set(crew):
    assert crew(3).tell(objects_in_process_sets) == [None, 20, 20]


def what_cannot_be_pickled(gather: bool) -> list[str]:
    lock = threading.Lock() if hvd.rank() == 1 else None
    told = []
    for _ in range(2):
        try:
            hvd.allgather_object(lock) if gather else hvd.broadcast_object(lock, root_rank=1)
        except TypeError as error:
            told.append(str(error))
    return told


@pytest.mark.parametrize("gather", [False, True])
def test_an_object_that_cannot_be_sent_is_told_to_all(crew, gather):
    first, second = crew(2).tell(what_cannot_be_pickled, gather)
    assert second == ["cannot pickle '_thread.lock' object"] * 2
    assert first == ["rank 1 cannot send its object: lock: cannot pickle '_thread.lock' object"] * 2


def test_one_rank_alone_has_its_own(crew):
    assert crew(1).tell(all_objects) == [([{"rank": 0, "text": ""}], 0)]
