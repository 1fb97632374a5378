"""Scores of a model and of the tables beside it, on the same places of the same text, with their sampling errors.

A score is a ratio of sums over clusters (documents, or rows of packed documents), as words of one
document are alike: its standard error is that of the ratio estimator (Cochran 1977, eq. 6.13, without
the correction for a finite population). Model and table meet the same text, so the error of their
difference is that of the paired differences, which is far smaller than either's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phalanx.data import Split
from phalanx.evaluation.errors import NotFinite, NothingToPredict
from phalanx.metrics import BitsPerByte, TopK

Metric = Literal["bits_per_byte", "top1", "accuracy", "mae", "bleu"]
UNITS: Mapping[Metric, str] = {
    "bits_per_byte": "bits/byte",
    "top1": "share",
    "accuracy": "share",
    "mae": "label",
    "bleu": "BLEU",
}
# Tables are counted on no more of the training text than this: their memory is some 50 bytes a symbol.
TABLE_SYMBOLS = 1 << 24
MODEL = "this model"
SHARES: tuple[Metric, ...] = ("top1", "accuracy")


@dataclass(frozen=True)
class Answers:
    """What one contestant did. `amounts` float64 [clusters]: nats that they cost, or tokens guessed right.

    `sees_more`: it was shown what the model was not, so that it is a reference and no opponent.
    """

    name: str
    amounts: NDArray[np.float64]
    sees_more: bool = False
    note: str = ""


@dataclass(frozen=True)
class Score:
    """`standard_error` None: there is only one cluster to judge it by."""

    name: str
    value: float
    standard_error: float | None
    sees_more: bool = False
    note: str = ""


@dataclass(frozen=True)
class Scores:
    """`loss`: nats per predicted token. `tokens`: predicted ones. `margin`: how far the model is ahead of the
    strongest baseline that saw no more than it did, in units of the metric; negative when it is behind.
    `guesses`: what `Guesses.to_dict` says. `translation`: of a translator, its BLEU and chrF by length too."""

    metric: Metric
    model: Score
    baselines: tuple[Score, ...]
    strongest: str
    margin: float
    margin_standard_error: float | None
    loss: float
    tokens: int
    split: Mapping[str, int]
    method: str
    guesses: Mapping[str, Any] | None = None
    translation: Mapping[str, Any] | None = None
    labelled: Mapping[str, Any] | None = None

    @property
    def beats_strongest(self) -> bool:
        return self.margin > 0


def compare(
    metric: Metric,
    model: Answers,
    baselines: Sequence[Answers],
    sizes: NDArray[np.int64],
    *,
    loss: float,
    tokens: int,
    split: Mapping[str, int],
    method: str,
) -> Scores:
    """Scores of all; `sizes` int64 [clusters]: bytes that were predicted, or tokens.

    Raises NothingToPredict when they are none, NotFinite when the model's answers are no numbers.
    """
    if not sizes.sum():
        raise NothingToPredict(
            "the held-out text leaves nothing to predict", remedy="use more text, or raise data.heldOut"
        )
    if not (math.isfinite(loss) and np.isfinite(model.amounts).all()):
        raise NotFinite(
            "the model's answers are no numbers",
            remedy="train it again with a lower learning rate; an earlier checkpoint may be sound",
        )
    mine = _score(metric, model, sizes)
    scores = tuple(_score(metric, answers, sizes) for answers in baselines)
    sign = 1 if metric in SHARES else -1
    strongest = max((s for s in scores if not s.sees_more), key=lambda score: sign * score.value)
    theirs = next(answers.amounts for answers in baselines if answers.name == strongest.name)
    return Scores(
        metric=metric,
        model=mine,
        baselines=scores,
        strongest=strongest.name,
        margin=sign * (mine.value - strongest.value),
        margin_standard_error=ratio_error(_in_units(metric, model.amounts - theirs), sizes),
        loss=loss,
        tokens=tokens,
        split=split,
        method=method,
    )


def _score(metric: Metric, answers: Answers, sizes: NDArray[np.int64]) -> Score:
    if metric in SHARES:
        value = TopK().add(round(answers.amounts.sum()), int(sizes.sum())).compute()
    elif metric == "mae":
        value = float(answers.amounts.sum() / sizes.sum())
    else:
        value = BitsPerByte().update(answers.amounts, int(sizes.sum())).compute()
    error = ratio_error(_in_units(metric, answers.amounts), sizes)
    return Score(answers.name, value, error, answers.sees_more, answers.note)


def _in_units(metric: Metric, amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    return amounts / math.log(2) if metric == "bits_per_byte" else amounts


def ratio_error(amounts: NDArray[np.float64], sizes: NDArray[np.int64]) -> float | None:
    """Standard error of sum(amounts) / sum(sizes) over clusters drawn at random; None for fewer than two of them."""
    present = sizes > 0
    amounts, weights = amounts[present], sizes[present].astype(np.float64)
    clusters = len(weights)
    if clusters < 2:
        return None
    residuals = amounts - weights * (amounts.sum() / weights.sum())
    return float(math.sqrt(clusters / (clusters - 1) * (residuals**2).sum()) / weights.sum())


def by_cluster(cluster: NDArray[np.int64], amounts: NDArray[Any], clusters: int) -> NDArray[np.float64]:
    """Sum of `amounts` [n] in each cluster, float64 [clusters]; `cluster`: of each amount."""
    return np.bincount(cluster, amounts, clusters).astype(np.float64, copy=False)


def beginning(split: Split, tokens: int) -> Split:
    """The first `tokens` of a split, the last document cut where they end; the split itself when it has no more."""
    if len(split.tokens) <= tokens:
        return split
    return Split(split.tokens[:tokens], np.append(split.offsets[split.offsets < tokens], tokens))


def row_count(floats_a_row: int, most: int = 64, floats: int = 1 << 23) -> int:
    """Rows to compute at once, so that the answers over the whole vocabulary stay below `floats` numbers."""
    return max(1, min(most, floats // max(1, floats_a_row)))


def as_dict(score: Score) -> dict[str, Any]:
    """JSON-safe; what says nothing is left out."""
    document: dict[str, Any] = {"name": score.name, "value": score.value, "standard_error": score.standard_error}
    if score.sees_more:
        document["sees_more"] = True
    if score.note:
        document["note"] = score.note
    return document
