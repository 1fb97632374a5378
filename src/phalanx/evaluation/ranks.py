"""A checkpoint's answers on the held-out text, from several processes: each opens it and takes its turns."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from phalanx.evaluation.causal import Progress
from phalanx.evaluation.errors import EvaluationError


def answers_of_ranks(
    find: Callable[[Path, Path, int, int], list[Any]], path: Path, cache_dir: Path, ranks: int, progress: Progress
) -> list[Any]:
    """What `find(path, cache_dir, part, parts)` gives on each of so many `ranks`, in turns: the first of the first, the
    first of the second, and so on. Raises EvaluationError when one dies, and what `find` raises."""
    progress("scoring", 0.0)
    with ProcessPoolExecutor(ranks, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(_rank, find, path, cache_dir, rank, ranks) for rank in range(ranks)]
        try:
            for number, _ in enumerate(as_completed(waiting), 1):
                progress("scoring", number / ranks)
            parts = [each.result() for each in waiting]
        except BrokenProcessPool:
            raise EvaluationError(
                f"a rank that scored a part of {path} died",
                remedy="its last words stand above; with less memory use fewer --ranks",
            ) from None
    return [each for each in chain.from_iterable(zip_longest(*parts)) if each is not None]


def _rank(
    find: Callable[[Path, Path, int, int], list[Any]], path: Path, cache_dir: Path, rank: int, ranks: int
) -> list[Any]:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    return find(path, cache_dir, rank, ranks)
