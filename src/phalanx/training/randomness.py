"""Random numbers of a step, as a function of where they are used: nothing to save, nothing to restore.

Dropout of micro-batch i of rank r in step s draws from a generator seeded by (seed, s, r, i), so an
interrupted and resumed run draws what the uninterrupted one did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")
RULE = "torch CPU generator, seeded for each micro-batch by blake2b(seed, step, rank, micro-batch)"


def seed_of(seed: int, step: int, rank: int, micro_batch: int) -> int:
    """64 bits that differ for every place."""
    place = f"{seed}/{step}/{rank}/{micro_batch}".encode()
    return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little")


def seeded(micro_batches: Iterable[T], seed: int, step: int, rank: int) -> Iterator[T]:
    """The micro-batches; the generator is set for each as it is handed out."""
    for number, batch in enumerate(micro_batches):
        torch.default_generator.manual_seed(seed_of(seed, step, rank, number))
        yield batch
