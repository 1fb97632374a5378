"""Flat gradients against torch's own, and what the split refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from phalanx.job import HostFacts, MemoryPrediction, MeshSpec, Plan, Predicted
from phalanx.parallel import DataSplit, Mesh

FACTS = HostFacts(host="h", cores=2, memory_bytes=1, memory_available_bytes=1, disk_free_bytes=1)


def plan(mesh: MeshSpec, global_batch: int = 8, threads: int = 1) -> Plan:
    memory = MemoryPrediction(parameters=0, gradients=0, optimizer=0, activations=0)
    predicted = Predicted(memory=memory, step_seconds=0, flops=0, checkpoint_bytes=0, parameters=0)
    return Plan(
        mesh=mesh,
        global_batch=global_batch,
        micro_batch=1,
        accumulation=1,
        precision="fp32",
        threads=threads,
        predicted=predicted,
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (plan(MeshSpec(data=2)), []),
        (plan(MeshSpec(data=2), global_batch=1), ["only 1 sequences"]),
        (plan(MeshSpec(data=2), threads=2), ["2 workers of 2 threads would fight for 2 cores"]),
        (plan(MeshSpec(tensor=2)), ["cannot carry out"]),
    ],
)
def test_what_stands_against_a_plan_is_said_with_a_remedy(asked, said):
    problems = DataSplit().check(FACTS, asked)
    assert len(problems) == len(said)
    for problem, text in zip(problems, said, strict=True):
        assert text in problem.message
        assert problem.remedy


def modules() -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3).to(torch.float64))
    other = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3).to(torch.float64))
    other.load_state_dict(one.state_dict())
    return one, other


def loss(module: nn.Sequential) -> torch.Tensor:
    rows = torch.randn(11, 5, generator=torch.Generator().manual_seed(1))
    return module[2](module[1](module[0](rows)).double()).square().sum()


def test_gradients_accumulate_norm_and_scale_as_torch_does():
    """Two dtypes, so two buffers; two backward passes add up."""
    ours, theirs = modules()
    gradients = DataSplit().apply(ours, Mesh.imagined(MeshSpec()), scalars=2)
    assert len(gradients.buffers) == 2
    for module in (ours, ours, theirs, theirs):
        loss(module).backward()
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.25)
    torch.testing.assert_close(gradients.norm(), norm.float())
    gradients.scale(0.25 / norm)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_scalars_ride_along_and_are_not_part_of_norm_or_scale():
    ours, _ = modules()
    gradients = DataSplit().apply(ours, Mesh.imagined(MeshSpec()), scalars=2)
    gradients.scalars.copy_(torch.tensor([3.0, 1e9]))
    gradients.reduce()
    assert float(gradients.norm()) == 0
    gradients.scale(torch.tensor(0.5))
    assert gradients.scalars.tolist() == [3.0, 1e9]
    gradients.clear()
    assert gradients.scalars.tolist() == [0, 0]


def test_parameters_without_gradient_get_none():
    ours, _ = modules()
    ours[0].weight.requires_grad_(False)
    gradients = DataSplit().apply(ours, Mesh.imagined(MeshSpec()), scalars=0)
    assert ours[0].weight.grad is None
    loss(ours).backward()
    assert ours[0].bias.grad is not None
    assert gradients.norm() > 0


def test_gradients_take_the_bytes_of_the_parameters_and_little_more():
    module = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    gradients = DataSplit().apply(module, Mesh.imagined(MeshSpec()), scalars=4)
    parameters = sum(parameter.numel() * 4 for parameter in module.parameters())
    assert parameters <= gradients.bytes <= parameters + 4 * 64 + 16
