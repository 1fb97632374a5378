"""Batch normalization over ranks, judged by torch's on the batches of all ranks put together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import phalanx.horovod.torch as hvd

SHAPES = {2: (), 3: (5,), 4: (4, 3), 5: (2, 3, 2)}
KINDS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
CHANNELS = 4


def parts(sizes: list[int], shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """Of each rank; far from zero, which is hard for variances."""
    random = torch.Generator().manual_seed(seed)
    whole = torch.randn(sum(sizes), CHANNELS, *shape, dtype=torch.float64, generator=random) * 2 + 30
    return list(whole.to(dtype).split(sizes))


def both(dimensions: int, dtype: torch.dtype, **options: Any) -> tuple[hvd.SyncBatchNorm, nn.Module]:
    ours, theirs = hvd.SyncBatchNorm(CHANNELS, **options), KINDS[dimensions](CHANNELS, **options)
    for module in (ours, theirs):
        if module.affine:
            nn.init.uniform_(module.weight, 0.5, 2.0, generator=torch.Generator().manual_seed(1))
            nn.init.uniform_(module.bias, generator=torch.Generator().manual_seed(2))
        module.to(dtype)
    return ours, theirs


def as_on_the_whole_batch(dimensions: int, sizes: list[int], dtype: torch.dtype, options: dict[str, Any]) -> None:
    close = {"rtol": 1e-9, "atol": 1e-9} if dtype is torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    ours, theirs = both(dimensions, dtype, **options)
    me = hvd.rank()
    for step in range(3):
        pieces = parts(sizes, SHAPES[dimensions], dtype, step)
        weights = parts(sizes, SHAPES[dimensions], dtype, 10 + step)
        mine, whole = pieces[me].requires_grad_(), torch.cat([piece.detach() for piece in pieces]).requires_grad_()
        output, expected = ours(mine), theirs(whole)
        torch.testing.assert_close(output, expected.split(sizes)[me], **close)
        (output.sin() * weights[me]).sum().backward()
        (expected.sin() * torch.cat(weights)).sum().backward()
        torch.testing.assert_close(mine.grad, whole.grad.split(sizes)[me], **close)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(dict(ours.named_buffers())[name], buffer, **close)
    for name, parameter in theirs.named_parameters():
        total = hvd.allreduce(dict(ours.named_parameters())[name].grad, op=hvd.Sum, name=name)
        torch.testing.assert_close(total, parameter.grad, rtol=close["rtol"], atol=10 * close["atol"])
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(pieces[me]), theirs(torch.cat(pieces)).split(sizes)[me], **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dimensions", SHAPES)
def test_outputs_gradients_and_statistics_are_those_of_the_whole_batch(crew, dimensions, dtype):
    crew(2).tell(as_on_the_whole_batch, dimensions, [3, 3], dtype, {})


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": None},
        {"momentum": 0.3, "eps": 1e-2},
        {"affine": False},
        {"track_running_stats": False},
        {"affine": False, "track_running_stats": False},
    ],
    ids=str,
)
def test_options_mean_what_they_mean_in_torch(crew, options):
    crew(2).tell(as_on_the_whole_batch, 4, [2, 4], torch.float64, options)


@pytest.mark.parametrize("sizes", [[1, 5, 3], [4, 0, 2], [1, 1, 0]], ids=str)
def test_batches_of_ranks_may_differ_and_be_empty(crew, sizes):
    crew(3).tell(as_on_the_whole_batch, 4, sizes, torch.float64, {})


def test_one_rank_alone_is_torch(crew):
    crew(1).tell(as_on_the_whole_batch, 4, [4], torch.float32, {})


def in_bfloat16() -> None:
    ours, theirs = both(4, torch.float32)
    pieces = parts([3, 3], SHAPES[4], torch.bfloat16)
    mine, whole = pieces[hvd.rank()].requires_grad_(), torch.cat([piece.detach() for piece in pieces]).requires_grad_()
    output = ours(mine)
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output, theirs(whole).split(3)[hvd.rank()])
    output.sum().backward()
    assert mine.grad.dtype is torch.bfloat16
    assert ours.weight.grad.dtype is torch.float32


def test_narrow_inputs_are_computed_in_float32(crew):
    crew(2).tell(in_bfloat16)


def only_what_is_asked_for() -> None:
    ours, _ = both(4, torch.float64)
    ours.weight.requires_grad_(False)
    given = parts([3, 3], SHAPES[4], torch.float64)[hvd.rank()]
    ours(given).sum().backward()
    assert ours.weight.grad is None
    assert ours.bias.grad is not None
    with torch.no_grad():
        assert not ours(given).requires_grad
    channels_last = given.contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.testing.assert_close(ours(channels_last), ours(given))


def test_only_gradients_that_are_wanted_are_made(crew):
    crew(2).tell(only_what_is_asked_for)


def refused() -> None:
    norm = hvd.SyncBatchNorm(CHANNELS)
    with pytest.raises(ValueError, match=r"expected at least 2D input \(got 1D input\)"):
        norm(torch.ones(CHANNELS))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.ones(1 - hvd.rank(), CHANNELS))


def test_what_cannot_be_normalized_is_refused_on_all_ranks(crew):
    crew(2).tell(refused)


def a_trained_network() -> list[float]:
    def made(norm: type[nn.Module]) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(CHANNELS, 4, 2), norm(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).double()

    model, expected = made(hvd.SyncBatchNorm), made(nn.BatchNorm2d)
    alone = torch.optim.SGD(expected.parameters(), lr=0.1)
    optimizer = hvd.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), model.named_parameters())
    for step in range(3):
        pieces = parts([4, 4], SHAPES[4], torch.float64, step)
        for by, each, given in ((optimizer, model, pieces[hvd.rank()]), (alone, expected, torch.cat(pieces))):
            by.zero_grad()
            each(given).square().mean().backward()
            by.step()
    for (name, value), other in zip(model.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, msg=lambda text, name=name: f"{name}: {text}")
    return model.state_dict()["1.running_var"].tolist()


def test_a_network_is_trained_as_on_the_whole_batch(crew):
    first, second = crew(2).tell(a_trained_network)
    assert first == second
