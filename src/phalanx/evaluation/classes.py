"""How often a class was taken for which: of predictions that name classes, by class, by slice, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phalanx.evaluation.documents import metrics_row, without_nan
from phalanx.evaluation.errors import UnusablePredictions
from phalanx.evaluation.passes import Passes, Progress
from phalanx.evaluation.predictions import Batch, Predictions
from phalanx.evaluation.words import amount, decimal, share
from phalanx.evaluation.worst import Found, Worst
from phalanx.metrics import Confusion, ConfusionMatrix, Slices, State, arrays
from phalanx.metrics.intervals import ConfidenceInterval, wilson

WORST = WORST_PAIRS = 10


@dataclass(frozen=True)
class ClassesReport:
    """`weighted`: by the column of weights, so that shares have no interval. `worst`: of what was called wrongly, with
    the highest scores if it is `scored`, else the first."""

    source: tuple[str, ...]
    confusion: Confusion
    slices: dict[str, Confusion]
    weighted: bool
    worst: tuple[Found, ...] = ()
    scored: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: what is undefined is null."""
        found = self.confusion
        each = {name: getattr(found, name)() for name in ("precision", "recall", "specificity", "f1")}
        document = {
            "schema": 1,
            "kind": "classes",
            "source": self.source,
            "examples": found.total,
            "labels": found.labels,
            "axes": {"rows": "truth", "columns": "called"},
            "matrix": found.counts.tolist(),
            "accuracy": self._accuracy(found).__dict__,
            "balanced_accuracy": found.balanced_accuracy,
            "mcc": found.mcc,
            "kappa": found.kappa(),
            **{
                average: {name: getattr(found, name)(average) for name in ("precision", "recall", "f1")}
                for average in ("micro", "macro", "weighted")
            },
            "classes": [
                {
                    "label": label,
                    "support": float(found.support[index]),
                    "called": float(found.called[index]),
                    **{name: float(values[index]) for name, values in each.items()},
                    **{
                        f"{name}_words": self._words(name, index, float(values[index])) for name, values in each.items()
                    },
                }
                for index, label in enumerate(found.labels)
            ],
            "slices": [
                {"name": name, "examples": cut.total, "accuracy": self._accuracy(cut).__dict__}
                for name, cut in self.slices.items()
            ],
            "worst": [
                {"score": size if self.scored else None, "file": file, "row": row, "shown": shown}
                for size, file, row, shown in self.worst
            ],
        }
        plain: dict[str, Any] = without_nan(document)
        return plain

    def _accuracy(self, found: Confusion) -> ConfidenceInterval:
        if self.weighted:
            return ConfidenceInterval(found.accuracy, math.nan, math.nan, 0.95, "none of weighted examples")
        return wilson(float(found.true_positives.sum()), found.total)

    def _words(self, name: str, index: int, value: float) -> str:
        whole = {"precision": self.confusion.called, "recall": self.confusion.support}.get(name)
        if whole is None or self.weighted:
            return decimal(value)
        return share(
            wilson(float(self.confusion.true_positives[index]), float(whole[index])).__dict__ | {"value": _null(value)}
        )

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def rows(self) -> Iterable[dict[str, Any]]:
        """Rows of the table `metrics`."""
        source = ",".join(self.source)
        for name, found in {"all": self.confusion, **self.slices}.items():
            numbers: dict[str, float | ConfidenceInterval] = {
                "accuracy": self._accuracy(found),
                "balanced_accuracy": found.balanced_accuracy,
                "mcc": found.mcc,
                "f1_macro": found.f1("macro"),
            }
            for metric, value in numbers.items():
                yield metrics_row(source, metric, value, name, None, found.total)

    def sentences(self) -> list[list[str]]:
        """What it says, all of it, then of each class, then what is most often mistaken for what."""
        found = self.confusion
        document = self.to_dict()
        right = amount(float(found.true_positives.sum()))
        whole = [f"Of {amount(found.total)} {right} were called what they are: accuracy {share(document['accuracy'])}."]
        if len(found.labels) > 1:
            most = found.labels[int(found.support.argmax())]
            whole.append(
                f"Calling every one {most} would be right for {decimal(float(found.support.max()) / found.total)} of "
                f"them; balanced accuracy, where each class counts alike, is {decimal(found.balanced_accuracy)}."
            )
        pairs = [
            (float(found.counts[row, column]), found.labels[row], found.labels[column])
            for row in range(len(found.labels))
            for column in range(len(found.labels))
            if row != column and found.counts[row, column]
        ]
        pairs.sort(key=lambda pair: -pair[0])
        mistaken = [f"{amount(count)} {truth} were called {called}." for count, truth, called in pairs[:WORST_PAIRS]]
        each = (
            [sentence[0].upper() + sentence[1:] + "." for sentence in found.words()]
            if len(found.labels) <= WORST_PAIRS
            else []
        )
        return [group for group in (whole, each, mistaken) if group]


class Mistaken(State):
    """Examples that were called wrongly; those with the highest scores, if there are any, are the worst."""

    def __init__(self) -> None:
        self._worst = Worst(WORST)

    def update(self, batch: Batch) -> Self:
        """Roles label, prediction, and score if there is one."""
        truth, called = batch["label"], batch["prediction"]
        sure = arrays.scores("score", batch["score"]) if "score" in batch else np.zeros(len(truth))
        self._worst.add(batch, sure.astype(np.float64), truth != called, truth=truth, called=called)
        return self

    def compute(self) -> tuple[Found, ...]:
        return tuple(self._worst.found())

    def definition(self) -> dict[str, Any]:
        return {}

    def parts(self) -> dict[str, NDArray[Any]]:
        return {"worst": self._worst.part()}

    @classmethod
    def of_parts(cls, definition: Mapping[str, Any], parts: Mapping[str, NDArray[Any]]) -> Self:
        made = cls(**definition)
        made._worst = Worst.of_part(parts, "worst", WORST)
        return made

    def _add(self, other: Self) -> None:
        self._worst.merge(other._worst)


def classes_report(
    predictions: Predictions, *, ranks: int = 1, progress: Progress = lambda stage, share: None
) -> ClassesReport:
    """Of a class called for each example. Raises UnusablePredictions, BadInput, EvaluationError when a rank dies."""
    weighted = predictions.has("weight")
    roles = ["label", "prediction", *(["weight"] if weighted else [])]
    with Passes(predictions, ranks, progress) as passes:
        confusion = passes.run("tallying", ConfusionMatrix(weighted=weighted), roles).compute()
        scored = predictions.has("score")
        shown = ["label", "prediction", *(["score"] if scored else [])]
        worst = passes.run("judging", Mistaken(), shown, shown=True).compute()
        slices: dict[str, Confusion] = {}
        if predictions.has("slice"):
            by_slice = passes.run("cutting", Slices(ConfusionMatrix(weighted=weighted)), ["slice", *roles])
            slices = {str(name): found for name, found in by_slice.compute().items()}
    if not confusion.total > 0:
        raise UnusablePredictions(
            f"there are no examples{' of any weight' if weighted else ''}",
            where=str(predictions.files[0]),
            remedy="write the predictions again",
        )
    return ClassesReport(tuple(map(str, predictions.files)), confusion, slices, weighted, worst, scored)


def _null(value: float) -> float | None:
    return None if math.isnan(value) else value
