"""How a model's matrices lie in memory, so that a few rows of numbers at once are multiplied with them fastest.

Writing one token of a few texts reads every weight once and computes little: it takes as long as memory takes. For one
row of numbers torch reads a matrix [out, in] at 13 GB/s, and its transpose at 15 to 23 if there are as many outputs as
inputs or more. For four rows it reads either at 6 to 11, and at 17 to 20 one that oneDNN has laid out for itself
(GPT-2's matrices in float32, one core of an AMD EPYC with AVX-512, torch 2.13: `python -m benchmarks.side_generation`).
Matrices that fit into a core's cache gain nothing from oneDNN, whose calls take longer.

Knows no architecture: models are made of `nn.Linear`, and of an embedding that may be the head too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from phalanx.models.causal import CausalModel

_LARGE = 1 << 18  # weights: 1 MiB, the second-level cache of a core
_HINT = 8  # rows for which oneDNN chooses; for any other number from 2 up it is right too


@torch.no_grad()
def lay_out(model: CausalModel, rows: int) -> None:
    """Lay out the matrices of `model` for `rows` texts at once, in place. It computes the same, but can be trained and
    saved no more. Nothing is changed for other precisions than float32 and on other devices than the CPU."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and _is_plain(child.weight):
                if _is_packed_for(rows, child.weight):
                    setattr(module, name, Packed(child.weight, child.bias))
                else:
                    _turn(child.weight)
    table = model.embedding.weight
    if model.config.tied and _is_plain(table):
        if _is_packed_for(rows, table):
            model.head = Packed(table, None)
        else:
            _turn(table)


class Packed(nn.Module):
    """A linear layer whose matrix lies as oneDNN likes it."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._bias = bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _HINT)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self._bias, "none", [], "")
        return result


def _is_packed_for(rows: int, weight: Tensor) -> bool:
    return rows > 1 and weight.numel() >= _LARGE and torch._C._has_mkldnn


def _turn(weight: Tensor) -> None:
    """Let the outputs of each input lie beside each other, where they are as many as inputs or more."""
    if weight.shape[0] >= weight.shape[1]:
        weight.data = weight.data.t().contiguous().t()


def _is_plain(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.is_contiguous()
