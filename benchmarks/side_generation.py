"""How fast GPT-2's matrices are read by a few rows of numbers, by how they lie: what `phalanx.models.layout` goes by.

    python -m benchmarks.side_generation

Prints GB of weights per processor second of one thread, the median of some passes over copies of a matrix that fit no
cache together.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from phalanx.models.layout import Packed

SHAPES = ((768, 2304), (768, 768), (768, 3072), (3072, 768), (768, 50_257))  # inputs, outputs
ROWS = (1, 4, 8)
BYTES, PASSES = 150_000_000, 15


def rate(layers: list[Callable[[Tensor], Tensor]], inputs: Tensor, size: int) -> float:
    """GB/s of `layers`, whose weights are `size` bytes each."""
    seconds = []
    for _ in range(PASSES + 1):
        begun = time.process_time()
        for layer in layers:
            layer(inputs)
        seconds.append(time.process_time() - begun)
    return len(layers) * size / statistics.median(seconds[1:]) / 1e9


def plain(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda inputs: F.linear(inputs, weight)


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, GB per processor second")
    print(f"{'inputs':>7} {'outputs':>7} {'rows':>4} {'as it is':>9} {'transposed':>10} {'oneDNN':>7}")
    for width, outputs in SHAPES:
        weights = [torch.randn(outputs, width) for _ in range(max(1, BYTES // (4 * width * outputs)))]
        ways = (
            [plain(weight) for weight in weights],
            [plain(weight.t().contiguous().t()) for weight in weights],
            [Packed(weight, None) for weight in weights],
        )
        for rows in ROWS:
            inputs = torch.randn(rows, width)
            found = [rate(list(way), inputs, 4 * width * outputs) for way in ways]
            print(f"{width:7} {outputs:7} {rows:4} {found[0]:9.1f} {found[1]:10.1f} {found[2]:7.1f}", flush=True)


if __name__ == "__main__":
    main()
