"""What held-out text says of the model during training: one state of `metrics`, merged over the ranks.

Every rank judges its rows, and its state travels as bytes. Sums of costs are exact and all else are whole numbers, so
the same costs give the same bits however many ranks they were found by. Knows nothing of models and steps.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phalanx.collectives import Group
from phalanx.metrics import BitsPerByte, MeanLoss, State, TopK


class Validation(State):
    """Cost and rank of each right token, by the metrics of these names."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self.loss = self._states["loss"] = MeanLoss()
        self.bits_per_byte = self._states["bits_per_byte"] = BitsPerByte()
        self.top1 = self._states["top1"] = TopK(1)
        self.top5 = self._states["top5"] = TopK(5)

    def update(self, costs: ArrayLike, ranks: ArrayLike, text_bytes: int) -> Self:
        """Costs in nats, floats [n], and how many tokens the model liked better than the right one, integers [n],
        of n tokens that stand for `text_bytes` bytes of text (0: nobody can say). Of numbers to learn the costs are
        squared errors, and there are no ranks. Returns itself."""
        nats, places = np.asarray(costs, np.float64), np.asarray(ranks)
        self.loss.update(nats, len(nats))
        self.bits_per_byte.update(nats, text_bytes)
        for state in (self.top1, self.top5):
            state.add(int((places < state.k).sum()), len(places))
        return self

    @property
    def _ranked(self) -> bool:
        """Whether there are right answers among others: a number is only near or far."""
        return self.top1.count > 0

    def compute(self) -> dict[str, float | int | None]:
        """Columns of a row of `validations`; None where undefined."""
        tokens, known = self.loss.count, self.bits_per_byte.count
        return {
            "loss": self.loss.compute() if tokens else None,
            "tokens": tokens,
            "bits_per_byte": self.bits_per_byte.compute() if known else None,
            "perplexity": self.loss.perplexity if self._ranked else None,
            "top1": self.top1.compute() if self._ranked else None,
            "top5": self.top5.compute() if self._ranked else None,
        }

    def definition(self) -> dict[str, Any]:
        return {name: state.definition() for name, state in self._states.items()}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {f"{name}.{key}": part for name, state in self._states.items() for key, part in state.parts().items()}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls()
        for name, state in made._states.items():
            mine = {key.partition(".")[2]: part for key, part in parts.items() if key.partition(".")[0] == name}
            state.merge(type(state).of_parts(definition[name], mine))
        return made

    def _add(self, other: Self) -> None:
        for name, state in self._states.items():
            state.merge(other._states[name])


def merged(mine: Validation, group: Group) -> Validation:
    """What all ranks of the group have seen; every rank calls it. Raises what Group.allgather_object raises."""
    whole = Validation()
    for text in group.allgather_object(base64.b64encode(mine.to_bytes()).decode(), name="validation"):
        whole.merge(State.from_bytes(base64.b64decode(str(text))))  # type: ignore[arg-type]  # `merge` says if it is another
    return whole
