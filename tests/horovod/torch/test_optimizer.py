"""Distributed optimizers, judged by what one process does with the batches of all ranks put together."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import phalanx.horovod.torch as hvd
from phalanx.horovod.common.util import env
from phalanx.horovod.torch.compression import Compressor

BOTH_SIZES = pytest.mark.parametrize("size", [2, 3])
EXACT = {"rtol": 1e-9, "atol": 1e-12}
STEPS = 3


def model_of(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def batch(step: int, rows: int = 12) -> tuple[Tensor, Tensor]:
    """Of all ranks together."""
    random = torch.Generator().manual_seed(100 + step)
    return torch.randn(rows, 6, dtype=torch.float64, generator=random), torch.randn(
        rows, 3, dtype=torch.float64, generator=random
    )


def mine(whole: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """This rank's part of it."""
    inputs, targets = (tensor.chunk(hvd.size())[hvd.rank()] for tensor in whole)
    return inputs, targets


def train(model: nn.Module, optimizer: Any, part: Callable[..., Any] = lambda whole: whole) -> None:
    for step in range(STEPS):
        inputs, targets = part(batch(step))
        optimizer.zero_grad()
        F.mse_loss(model(inputs), targets).backward()
        optimizer.step()


def same(model: nn.Module, other: nn.Module, **tolerance: float) -> None:
    for (name, parameter), expected in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def trained_alone(make: Callable[[Iterable[Tensor]], Any]) -> nn.Module:
    model = model_of()
    train(model, make(model.parameters()))
    return model


