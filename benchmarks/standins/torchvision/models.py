"""Residual networks (He et al. 2016, table 1), untrained: as many parameters as torchvision's of the same name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def _convolution(channels: int, out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    return [nn.Conv2d(channels, out, kernel, stride, padding, bias=False), nn.BatchNorm2d(out)]


class Block(nn.Module):
    """`relu(body(x) + shortcut(x))`; a bottleneck narrows to `width` between 1 x 1 convolutions."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        out = width * 4 if bottleneck else width
        if bottleneck:
            body = [
                *_convolution(channels, width, 1),
                nn.ReLU(),
                *_convolution(width, width, 3, stride),
                nn.ReLU(),
                *_convolution(width, out, 1),
            ]
        else:
            body = [*_convolution(channels, width, 3, stride), nn.ReLU(), *_convolution(width, out, 3)]
        self.body = nn.Sequential(*body)
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(channels, out, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return total


def _resnet(depths: Sequence[int], bottleneck: bool, num_classes: int) -> nn.Sequential:
    layers = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for place in range(depth):
            stride = 2 if stage and place == 0 else 1
            layers.append(Block(channels, width, stride, bottleneck))
            channels = width * 4 if bottleneck else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def resnet18(num_classes: int = 1000) -> nn.Sequential:
    return _resnet((2, 2, 2, 2), False, num_classes)


def resnet34(num_classes: int = 1000) -> nn.Sequential:
    return _resnet((3, 4, 6, 3), False, num_classes)


def resnet50(num_classes: int = 1000) -> nn.Sequential:
    return _resnet((3, 4, 6, 3), True, num_classes)


def resnet101(num_classes: int = 1000) -> nn.Sequential:
    return _resnet((3, 4, 23, 3), True, num_classes)
