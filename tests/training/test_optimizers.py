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


# ---- L2, L1 and decoupled decay (Loshchilov & Hutter 2019)

HIDDEN = ("hidden.weight", "back.weight")


def steps_of(optimizer: torch.optim.Optimizer, gradients: list[list[torch.Tensor]]) -> None:
    """Steps with the given gradients: of each step, of each parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def matrix_after(spec: OptimizerSpec, *, steps: int = 4, scale: torch.Tensor | float = 1.0) -> torch.Tensor:
    """A matrix of ones after steps whose gradients are drawn, times `scale`."""
    module = nn.Sequential(nn.Linear(4, 3, bias=False, dtype=torch.float64))
    nn.init.ones_(module[0].weight)
    steps_of(make_optimizer(module, spec), drawn_gradients(steps, scale))
    return module[0].weight.detach()


def drawn_gradients(steps: int, scale: torch.Tensor | float = 1.0) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [[torch.randn(3, 4, generator=generator, dtype=torch.float64) * scale] for _ in range(steps)]


def torchs(kind: type[torch.optim.Optimizer], **options: object) -> torch.Tensor:
    weight = nn.Parameter(torch.ones(3, 4, dtype=torch.float64))
    steps_of(kind([weight], lr=RATE, **options), drawn_gradients(4))
    return weight.detach()


def test_l2_through_adam_is_torchs_adam_and_decay_is_torchs_adamw():
    betas = (0.9, 0.95)
    l2 = matrix_after(OptimizerSpec(lr=RATE, weight_decay=0, l2=0.5, betas=betas))
    torch.testing.assert_close(l2, torchs(torch.optim.Adam, weight_decay=0.5, betas=betas), rtol=0, atol=1e-12)
    decayed = matrix_after(OptimizerSpec(lr=RATE, weight_decay=0.5, betas=betas))
    torch.testing.assert_close(decayed, torchs(torch.optim.AdamW, weight_decay=0.5, betas=betas), rtol=0, atol=1e-12)
    assert (l2 - decayed).abs().max() > 0.1 * RATE


def test_adam_decays_by_l2_the_less_the_larger_the_gradients_and_decoupled_decay_does_not_care():
    """Section 2: weights with large gradients are regularised less by L2, all alike by decay."""
    scale = torch.tensor([0.01, 1.0, 10.0, 100.0])

    def pulled(**how: float) -> list[float]:
        """How much the decay adds to the way of each column, whose gradients are of different size."""
        plain = matrix_after(OptimizerSpec(lr=1e-4, weight_decay=0), scale=scale)
        return (
            (plain - matrix_after(OptimizerSpec(lr=1e-4, **{"weight_decay": 0, **how}), scale=scale)).mean(0).tolist()
        )

    decay, l2 = pulled(weight_decay=0.1), pulled(l2=0.1)
    assert decay == pytest.approx([decay[0]] * 4, rel=0.02)
    assert l2[1] > 5 * l2[2] > 25 * l2[3] > 0


def test_plain_sgd_cannot_tell_l2_from_decoupled_decay():
    """Proposition 1, the decay being multiplied by the rate: without momentum they are the same, with it not."""
    for momentum in (0.0, 0.9):
        l2 = matrix_after(OptimizerSpec(name="sgd", lr=RATE, momentum=momentum, weight_decay=0, l2=0.5))
        decayed = matrix_after(OptimizerSpec(name="sgd", lr=RATE, momentum=momentum, weight_decay=0.5))
        expected = torchs(torch.optim.SGD, momentum=momentum, weight_decay=0.5)
        torch.testing.assert_close(l2, expected, rtol=0, atol=1e-12)
        assert torch.allclose(l2, decayed, rtol=0, atol=1e-12) == (momentum == 0.0)


def test_decoupled_decay_of_sgd_is_outside_its_momentum():
    """Two steps with a gradient of 1: written out."""
    lr, momentum, decay = 0.1, 0.5, 0.25
    module = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(module[0].weight, 2.0)
    optimizer = make_optimizer(module, OptimizerSpec(name="sgd", lr=lr, momentum=momentum, weight_decay=decay))
    steps_of(optimizer, [[torch.ones(1, 1)]] * 2)
    shrink = 1 - lr * decay
    assert module[0].weight.item() == pytest.approx((2.0 * shrink - lr * 1) * shrink - lr * (momentum * 1 + 1))


def test_l1_adds_its_sign_and_nothing_where_a_weight_is_zero():
    module = nn.Sequential(nn.Linear(3, 1, bias=False))
    module[0].weight.data = torch.tensor([[2.0, -3.0, 0.0]])
    optimizer = make_optimizer(module, OptimizerSpec(name="sgd", lr=0.1, momentum=0, weight_decay=0, l1=0.5, l2=0.25))
    steps_of(optimizer, [[torch.tensor([[1.0, 1.0, 1.0]])]])
    expected = [2 - 0.1 * (1 + 0.5 + 0.25 * 2), -3 - 0.1 * (1 - 0.5 - 0.25 * 3), -0.1]
    assert module[0].weight[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_penalties_are_the_gradient_of_what_is_added_to_the_loss_of_hidden_matrices_only(name):
    """autograd's gradient of l2 / 2 sum(w^2) + l1 sum(|w|), given to the optimizer that has no penalties."""
    module, other = with_gradients(), with_gradients()
    weights = dict(other.named_parameters())
    (0.3 * sum(weights[key].square().sum() / 2 + weights[key].abs().sum() for key in HIDDEN)).backward()
    make_optimizer(module, OptimizerSpec(name=name, l2=0.3, l1=0.3)).step()
    make_optimizer(other, OptimizerSpec(name=name)).step()
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(parameter, weights[key], msg=key)


