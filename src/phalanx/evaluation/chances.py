"""Scores read as probabilities: whether what is called 30 % happens in 30 of 100, and how good they are at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.evaluation.calling import Label
from phalanx.metrics import Brier, Calibration, LogLoss, Reliability, State, arrays
from phalanx.metrics.intervals import ConfidenceInterval, wilson


@dataclass(frozen=True)
class ChanceBin:
    """Scores from `low` to `high`: how many, their mean, and the share of them that are needles."""

    low: float
    high: float
    examples: int
    mean: float
    happened: ConfidenceInterval


@dataclass(frozen=True)
class Chances:
    """`brier_of_rate`: of calling everything by the share of needles. `log_loss` in nats, infinite where something
    happened that was given no chance. `expected_error`: ECE, of ten bins of equal width. Bins without scores are left
    out."""

    brier: float
    brier_of_rate: float
    log_loss: float
    impossible: int
    expected_error: float
    bins: tuple[ChanceBin, ...]


def chance_bins(found: Reliability) -> tuple[ChanceBin, ...]:
    """Bins that hold something, with Wilson's intervals."""
    each = zip(found.edges[:-1], found.edges[1:], found.weight, found.confidence, found.happened, strict=True)
    return tuple(
        ChanceBin(float(low), float(high), int(count), float(mean), wilson(round(share * count), int(count)))
        for low, high, count, mean, share in each
        if count
    )


class ChanceStates(State):
    """Brier score, log loss and calibration in one pass."""

    def __init__(self, positive: Label | None = None) -> None:
        self.positive = positive
        self.brier, self.loss = Brier(positive=positive), LogLoss(positive=positive)
        self.calibration = Calibration(positive=positive)

    def update(self, labels: arrays.ArrayLike, chances: arrays.ArrayLike) -> Self:
        """Labels and scores [n], from 0 to 1. Raises BadInput."""
        for state in (self.brier, self.loss, self.calibration):
            state.update(labels, chances)
        return self

    def compute(self) -> Chances:
        found = self.calibration.compute()
        rate = float(np.nansum(found.happened * found.weight) / found.weight.sum())
        return Chances(
            brier=self.brier.compute(),
            brier_of_rate=rate * (1 - rate),
            log_loss=self.loss.compute(),
            impossible=self.loss.impossible,
            expected_error=found.expected_error,
            bins=chance_bins(found),
        )

    def definition(self) -> dict[str, Any]:
        return {"positive": self.positive}

    def parts(self) -> dict[str, NDArray[Any]]:
        states = {"brier": self.brier, "loss": self.loss, "calibration": self.calibration}
        return {name: np.frombuffer(state.to_bytes(), np.uint8) for name, state in states.items()}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        for state, name in ((made.brier, "brier"), (made.loss, "loss"), (made.calibration, "calibration")):
            state.merge(State.from_bytes(parts[name].tobytes()))  # type: ignore[arg-type]  # it says if it is another
        return made

    def _add(self, other: Self) -> None:
        self.brier.merge(other.brier)
        self.loss.merge(other.loss)
        self.calibration.merge(other.calibration)