def sgd(parameters: Iterable[Tensor], **options: float) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, **{"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01} | options)


def distributed(model: nn.Module, **how: Any) -> Any:
    return hvd.DistributedOptimizer(sgd(model.parameters()), model.named_parameters(), **how)


# The same training


def every_optimizer() -> int:
    left_out = (torch.optim.LBFGS, torch.optim.SparseAdam)
    classes = [
        kind
        for kind in torch.optim.Optimizer.__subclasses__()
        if kind.__module__.startswith("torch.optim") and kind not in left_out and kind.__name__ != "Muon"
    ]
    for kind in classes:
        model = model_of()
        original = kind(model.parameters(), lr=0.01)
        optimizer = hvd.DistributedOptimizer(original, named_parameters=model.named_parameters())
        assert isinstance(optimizer, kind)
        assert type(optimizer).__name__ == kind.__name__
        assert optimizer.__module__ == hvd.DistributedOptimizer.__module__  # scripts ask so
        train(model, optimizer, mine)
        same(model, trained_alone(lambda parameters, kind=kind: kind(parameters, lr=0.01)), rtol=1e-6, atol=1e-8)
    return len(classes)


@BOTH_SIZES
def test_every_optimizer_of_torch_trains_as_on_the_whole_batch(crew, size):
    assert min(crew(size).tell(every_optimizer)) >= 10


def with_options(what: str) -> None:
    model = model_of()
    pairs = list(model.named_parameters())
    everything = [parameter for _, parameter in pairs]
    expected = trained_alone(sgd)
    close = EXACT
    how: dict[str, Any] = {"named_parameters": pairs}
    options: dict[str, float] = {}
    if what == "no names":
        how = {}
    elif what == "sums":
        how["op"] = hvd.Sum
        expected = trained_alone(lambda parameters: Summed(parameters, lr=0.1, ranks=hvd.size()))
        options = {"momentum": 0.0, "weight_decay": 0.0}
    elif what == "predivided":
        how["gradient_predivide_factor"] = 2.0
    elif what == "fp16":
        how["compression"] = hvd.Compression.fp16
        close = {"rtol": 2e-3, "atol": 2e-4}
    elif what == "two groups":
        how |= {"groups": 2, "gradient_predivide_factor": 4.0}
    elif what == "more groups than parameters":
        how["groups"] = 100
    elif what == "listed groups":
        how["groups"] = [[everything[4], everything[1]], [everything[0]]]
    elif what == "compressed groups":
        how |= {"groups": 3, "compression": hvd.Compression.fp16}
        close = {"rtol": 2e-3, "atol": 2e-4}
    optimizer = hvd.DistributedOptimizer(sgd(everything, **options), **how)
    train(model, optimizer, mine)
    same(model, expected, **close)


class Summed(torch.optim.SGD):
    """On one process, what a sum over `ranks` of their mean gradients is."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, ranks: int) -> None:
        super().__init__(parameters, lr=lr * ranks)


@BOTH_SIZES
@pytest.mark.parametrize(
    "what",
    [
        "no names",
        "sums",
        "predivided",
        "fp16",
        "two groups",
        "more groups than parameters",
        "listed groups",
        "compressed groups",
    ],
)
def test_options_change_how_gradients_travel_and_not_what_is_trained(crew, size, what):
    crew(size).tell(with_options, what)


class Halved(Compressor):
    """A script's own, which changes the gradient itself."""

    @staticmethod
    def compress(tensor: Tensor) -> tuple[Tensor, float]:
        return tensor.div_(2.0), 2.0

    @staticmethod
    def decompress(tensor: Tensor, ctx: float) -> Tensor:
        return tensor.mul_(ctx)


def compressed_in_place(groups: int | None) -> None:
    model = model_of()
    train(model, distributed(model, compression=Halved, groups=groups), mine)
    same(model, trained_alone(sgd), **EXACT)


@pytest.mark.parametrize("groups", [None, 100])
def test_a_compressor_of_the_script_may_change_the_gradient_itself(crew, groups):
    crew(2).tell(compressed_in_place, groups)


def accumulating(passes: int, groups: int | None) -> None:
    model = model_of()
    optimizer = distributed(model, backward_passes_per_step=1, groups=groups)
    optimizer.set_backward_passes_per_step(passes)
    for step in range(STEPS):
        inputs, targets = mine(batch(step))
        optimizer.zero_grad()
        for some_inputs, some_targets in zip(inputs.chunk(passes), targets.chunk(passes), strict=True):
            (F.mse_loss(model(some_inputs), some_targets) / passes).backward()
        optimizer.step()
    same(model, trained_alone(sgd), **EXACT)


@pytest.mark.parametrize("groups", [None, 2])
def test_gradients_of_several_backward_passes_are_reduced_once(crew, groups):
    crew(2).tell(accumulating, 3, groups)


def a_step_before_all_passes() -> None:
    model = model_of()
    optimizer = distributed(model, backward_passes_per_step=2)
    train(model, optimizer, mine)
    same(model, trained_alone(sgd), **EXACT)


def test_a_step_before_all_passes_are_done_reduces_what_there_is(crew):
    crew(2).tell(a_step_before_all_passes)


def in_several_groups_of_parameters() -> None:
    def options(model: nn.Sequential) -> list[dict[str, Any]]:
        return [{"params": model[0].parameters(), "lr": 0.2}, {"params": model[2].parameters(), "momentum": 0.5}]

    expected = model_of()
    alone = sgd(options(expected))
    alone.add_param_group({"params": expected[4].parameters(), "lr": 0.05})
    train(expected, alone)
    model = model_of()
    optimizer = hvd.DistributedOptimizer(sgd(options(model)))
    optimizer.add_param_group({"params": model[4].parameters(), "lr": 0.05})
    names = list(optimizer._parameter_names.values())
    assert len(set(names)) == 6
    assert len({tuple(sorted(each)) for each in hvd.allgather_object(names)}) == 1
    train(model, optimizer, mine)
    same(model, expected, **EXACT)


def test_groups_of_parameters_keep_their_options_and_may_be_added_later(crew):
    crew(2).tell(in_several_groups_of_parameters)


# Gradients that are not there, or not what they usually are


class TwoWays(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 3).double()
        self.second = nn.Linear(6, 3).double()

    def forward(self, inputs: Tensor, way: int) -> Tensor:
        return self.second(inputs) if way else self.first(inputs)


def each_rank_its_own_way(groups: int | None) -> None:
    model, expected = TwoWays(), TwoWays()
    optimizer = distributed(model, groups=groups)
    alone = sgd(expected.parameters())
    for step in range(STEPS):
        whole = batch(step)
        optimizer.zero_grad()
        inputs, targets = mine(whole)
        F.mse_loss(model(inputs, hvd.rank() % 2), targets).backward()
        optimizer.step()
        alone.zero_grad()
        parts = zip(*(tensor.chunk(hvd.size()) for tensor in whole), strict=True)
        for rank, (inputs, targets) in enumerate(parts):
            (F.mse_loss(expected(inputs, rank % 2), targets) / hvd.size()).backward()
        alone.step()
    same(model, expected, **EXACT)


LIMIT = 700_000


def in_another_order() -> list[list[tuple[str, int]]]:
    """Many small parameters and two large ones, and rank 1 gives them the other way round."""
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4) for _ in range(40)]
    model = nn.Sequential(*layers, nn.Linear(4, 40_000), *[nn.Linear(40_000 if i == 0 else 4, 4) for i in range(3)])
    pairs = list(model.named_parameters())[:: 1 if hvd.rank() == 0 else -1]
    with env(HOROVOD_FUSION_THRESHOLD=str(LIMIT)):
        optimizer = hvd.DistributedOptimizer(torch.optim.SGD([parameter for _, parameter in pairs], lr=0.1), pairs)
    given = torch.randn(2, 4, generator=torch.Generator().manual_seed(hvd.rank()))
    model(given).square().mean().backward()
    optimizer.step()
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert torch.equal(*hvd.allgather(weights, name="weights").chunk(2))
    return [
        [(gradient.name, gradient.parameter.nbytes) for gradient in batch.gradients] for batch in optimizer._batches
    ]


