"""What a model guesses at each place: whether the truth is first or among five, and whether it is as sure as it is
right.

Tokens of one document are alike, so standard errors are those of clusters, as of the scores.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phalanx.evaluation.chances import ChanceBin, chance_bins
from phalanx.evaluation.scores import by_cluster, ratio_error
from phalanx.metrics import Calibration, TopK

AMONG = (1, 5)


@dataclass(frozen=True)
class Guess:
    """`ranks` int64 [n]: how many tokens the model liked better than the right one. `sure` float64 [n]: the probability
    of its first guess."""

    ranks: NDArray[np.int64]
    sure: NDArray[np.float64]

    @classmethod
    def of(cls, logits: torch.Tensor, targets: torch.Tensor) -> Guess:
        """Of logits [n, V] and the right tokens [n]."""
        own = logits.gather(1, targets[:, None])
        sure = (logits.max(1).values - logits.logsumexp(1)).exp()
        return cls((logits > own).sum(1).numpy(), sure.double().clamp(0, 1).numpy())


@dataclass(frozen=True)
class Guesses:
    """`top`: of each k, the share of places where the truth is among the k best guesses, and its standard error (None
    for one cluster). `expected_error`: ECE of the first guesses, in ten bins of equal width."""

    top: dict[int, tuple[float, float | None]]
    expected_error: float
    bins: tuple[ChanceBin, ...]

    @classmethod
    def of(cls, guesses: list[Guess], cluster: NDArray[np.int64], clusters: int) -> Guesses:
        """`cluster` [n]: of each place; there are so many `clusters`."""
        ranks = np.concatenate([each.ranks for each in guesses])
        sure = np.concatenate([each.sure for each in guesses])
        sizes = np.bincount(cluster, minlength=clusters)
        calibration = Calibration().update(ranks == 0, sure).compute()
        return cls(
            {
                k: (
                    TopK(k).add(int((ranks < k).sum()), len(ranks)).compute(),
                    ratio_error(by_cluster(cluster, ranks < k, clusters), sizes),
                )
                for k in AMONG
            },
            calibration.expected_error,
            chance_bins(calibration),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        shares = {f"top{k}": {"value": value, "standard_error": error} for k, (value, error) in self.top.items()}
        return {**shares, "expected_error": self.expected_error, "bins": [asdict(each) for each in self.bins]}
