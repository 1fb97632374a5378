"""Stands in for torchvision where Horovod's examples are run: the names they use, with data that is made up here.

The published wheel does not load beside a CPU build of PyTorch. On PYTHONPATH of those runs only. Nothing trained on it
means anything, but that it trains can be seen: each class has a picture of its own, under noise.
"""

from torchvision import datasets, models, transforms

__all__ = ["datasets", "models", "transforms"]