def test_neighbours_travel_together_in_whatever_order_they_are_given(crew):
    first, second = crew(2).tell(in_another_order)
    assert first == second
    names = [name for batch in first for name, _ in batch]
    assert names == [f"{layer}.{what}" for layer in range(44) for what in ("bias", "weight")]  # each once, as counted
    sizes = [sum(nbytes for _, nbytes in batch) for batch in first]
    assert all(size <= LIMIT for size in sizes)
    neighbours = zip(sizes, first[1:], strict=False)
    assert all(size + batch[0][1] > LIMIT for size, batch in neighbours), "another would have found room"


def without_fusion() -> None:
    with env(HOROVOD_FUSION_THRESHOLD="0"):
        model = model_of()
        optimizer = distributed(model)
    assert [len(batch.gradients) for batch in optimizer._batches] == [1] * 6
    train(model, optimizer, mine)
    same(model, trained_alone(sgd), **EXACT)


def test_without_fusion_each_gradient_travels_alone(crew):
    crew(2).tell(without_fusion)


@pytest.mark.parametrize("groups", [None, 1, 2])
def test_a_parameter_without_gradient_counts_as_zero_on_its_rank(crew, groups):
    crew(3).tell(each_rank_its_own_way, groups)


def frozen_and_thawed() -> None:
    def half(model: nn.Sequential, optimizer: Any, part: Callable[..., Any]) -> None:
        for step in range(4):
            trained = step % 2 == 1
            for parameter in model[2].parameters():
                parameter.requires_grad_(trained)
            inputs, targets = part(batch(step))
            optimizer.zero_grad()
            F.mse_loss(model(inputs), targets).backward()
            optimizer.step()

    model, expected = model_of(), model_of()
    for each in (model, expected):
        each[2].requires_grad_(False)  # when it is wrapped
    half(expected, sgd(expected.parameters(), momentum=0, weight_decay=0), lambda whole: whole)
    wrapped = hvd.DistributedOptimizer(sgd(model.parameters(), momentum=0, weight_decay=0), model.named_parameters())
    half(model, wrapped, mine)
    same(model, expected, **EXACT)


def test_parameters_that_are_thawed_later_are_reduced_then(crew):
    crew(2).tell(frozen_and_thawed)


