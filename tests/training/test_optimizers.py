"""Optimizers against formulas written out here, and their state through a checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from phalanx.job import OptimizerSpec
from phalanx.models import build, resolve
from phalanx.parallel import Mesh
from phalanx.training.optimizers import make_optimizer
from phalanx.training.stepper import Stepper, build_stepper
from tests.training.values import make_plan

RATE = 0.01


class Small(nn.Module):
    """A table, a hidden matrix, a norm, a head that is the table."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.hidden = nn.Linear(8, 16)
        self.back = nn.Linear(16, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight


def with_gradients(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    module = Small()
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    return module


def before_and_after(spec: OptimizerSpec, steps: int = 1) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Of each parameter: before, after, gradient."""
    module = with_gradients()
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = make_optimizer(module, spec)
    for _ in range(steps):
        optimizer.step()
    return {name: (before[name], parameter.detach(), parameter.grad) for name, parameter in module.named_parameters()}


def adamw(value, gradient, steps, lr, betas, decay):
    """Loshchilov & Hutter 2019, algorithm 2, with the same gradient in every step."""
    first = second = torch.zeros_like(value)
    for step in range(1, steps + 1):
        value = value * (1 - lr * decay)
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        value = value - lr * (first / (1 - betas[0] ** step)) / ((second / (1 - betas[1] ** step)).sqrt() + 1e-8)
    return value


def test_adamw_is_the_published_rule_and_decays_hidden_matrices_only():
    spec = OptimizerSpec(name="adamw", lr=RATE, weight_decay=0.1, betas=(0.9, 0.95))
    for name, (value, after, gradient) in before_and_after(spec, steps=3).items():
        decay = 0.1 if name in ("hidden.weight", "back.weight") else 0.0
        torch.testing.assert_close(after, adamw(value, gradient, 3, RATE, (0.9, 0.95), decay), msg=name)


def test_muon_gives_what_is_no_hidden_matrix_to_adamw():
    spec = OptimizerSpec(name="muon", lr=0.05, embedding_lr=RATE, betas=(0.8, 0.9))
    moved = before_and_after(spec, steps=2)
    assert set(moved) == {"embedding.weight", "hidden.weight", "hidden.bias", "back.weight", "norm.weight", "norm.bias"}
    for name in ("embedding.weight", "hidden.bias", "norm.weight", "norm.bias"):
        value, after, gradient = moved[name]
        torch.testing.assert_close(after, adamw(value, gradient, 2, RATE, (0.8, 0.9), 0.0), msg=name)


@pytest.mark.parametrize("name", ["hidden.weight", "back.weight"])
def test_muon_moves_a_matrix_by_its_gradient_with_all_singular_values_near_one(name):
    """The first step is along the gradient (Nesterov momentum of one gradient is a multiple of it)."""
    decay = 0.1
    value, after, gradient = before_and_after(OptimizerSpec(name="muon", lr=RATE, weight_decay=decay))[name]
    scale = RATE * max(1, gradient.shape[0] / gradient.shape[1]) ** 0.5
    update = (value * (1 - RATE * decay) - after) / scale
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    inside = left.T @ update @ right.T  # diagonal, about 1, if the update is the polar factor of the gradient
    diagonal = inside.diagonal()
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert (inside - diagonal.diag()).abs().max() < 0.05
    assert float((update * (left @ right)).sum() / (update.norm() * (left @ right).norm())) > 0.98


def test_muon_remembers_with_its_momentum():
    """A gradient, then none: the second step still goes the way of the first."""
    module = with_gradients()
    optimizer = make_optimizer(module, OptimizerSpec(name="muon", lr=RATE, weight_decay=0.0, momentum=0.5))
    places = [module.back.weight.detach().clone()]
    for _ in range(2):
        optimizer.step()
        places.append(module.back.weight.detach().clone())
        for parameter in module.parameters():
            parameter.grad.zero_()
    torch.testing.assert_close(places[2] - places[1], places[1] - places[0], rtol=0.05, atol=1e-4)


def test_the_first_group_has_the_rate_of_the_job_and_the_rest_its_own():
    rates = [group["lr"] for group in make_optimizer(Small(), OptimizerSpec(name="muon", lr=0.02)).param_groups]
    assert rates == pytest.approx([0.02, 0.004])
    spec = OptimizerSpec(name="muon", lr=0.02, embedding_lr=0.001)
    assert [group["lr"] for group in make_optimizer(Small(), spec).param_groups] == [0.02, 0.001]


def test_a_rate_set_in_a_group_is_the_rate_of_the_step():
    module = with_gradients()
    optimizer = make_optimizer(module, OptimizerSpec(name="muon", lr=0.02))
    before = [parameter.detach().clone() for parameter in module.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize("spec", [OptimizerSpec(name="adamw"), OptimizerSpec(name="muon")])
def test_frozen_parameters_are_left_out_and_a_module_without_matrices_is_served(spec):
    module = nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2))
    module[1].requires_grad_(False)
    optimizer = make_optimizer(module, spec)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


def test_a_closure_is_asked_for_the_loss():
    module = with_gradients()
    optimizer = make_optimizer(module, OptimizerSpec(name="muon"))

    def closure() -> float:
        assert torch.is_grad_enabled()
        return 3.0

    assert optimizer.step(closure) == 3.0


# ---- through a checkpoint


def stepper_of(name: str, seed: int) -> Stepper:
    plan = make_plan()

    def make_model() -> nn.Module:
        torch.manual_seed(seed)
        return build(resolve("gpt-tiny", 40, 16))

    spec = OptimizerSpec(name=name, lr=RATE)
    return build_stepper(make_model, lambda module: make_optimizer(module, spec), plan, Mesh.imagined(plan.mesh))


def train(stepper: Stepper, steps: range) -> None:
    for step in steps:
        tokens = torch.randint(40, (4, 17), generator=torch.Generator().manual_seed(step))
        stepper.forward_backward([{"tokens": tokens}], 64)
        stepper.clip(1.0)
        stepper.update(1 / (step + 1))


class Kept:
    """A checkpoint in memory."""

    def __init__(self, stepper: Stepper) -> None:
        self.tensors = {piece.name: piece.tensor.clone() for piece in stepper.state()}

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.tensors if name.startswith(prefix)]

    def read_slice(self, name: str, offset: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
        return self.tensors[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_resumed_equals_uninterrupted_bit_for_bit(name):
    whole = stepper_of(name, seed=1)
    train(whole, range(6))
    first = stepper_of(name, seed=1)
    train(first, range(3))
    second = stepper_of(name, seed=2)
    train(second, range(1))  # so that it has a state of its own, which must not survive
    second.load(Kept(first))
    train(second, range(3, 6))
    expected = Kept(whole).tensors
    got = Kept(second).tensors
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_has_a_state_of_tensors(name):
    stepper = stepper_of(name, seed=1)
    train(stepper, range(1))
    states = stepper.optimizer.state
    assert set(states) == set(stepper.module.parameters())
    assert all(isinstance(value, torch.Tensor) for state in states.values() for value in state.values())


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_needs_no_numbers(name):
    """Under fake tensors, as the planner runs it."""
    with FakeTensorMode():
        stepper = stepper_of(name, seed=1)
        for _ in range(2):
            stepper.forward_backward([{"tokens": torch.zeros(4, 17, dtype=torch.int64)}], 64)
            stepper.clip(1.0)
            stepper.update()
        assert all(isinstance(piece.tensor, FakeTensor) for piece in stepper.state())
