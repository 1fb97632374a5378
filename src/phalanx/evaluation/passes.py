"""A pass over predictions: each batch into a state, on this process or on several ranks whose states are merged.

The bits of the answer do not depend on how many ranks there are. Ranks are children of this process; what comes back
from them is the bytes of states, and nothing that a file holds is run.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from phalanx.evaluation.errors import EvaluationError
from phalanx.evaluation.predictions import Batch, Predictions
from phalanx.metrics import BadInput, State

Progress = Callable[[str, float], None]
"""What is being done, and the share of it that is done, 0 to 1."""

AnyState = TypeVar("AnyState", bound=State)
EVERY_S = 0.1


class Passes:
    """Over the same predictions, with ranks that stay for all passes. A context manager."""

    def __init__(
        self, predictions: Predictions, ranks: int = 1, progress: Progress = lambda stage, share: None
    ) -> None:
        self.predictions = predictions
        self.ranks = ranks
        self._progress = progress
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.ranks > 1:
            self._pool = ProcessPoolExecutor(self.ranks, mp_context=multiprocessing.get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, stage: str, state: AnyState, roles: Sequence[str], *, shown: bool = False) -> AnyState:
        """Feed `state.update(*roles)`, or the whole batch with what is `shown` of it; what all have seen.

        Raises UnusablePredictions, BadInput with the file in which a batch was refused, EvaluationError when a rank
        dies.
        """
        self._progress(stage, 0.0)
        if self._pool is None:
            _feed(state, self.predictions, roles, shown, stage, self._progress)
            return state
        empty, parts = state.to_bytes(), [self.predictions.of(rank, self.ranks) for rank in range(self.ranks)]
        try:
            waiting = [self._pool.submit(_rank, empty, part, list(roles), shown) for part in parts]
            for number, _ in enumerate(as_completed(waiting), 1):
                self._progress(stage, number / self.ranks)
            for each in waiting:
                state.merge(State.from_bytes(each.result()))  # type: ignore[arg-type]  # `merge` says if it is another
        except BrokenProcessPool:
            raise EvaluationError(
                f"a rank that read a part of {self.predictions.files[0]} died",
                remedy="its last words stand above; with less memory use fewer --ranks",
            ) from None
        return state


def _rank(empty: bytes, predictions: Predictions, roles: list[str], shown: bool) -> bytes:
    from phalanx.evaluation import calling, chances, classes, numbers  # noqa: F401 - their states must be known here

    state = State.from_bytes(empty)
    _feed(state, predictions, roles, shown, "", lambda stage, share: None)
    return state.to_bytes()


def _feed(
    state: Any, predictions: Predictions, roles: Sequence[str], shown: bool, stage: str, progress: Progress
) -> None:
    said = time.monotonic()
    for batch in predictions.batches(*roles, shown=shown):
        with blamed(_where(predictions, batch), int(batch["row"][0])):
            state.update(batch) if shown else state.update(*(batch[role] for role in roles))
        if time.monotonic() - said > EVERY_S:
            said = time.monotonic()
            progress(stage, predictions.share(batch))


def _where(predictions: Predictions, batch: Batch) -> str:
    return str(predictions.files[int(batch["file"][0])])


@contextmanager
def blamed(where: str, row: int = 0) -> Iterator[None]:
    """Errors of metrics name the file, and the row that their batch begins with unless it is the first."""
    try:
        yield
    except BadInput as error:
        if error.where:
            raise
        place = f" (in a batch that begins with row {row:,} of the file, counted from 0)" if row else ""
        remedy = error.remedy.replace("positive=...", "--positive LABEL, or positive=... from Python")
        raise BadInput(error.message + place, where=where, remedy=remedy) from None