def channels_last() -> None:
    def made() -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2)).double()
        return model.to(memory_format=torch.channels_last)

    pictures = torch.randn(6, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model, expected = made(), made()
    optimizer, alone = distributed(model), sgd(expected.parameters())
    for _ in range(STEPS):
        part = pictures.chunk(hvd.size())[hvd.rank()]
        optimizer.zero_grad()
        model(part.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        assert not model[0].weight.grad.is_contiguous()
        optimizer.step()
        alone.zero_grad()
        expected(pictures).square().mean().backward()
        alone.step()
    same(model, expected, **EXACT)


def test_gradients_of_any_layout_are_reduced(crew):
    crew(2).tell(channels_last)


def sparse_gradients(kind: str, as_dense: bool, groups: int | None) -> None:
    def made(parameters: Iterable[Tensor]) -> Any:
        if kind == "SparseAdam":
            return torch.optim.SparseAdam(list(parameters), lr=0.1)
        return torch.optim.SGD(parameters, lr=0.1)

    def loss(model: nn.Embedding, rank: int) -> Tensor:
        return model(torch.tensor([rank, 5, 5])).square().mean()

    torch.manual_seed(0)
    model = nn.Embedding(10, 3, sparse=True).double()
    expected = copy.deepcopy(model)
    optimizer = hvd.DistributedOptimizer(
        made(model.parameters()), model.named_parameters(), sparse_as_dense=as_dense, groups=groups
    )
    alone = made(expected.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model, hvd.rank()).backward()
        optimizer.step()
        assert model.weight.grad.is_sparse
        alone.zero_grad()
        (sum(loss(expected, rank) for rank in range(hvd.size())) / hvd.size()).backward()
        alone.step()
    same(model, expected, **EXACT)


@pytest.mark.parametrize("groups", [None, 1])
@pytest.mark.parametrize("as_dense", [False, True])
@pytest.mark.parametrize("kind", ["SparseAdam", "SGD"])
def test_sparse_gradients_stay_sparse(crew, kind, as_dense, groups):
    crew(2).tell(sparse_gradients, kind, as_dense, groups)


def compiled() -> None:
    model = model_of()
    optimizer = distributed(model)
    train(torch.compile(model, backend="aot_eager"), optimizer, mine)
    same(model, trained_alone(sgd), rtol=1e-7, atol=1e-9)


def test_a_compiled_model_is_trained_as_any_other(crew):
    crew(2).tell(compiled)


# The ways in which scripts step


def clipped() -> None:
    expected, model = model_of(), model_of()
    alone, optimizer = sgd(expected.parameters()), distributed(model)
    for step in range(STEPS):
        alone.zero_grad()
        F.mse_loss(expected(batch(step)[0]), batch(step)[1]).backward()
        nn.utils.clip_grad_norm_(expected.parameters(), 0.05)
        alone.step()
        inputs, targets = mine(batch(step))
        optimizer.zero_grad()
        F.mse_loss(model(inputs), targets).backward()
        optimizer.synchronize()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        with warnings.catch_warnings(), optimizer.skip_synchronize():
            warnings.simplefilter("error")
            optimizer.step()
    same(model, expected, **EXACT)


def test_reduced_gradients_can_be_clipped_before_the_step(crew):
    crew(2).tell(clipped)


def twice_reduced() -> list[str]:
    model = model_of()
    optimizer = distributed(model)
    inputs, targets = mine(batch(0))
    F.mse_loss(model(inputs), targets).backward()
    optimizer.synchronize()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        optimizer.step()
        optimizer.step()  # says nothing
    return [(str(one.message), one.filename) for one in told]


def test_a_step_after_synchronize_warns_once_where_it_is_called(crew):
    for told in crew(2).tell(twice_reduced):
        ((message, where),) = told
        assert "optimizer.step() called without optimizer.skip_synchronize()" in message
        assert where == __file__


def scaled() -> None:
    expected, model = model_of(), model_of()
    alone, optimizer = sgd(expected.parameters()), distributed(model)
    ours, theirs = (torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1) for _ in range(2))
    for step in range(STEPS):
        alone.zero_grad()
        theirs.scale(F.mse_loss(expected(batch(step)[0]), batch(step)[1])).backward()
        theirs.unscale_(alone)
        nn.utils.clip_grad_norm_(expected.parameters(), 0.05)
        theirs.step(alone)
        theirs.update()
        inputs, targets = mine(batch(step))
        optimizer.zero_grad()
        ours.scale(F.mse_loss(model(inputs), targets)).backward()
        optimizer.synchronize()
        ours.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        with optimizer.skip_synchronize():
            ours.step(optimizer)
        ours.update()
    assert ours.get_scale() == theirs.get_scale()
    same(model, expected, **EXACT)


def test_gradients_can_be_scaled(crew):
    crew(2).tell(scaled)


def scheduled() -> None:
    expected, model = model_of(), model_of()
    alone, optimizer = sgd(expected.parameters()), distributed(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each, by, part in ((expected, alone, lambda whole: whole), (model, optimizer, mine)):
            schedule = torch.optim.lr_scheduler.StepLR(by, step_size=1, gamma=0.5)
            for _ in range(2):
                train(each, by, part)
                schedule.step()
    assert optimizer.param_groups[0]["lr"] == alone.param_groups[0]["lr"] == 0.025
    same(model, expected, **EXACT)


def test_learning_rates_are_scheduled_as_of_any_optimizer(crew):
    crew(2).tell(scheduled)


def scheduled_before() -> None:
    model = model_of()
    original = sgd(model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(original, step_size=1, gamma=0.5)
    optimizer = hvd.DistributedOptimizer(original, model.named_parameters())
    train(model, optimizer, mine)
    same(model, trained_alone(sgd), **EXACT)  # its steps are ours, not the original's
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.05


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_a_schedule_made_before_still_sets_the_learning_rate(crew):
    crew(2).tell(scheduled_before)


def by_closure() -> None:
    def step(model: nn.Module, optimizer: Any, whole: tuple[Tensor, Tensor]) -> Any:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.mse_loss(model(whole[0]), whole[1])
            loss.backward()
            return loss

        return optimizer.step(closure)

    expected, model = model_of(), model_of()
    alone, optimizer = sgd(expected.parameters()), distributed(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(STEPS):
            step(expected, alone, batch(number))
            loss = step(model, optimizer, mine(batch(number)))
            assert loss.shape == ()
    same(model, expected, **EXACT)

    # All ranks with the same data: LBFGS calls it as often as it likes.
    expected, model = model_of(), model_of()
    step(expected, torch.optim.LBFGS(expected.parameters(), max_iter=5), batch(0))
    lbfgs = hvd.DistributedOptimizer(torch.optim.LBFGS(model.parameters(), max_iter=5), model.named_parameters())
    step(model, lbfgs, batch(0))
    same(model, expected, **EXACT)


def test_gradients_of_a_closure_are_reduced_each_time_that_it_is_called(crew):
    crew(2).tell(by_closure)


def hooked() -> list[Any]:
    model = model_of()
    original = sgd(model.parameters())
    seen = []
    original.register_step_pre_hook(lambda *_: seen.append(model[0].bias.grad.tolist()))
    optimizer = hvd.DistributedOptimizer(original, model.named_parameters())
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    train(model, optimizer, mine)
    return seen


def test_hooks_of_a_step_run_once_and_see_reduced_gradients(crew):
    first, second = crew(2).tell(hooked)
    assert first == second
    assert first[1::2] == ["after"] * STEPS
    assert len(first) == 2 * STEPS


def zeroed() -> None:
    model = model_of()
    optimizer = distributed(model)
    for to_none in (True, False):
        inputs, targets = mine(batch(0))
        F.mse_loss(model(inputs), targets).backward()
        with pytest.raises(AssertionError, match=r"zero_grad.* was called after loss\.backward"):
            optimizer.zero_grad(set_to_none=to_none)
        optimizer.step()
        optimizer.zero_grad(set_to_none=to_none)
        assert (model[0].weight.grad is None) is to_none
    model(mine(batch(0))[0]).sum().backward()
    with pytest.raises(AssertionError, match="was computed more than backward_passes_per_step=1"):
        model(mine(batch(0))[0]).sum().backward()
    optimizer.synchronize()
    with pytest.raises(AssertionError, match="is itself to be derived"):
        model(mine(batch(0))[0]).sum().backward(create_graph=True)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()


@pytest.mark.filterwarnings("ignore:Using backward")
def test_gradients_on_their_way_are_not_overwritten(crew):
    crew(2).tell(zeroed)


# What it is made of


class Own(torch.optim.Optimizer):
    """A script's own, whose `__init__` takes what no other does."""

    def __init__(self, parameters: Iterable[Tensor], *, strength: float) -> None:
        self.strength = strength
        super().__init__(parameters, {"lr": strength})

    @torch.no_grad()
    def step(self) -> None:
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            parameter.sub_(parameter.grad, alpha=self.strength)

    def zero_grad(self) -> None:
        super().zero_grad(set_to_none=False)


def own_optimizer() -> None:
    model = model_of()
    optimizer = hvd.DistributedOptimizer(Own(model.parameters(), strength=0.1), model.named_parameters())
    assert isinstance(optimizer, Own)
    train(model, optimizer, mine)
    same(model, trained_alone(lambda parameters: Own(parameters, strength=0.1)), **EXACT)


def test_an_optimizer_of_the_script_is_wrapped_as_it_is(crew):
    crew(2).tell(own_optimizer)


def wrapped_while_training() -> None:
    expected, model = model_of(), model_of()
    alone, original = sgd(expected.parameters()), sgd(model.parameters())
    train(expected, alone)
    train(expected, alone)
    train(model, original)
    optimizer = hvd.DistributedOptimizer(original, model.named_parameters())
    assert optimizer.defaults == original.defaults
    train(model, optimizer, mine)
    same(model, expected, **EXACT)
    assert optimizer.state_dict()["state"].keys() == alone.state_dict()["state"].keys()


def test_state_is_kept_when_it_is_wrapped(crew):
    crew(2).tell(wrapped_while_training)


def copied(how: str, groups: int | None) -> None:
    expected, model = model_of(), model_of()
    alone, optimizer = sgd(expected.parameters()), distributed(model, groups=groups)
    train(expected, alone)
    train(expected, alone)
    train(model, optimizer, mine)
    if how == "copy":
        model, optimizer = copy.deepcopy((model, optimizer))
    else:
        model, optimizer = pickle.loads(pickle.dumps((model, optimizer)))  # noqa: S301 - our own
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.process_set is hvd.global_process_set
    train(model, optimizer, mine)
    same(model, expected, **EXACT)


@pytest.mark.parametrize("groups", [None, 2])
@pytest.mark.parametrize("how", ["copy", "pickle"])
def test_a_copy_reduces_gradients_too(crew, how, groups):
    crew(2).tell(copied, how, groups)


def loaded() -> None:
    expected, model = model_of(), model_of()
    alone, optimizer = sgd(expected.parameters()), distributed(model)
    train(model, optimizer, mine)
    train(expected, alone)
    fresh = distributed(model)  # in the place of the first, whose hooks it shares the parameters with
    del optimizer
    fresh.load_state_dict(copy.deepcopy(alone.state_dict()))  # torch does not copy
    train(model, fresh, mine)
    train(expected, alone)
    same(model, expected, **EXACT)


def test_a_state_is_loaded_into_another(crew):
    crew(2).tell(loaded)


def let_go() -> None:
    model = model_of()
    for _ in range(3):  # each reduces by the same names
        optimizer = distributed(model)
        train(model, optimizer, mine)
        gone = weakref.ref(optimizer)
        del optimizer
        assert gone() is None
    parameter = weakref.ref(model[0].weight)
    del model
    gc.collect()
    assert parameter() is None


def test_an_optimizer_that_is_gone_leaves_no_hooks(crew):
    crew(2).tell(let_go)


# Process sets


def in_a_process_set() -> list[float]:
    some = hvd.add_process_set([0, 2])
    model = model_of()
    optimizer = hvd.DistributedOptimizer(sgd(model.parameters()), model.named_parameters(), process_set=some, groups=2)
    train(model, optimizer, mine)
    weights = model[0].weight.flatten().tolist()
    hvd.remove_process_set(some)
    return weights


def test_gradients_of_a_process_set_are_its_own(crew):
    first, second, third = crew(3).tell(in_a_process_set)
    assert first == third
    assert first != second
    model = model_of()
    optimizer = sgd(model.parameters())
    for step in range(STEPS):
        inputs, targets = batch(step)
        optimizer.zero_grad()
        rows = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11])
        F.mse_loss(model(inputs[rows]), targets[rows]).backward()
        optimizer.step()
    torch.testing.assert_close(torch.tensor(first), model[0].weight.detach().flatten().float())


# Adasum


def adasum_of(steps: list[Tensor]) -> Tensor:
    """Of neighbours, then of pairs, and so on."""
    while len(steps) > 1:
        pairs = zip(steps[::2], steps[1::2], strict=True)
        steps = [
            a * (1 - (a * b).sum() / (2 * a.square().sum())) + b * (1 - (a * b).sum() / (2 * b.square().sum()))
            for a, b in pairs
        ]
    return steps[0]


def adasum_steps(passes: int) -> None:
    def backward(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        for _ in range(passes):
            (F.mse_loss(model(inputs), targets) / passes).backward()

    def alone(rank: int, optimizer: torch.optim.Optimizer, model: nn.Module, step: int) -> list[Tensor]:
        """What this rank's own step would be."""
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer.zero_grad()
        backward(model, *(tensor.chunk(hvd.size())[rank] for tensor in batch(step)))
        optimizer.step()
        return [parameter.detach() - start for parameter, start in zip(model.parameters(), before, strict=True)]

    def made(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.01)

    model = model_of()
    optimizer = hvd.DistributedOptimizer(
        made([{"params": model[0].parameters()}, {"params": model[2:].parameters(), "lr": 0.02}]),
        model.named_parameters(),
        op=hvd.Adasum,
        backward_passes_per_step=passes,
    )
    models = [model_of() for _ in range(hvd.size())]
    theirs = [
        made([{"params": each[0].parameters()}, {"params": each[2:].parameters(), "lr": 0.02}]) for each in models
    ]
    for step in range(STEPS):
        optimizer.zero_grad()
        backward(model, *mine(batch(step)))
        with pytest.raises(AssertionError, match=r"zero_grad.* was called after loss\.backward"):
            optimizer.zero_grad()
        optimizer.synchronize()
        with pytest.raises(AssertionError, match="not supported when using Adasum"):
            optimizer.skip_synchronize()
        assert optimizer.step() is None
        starts = [parameter.detach().clone() for parameter in models[0].parameters()]
        steps = [alone(rank, by, each, step) for rank, (by, each) in enumerate(zip(theirs, models, strict=True))]
        with torch.no_grad():
            for number, start in enumerate(starts):
                end = start + adasum_of([each[number] for each in steps])
                for each in models:
                    list(each.parameters())[number].copy_(end)
        same(model, models[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("size", [2, 4])
def test_adasum_combines_the_steps_of_the_ranks(crew, size, passes):
    crew(size).tell(adasum_steps, passes)


def adasum_with_closure_and_without_gradients() -> None:
    model = TwoWays()
    optimizer = distributed(model, op=hvd.Adasum, compression=hvd.Compression.fp16)
    before = model.second.weight.detach().clone()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(mine(batch(0))[0], 0).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).shape == ()
    assert torch.equal(model.second.weight, before)  # there was nothing to step
    weights = hvd.allgather(model.first.weight.detach().flatten(), name="first")
    assert torch.equal(*weights.chunk(2))


def test_adasum_takes_closures_and_leaves_what_has_no_gradient(crew):
    crew(2).tell(adasum_with_closure_and_without_gradients)


# What cannot be meant


def refused() -> None:
    model = model_of()

    def made(**how: Any) -> Any:
        return hvd.DistributedOptimizer(sgd(model.parameters()), **how)

    pairs = list(model.named_parameters())
    with pytest.raises(ValueError, match="tuples"):
        made(named_parameters=model.parameters())
    with pytest.raises(ValueError, match=r"unique. Found duplicates: 0\.weight"):
        made(named_parameters=[*pairs, pairs[0]])
    with pytest.raises(ValueError, match=r"not named: 4 of 6, of shapes \(8, 8\)"):
        made(named_parameters=pairs[:2])
    with pytest.raises(ValueError, match="gradient_predivide_factor not supported"):
        made(gradient_predivide_factor=2.0, op=hvd.Sum)
    with pytest.raises(ValueError, match="backward_passes_per_step must be > 0"):
        made(backward_passes_per_step=0)
    for groups in (0, -1, "two"):
        with pytest.raises(ValueError, match="groups should be"):
            made(groups=groups)
    with pytest.raises(ValueError, match=r"groups must consist of torch\.Tensor"):
        made(groups=[["0.weight"]])
    with pytest.raises(ValueError, match="only appear once"):
        made(groups=[[pairs[0][1]], [pairs[0][1]]])
    with pytest.raises(ValueError, match="already"):
        hvd.DistributedOptimizer(made())
    with pytest.warns(DeprecationWarning, match="num_groups"):
        optimizer = made(num_groups=2)
    assert len(optimizer._batches) == 2
    some = hvd.add_process_set([0])
    with pytest.raises(NotImplementedError, match="process set"):
        made(op=hvd.Adasum, process_set=some)
    hvd.remove_process_set(some)


def test_what_cannot_be_meant_is_refused(crew):
    crew(2).tell(refused)


def other_parameters_on_each_rank() -> str:
    model = model_of()
    names = [(f"{hvd.rank()}.{name}", parameter) for name, parameter in model.named_parameters()]
    try:
        hvd.DistributedOptimizer(sgd(model.parameters()), names, groups=2)
    except ValueError as error:
        return str(error)
    return ""


def test_groups_of_other_parameters_are_told_on_the_rank_that_has_them(crew):
    first, second = crew(2).tell(other_parameters_on_each_rank)
    assert first == ""
    assert "rank 0 trains other parameters: ['0.0.bias'" in second


def gradients_of_other_shapes() -> None:
    model = nn.Linear(3 + hvd.rank(), 2)
    optimizer = hvd.DistributedOptimizer(sgd(model.parameters()), model.named_parameters())
    model(torch.ones(1, 3 + hvd.rank())).sum().backward()
    with pytest.raises(hvd.HorovodInternalError, match="weight"):
        optimizer.step()
    optimizer.zero_grad()  # nothing is under way


def test_gradients_that_do_not_fit_are_told_and_forgotten(crew):
    crew(2).tell(gradients_of_other_shapes)


def ends_in_backward() -> None:
    with env(HOROVOD_ELASTIC="1"):  # others may come: it reduces though it is alone
        model = model_of()
        optimizer = distributed(model)
    train(model, optimizer)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    hvd.shutdown()
    with pytest.raises(hvd.HorovodInternalError):
        F.mse_loss(model(batch(0)[0]), batch(0)[1]).backward()
    hvd.init()
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    train(model, optimizer)
    expected = model_of()
    alone = sgd(expected.parameters())
    train(expected, alone)
    train(expected, alone)
    same(model, expected, **EXACT)


def test_an_error_within_backward_arrives_as_it_is_and_training_goes_on_after_a_new_init(crew):
    crew(1).tell(ends_in_backward)


def fewer_batches_on_one_rank() -> None:
    model = model_of()
    optimizer = distributed(model)
    for step in range(2 + hvd.rank()):
        inputs, targets = mine(batch(step))
        optimizer.zero_grad()
        F.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    assert hvd.join() == 1
    expected = model_of()
    alone = sgd(expected.parameters())
    for step in range(3):
        inputs, targets = batch(step)
        alone.zero_grad()
        loss = F.mse_loss(expected(inputs), targets)
        if step == 2:  # rank 0 has joined: it counts as zero
            loss = F.mse_loss(expected(inputs[6:]), targets[6:]) / 2
        loss.backward()
        alone.step()
    if hvd.rank() == 1:
        same(model, expected, **EXACT)


def test_a_rank_that_has_joined_counts_as_zero(crew):
    crew(2).tell(fewer_batches_on_one_rank)


def nothing_to_reduce() -> None:
    model = model_of()
    optimizer = distributed(model, compression=hvd.Compression.fp16)
    train(model, optimizer)
    for _ in range(3):  # more often than once: nobody counts
        model(batch(0)[0]).sum().backward()
    optimizer.zero_grad()
    same(model, trained_alone(sgd), rtol=0, atol=0)
    lonely = distributed(model_of(), op=hvd.Adasum)
    lonely.step()


def test_one_rank_alone_trains_as_without(crew):
    crew(1).tell(nothing_to_reduce)


def test_names_of_parameters_differ_between_groups():
    from phalanx.horovod.torch.wrapping import names_of

    parameters = [nn.Parameter(torch.ones(1)) for _ in range(6)]
    groups = [{"params": parameters[:2]}, {"params": parameters[2:]}]
    names = names_of(groups, None)
    assert len(set(names.values())) == 6
    assert list(names) == parameters or all(a is b for a, b in itertools.zip_longest(names, parameters))
