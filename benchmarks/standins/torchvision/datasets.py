"""Pictures that look like those of the real sets: one fixed pattern a class, and noise from the picture's own index.

Every rank makes the same picture for an index, and no two splits share one. The directory that is asked for is not read
and not written.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset

Transform = Callable[[Tensor], Tensor]


class MadeUp(Dataset[tuple[Tensor, int]]):
    """`count` pictures of `classes` classes: uint8 [channels, side, side]."""

    def __init__(self, count: int, classes: int, shape: tuple[int, int, int], seed: int, transform: Transform | None):
        self.classes = [str(number) for number in range(classes)]
        self.transform = transform
        self._count = count
        self._seed = seed
        self._patterns = torch.rand(classes, *shape, generator=torch.Generator().manual_seed(classes))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        target = index % len(self.classes)
        noise = torch.rand(self._patterns[target].shape, generator=torch.Generator().manual_seed(self._seed + index))
        picture = ((0.7 * self._patterns[target] + 0.3 * noise) * 255).to(torch.uint8)
        return (picture if self.transform is None else self.transform(picture)), target


class MNIST(MadeUp):
    """2048 pictures to train with and 512 to test, of 28 x 28 in ten classes (the real set has 60 000 and 10 000)."""

    def __init__(self, root: str, train: bool = True, transform: Transform | None = None, download: bool = False):
        super().__init__(2048 if train else 512, 10, (1, 28, 28), 0 if train else 1 << 20, transform)


class ImageFolder(MadeUp):
    """16 pictures of 3 x 256 x 256 in ten classes; those of a root called `val...` are others, and half as many."""

    def __init__(self, root: str, transform: Transform | None = None):
        held_out = root.rstrip("/").rpartition("/")[2].startswith("val")
        super().__init__(8 if held_out else 16, 10, (3, 256, 256), 1 << 20 if held_out else 0, transform)
