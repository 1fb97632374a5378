"""The transforms that Horovod's examples name, on uint8 tensors [channels, height, width] in place of PIL images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = int | tuple[int, int]


class Compose:
    def __init__(self, transforms: Sequence[Callable[[Tensor], Tensor]]):
        self.transforms = transforms

    def __call__(self, picture: Tensor) -> Tensor:
        for transform in self.transforms:
            picture = transform(picture)
        return picture


class ToTensor:
    """float32 in [0, 1]."""

    def __call__(self, picture: Tensor) -> Tensor:
        return picture.to(torch.float32) / 255


class Normalize:
    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self._mean = torch.tensor(mean)[:, None, None]
        self._std = torch.tensor(std)[:, None, None]

    def __call__(self, picture: Tensor) -> Tensor:
        return (picture - self._mean) / self._std


class Resize:
    """A number is the shorter side; bilinear."""

    def __init__(self, size: Size):
        self._size = size

    def __call__(self, picture: Tensor) -> Tensor:
        size = self._size
        if isinstance(size, int):
            height, width = picture.shape[-2:]
            shorter = min(height, width)
            size = (height * size // shorter, width * size // shorter)
        scaled = F.interpolate(picture[None].to(torch.float32), size=size, mode="bilinear", align_corners=False)
        return scaled[0].round().clamp(0, 255).to(torch.uint8)


class CenterCrop:
    def __init__(self, side: int):
        self._side = side

    def __call__(self, picture: Tensor) -> Tensor:
        top, left = ((length - self._side) // 2 for length in picture.shape[-2:])
        return picture[..., top : top + self._side, left : left + self._side]


class RandomResizedCrop:
    """A square of 8 to 100 % of the area, brought to `side` x `side`."""

    def __init__(self, side: int):
        self._resize = Resize((side, side))

    def __call__(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        length = max(1, int(min(height, width) * float(torch.empty(1).uniform_(0.08, 1.0)) ** 0.5))
        top = int(torch.randint(height - length + 1, (1,)))
        left = int(torch.randint(width - length + 1, (1,)))
        return self._resize(picture[..., top : top + length, left : left + length])


class RandomHorizontalFlip:
    def __init__(self, p: float = 0.5):
        self._p = p

    def __call__(self, picture: Tensor) -> Tensor:
        return picture.flip(-1) if float(torch.rand(1)) < self._p else picture
