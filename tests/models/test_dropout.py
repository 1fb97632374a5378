"""Dropout: how much it drops, what it keeps, and that its draws are the default generator's."""

from __future__ import annotations

import pytest
import torch

from phalanx.models.dropout import dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_drops_the_share_and_keeps_the_mean(share, dtype):
    torch.manual_seed(0)
    size = 200_001
    got = dropout(torch.ones(size, dtype=dtype), share, training=True)
    dropped = got == 0
    spread = (share * (1 - share) / size) ** 0.5
    assert abs(float(dropped.float().mean()) - share) < 5 * spread
    kept = got[~dropped].unique()
    assert kept.tolist() == pytest.approx([1 / (1 - share)], rel=0.005)


@pytest.mark.parametrize("place", range(4))
def test_each_of_the_four_numbers_of_a_draw_is_dropped_alike_and_alone(place):
    torch.manual_seed(1)
    dropped = (dropout(torch.ones(400_000), 0.3, training=True) == 0).view(-1, 4).float()
    assert float(dropped[:, place].mean()) == pytest.approx(0.3, abs=0.008)
    others = [other for other in range(4) if other != place]
    both = (dropped[:, [place]] * dropped[:, others]).mean(0)
    assert both.tolist() == pytest.approx([0.09] * 3, abs=0.006)


def test_the_gradient_passes_where_the_value_did():
    torch.manual_seed(2)
    tensor = torch.randn(5, 7, 3, requires_grad=True)
    got = dropout(tensor, 0.4, training=True)
    got.sum().backward()
    torch.testing.assert_close(got.detach(), tensor.detach() * tensor.grad)
    assert tensor.grad.unique().tolist() == pytest.approx([0, 1 / 0.6])


def test_the_same_seed_drops_the_same():
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(dropout(torch.ones(100), 0.5, training=True))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize(("share", "training"), [(0.0, True), (0.5, False)])
def test_where_nothing_is_dropped_nothing_is_drawn(share, training):
    tensor = torch.ones(4)
    before = torch.get_rng_state()
    assert dropout(tensor, share, training) is tensor
    assert torch.equal(torch.get_rng_state(), before)