@pytest.mark.parametrize("spec", [OptimizerSpec(name=name) for name in ("adamw", "muon", "sgd")])
def test_frozen_parameters_are_left_out_and_a_module_without_matrices_is_served(spec):
    module = nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2))
    module[1].requires_grad_(False)
    optimizer = make_optimizer(module, spec)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


@pytest.mark.parametrize("options", [{"name": "muon"}, {"name": "sgd"}, {"name": "adamw", "l1": 0.1}])
def test_a_closure_is_asked_for_the_loss(options):
    module = with_gradients()
    optimizer = make_optimizer(module, OptimizerSpec(**options))

    def closure() -> float:
        assert torch.is_grad_enabled()
        return 3.0

    assert optimizer.step(closure) == 3.0


# ---- through a checkpoint


def stepper_of(name: str, seed: int, **options: float) -> Stepper:
    plan = make_plan()

    def make_model() -> nn.Module:
        torch.manual_seed(seed)
        return build(resolve("gpt-tiny", 40, 16))

    spec = OptimizerSpec(name=name, lr=RATE, **options)
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


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("penalties", [{}, {"l1": 1e-3, "l2": 0.1}])
def test_resumed_equals_uninterrupted_bit_for_bit(name, penalties):
    whole = stepper_of(name, seed=1, **penalties)
    train(whole, range(6))
    first = stepper_of(name, seed=1, **penalties)
    train(first, range(3))
    second = stepper_of(name, seed=2, **penalties)
    train(second, range(1))  # so that it has a state of its own, which must not survive
    second.load(Kept(first))
    train(second, range(3, 6))
    expected = Kept(whole).tensors
    got = Kept(second).tensors
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_every_parameter_has_a_state_of_tensors(name):
    stepper = stepper_of(name, seed=1)
    train(stepper, range(1))
    states = stepper.optimizer.state
    assert set(states) == set(stepper.module.parameters())
    assert all(isinstance(value, torch.Tensor) for state in states.values() for value in state.values())


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("penalties", [{}, {"l1": 1e-3, "l2": 0.1}])
def test_a_step_needs_no_numbers(name, penalties):
    """Under fake tensors, as the planner runs it."""
    with FakeTensorMode():
        stepper = stepper_of(name, seed=1, **penalties)
        for _ in range(2):
            stepper.forward_backward([{"tokens": torch.zeros(4, 17, dtype=torch.int64)}], 64)
            stepper.clip(1.0)
            stepper.update()
        assert all(isinstance(piece.tensor, FakeTensor) for piece in stepper.state())
