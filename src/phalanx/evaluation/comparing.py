"""Is A better than B, or was it chance? Two files of predictions of the same examples, or two evaluated checkpoints.

Of the same examples the difference is judged, not two intervals: DeLong's test of the ROC areas, McNemar's of the
accuracies, the paired bootstrap of average precision, paired differences of absolute errors. Two checkpoints were
scored each on its own; their standard errors are put together as if the texts were different, which is cautious when
they are the same.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from phalanx.evaluation.calling import Label
from phalanx.evaluation.documents import without_nan
from phalanx.evaluation.errors import UnusablePredictions
from phalanx.evaluation.pairing import pairs
from phalanx.evaluation.passes import Progress, blamed
from phalanx.evaluation.predictions import Predictions
from phalanx.metrics import ExactSums, average_precision_score, products
from phalanx.metrics.comparison import Comparison, PairedAccuracy, paired_bootstrap
from phalanx.metrics.intervals import normal_quantile
from phalanx.metrics.paired import PairedNeedles

DOCUMENT = "evaluation.json"
DRAWS, DRAWN_EXAMPLES = 1000, 100_000_000
FEWEST_DRAWS = 200
LESS_IS_BETTER = {"bits_per_byte"}


@dataclass(frozen=True)
class Judgement:
    """`left_out`: what was not judged, and why."""

    a: str
    b: str
    comparisons: tuple[Comparison, ...]
    left_out: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """A sentence for each metric."""
        return [each.sentence(self.a, self.b) for each in self.comparisons]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: what is undefined is null."""
        each = [
            asdict(one) | {"better": one.better, "sentence": one.sentence(self.a, self.b)} for one in self.comparisons
        ]
        document = {"schema": 1, "kind": "comparison", "a": self.a, "b": self.b, "comparisons": each}
        found: dict[str, Any] = without_nan(document | {"left_out": self.left_out})
        return found


def compare_predictions(
    a: Predictions,
    b: Predictions,
    *,
    positive: Label | None = None,
    amounts: bool = False,
    level: float = 0.95,
    progress: Progress = lambda stage, share: None,
) -> Judgement:
    """Of the same examples: in the same order, or in any if both have the column `id`.

    `amounts`: labels are numbers that predictions are to be near to, even if all are whole. Raises UnusablePredictions
    when they are not the same examples, BadInput.
    """
    with blamed(f"{a.files[0]} and {b.files[0]}"):
        found, left_out = _compared(a, b, positive, amounts, level, progress)
    return Judgement(*_told_apart(a.files[0], b.files[0]), tuple(found), tuple(left_out))


def _compared(
    a: Predictions, b: Predictions, positive: Label | None, amounts: bool, level: float, progress: Progress
) -> tuple[list[Comparison], list[str]]:
    found: list[Comparison] = []
    left_out: list[str] = []
    called = a.has("prediction") and b.has("prediction")
    amounts = called and (amounts or a.are_amounts())
    ranked = a.has("score") and b.has("score") and not amounts
    if ranked and called and positive is None and not a.are_needles():
        left_out.append("scores: no label is named as the needle (--positive), so that only what was called is judged")
        ranked = False
    if ranked:
        needles = PairedNeedles(positive)
        for labels, one, other in pairs(a, b, "score", "finding", progress):
            needles.update(labels, one, other)
        gaps = needles.gaps(level)
        for labels, one, other in pairs(a, b, "score", "ranking", progress):
            gaps.update(labels, one, other)
        found.append(gaps.compute())
        bootstrapped = _average_precision(a, b, found[0].n, positive, level, progress)
        if isinstance(bootstrapped, str):
            left_out.append(bootstrapped)
        else:
            found.append(bootstrapped)
    if amounts:
        found.append(_absolute_errors(a, b, level, progress))
    elif called:
        accuracy = PairedAccuracy(level=level)
        for labels, one, other in pairs(a, b, "prediction", "tallying", progress):
            accuracy.update(labels, one, other)
        found.append(accuracy.compute())
    if not found:
        raise UnusablePredictions(
            f"{a.files[0]} and {b.files[0]} have neither scores nor predictions both",
            remedy="name them with --score or --prediction",
        )
    return found, left_out


def _told_apart(a: Path, b: Path, suffixes: tuple[str, str] = ("", "")) -> tuple[str, str]:
    """Names of files or directories; their paths, where the names are the same."""
    names = (str(a), str(b)) if a.name == b.name else (a.name, b.name)
    return names[0] + suffixes[0], names[1] + suffixes[1]


def _average_precision(
    a: Predictions, b: Predictions, count: int, positive: Label | None, level: float, progress: Progress
) -> Comparison | str:
    """By drawing the examples anew; of too many, why not."""
    draws = min(DRAWS, DRAWN_EXAMPLES // count)
    if draws < FEWEST_DRAWS:
        return f"average precision: {count:,} examples are too many to draw anew {FEWEST_DRAWS} times"
    parts = list(pairs(a, b, "score", "drawing", progress))
    labels, one, other = (np.concatenate([part[index] for part in parts]) for index in range(3))
    is_needle = labels == positive if positive is not None else labels.astype(np.int64) == 1
    return paired_bootstrap(
        average_precision_score,
        is_needle,
        one,
        other,
        name="average precision",
        repeats=draws,
        level=level,
        strata=is_needle,
    )


def _absolute_errors(a: Predictions, b: Predictions, level: float, progress: Progress) -> Comparison:
    """By the mean of the differences, which is normal where there are some dozens."""
    count = 0
    errors_a, errors_b, differences, squares = ExactSums(), ExactSums(), ExactSums(), ExactSums()
    for labels, one, other in pairs(a, b, "prediction", "measuring", progress):
        truth = products.numbers("label", labels)
        off_a, off_b = (np.abs(products.numbers("prediction", each) - truth) for each in (one, other))
        count += len(truth)
        products.add_product(errors_a, None, off_a)
        products.add_product(errors_b, None, off_b)
        products.add_product(differences, None, off_a - off_b)
        products.add_product(squares, None, off_a - off_b, off_a - off_b)
    if not count:
        raise UnusablePredictions("there are no examples to compare on", where=str(a.files[0]))
    (spread,) = products.spreads(squares, differences, differences, Fraction(count))
    error = math.sqrt(spread / (count - 1) / count) if count > 1 else math.nan
    difference = float(errors_a.fractions()[0] - errors_b.fractions()[0]) / count
    return _by_errors(
        "mean absolute error",
        "paired differences",
        float(errors_a) / count,
        float(errors_b) / count,
        difference,
        error,
        count,
        level,
        higher_is_better=False,
    )


def _by_errors(
    metric: str,
    method: str,
    a: float,
    b: float,
    difference: float,
    error: float,
    n: int,
    level: float,
    *,
    higher_is_better: bool,
) -> Comparison:
    """Of a difference that is normal, with this standard error."""
    reach = normal_quantile(level) * error
    if error == 0:
        chance = 1.0 if difference == 0 else 0.0
    else:
        chance = 2 * NormalDist().cdf(-abs(difference) / error) if error > 0 else math.nan
    return Comparison(
        metric=metric,
        method=method,
        a=a,
        b=b,
        difference=difference,
        low=difference - reach,
        high=difference + reach,
        p_value=chance,
        n=n,
        level=level,
        higher_is_better=higher_is_better,
    )


def compare_evaluations(a: Path, b: Path, level: float = 0.95) -> Judgement:
    """Of two run directories, or their evaluation.json. Raises UnusablePredictions."""
    one, other = _document(a), _document(b)
    for what in ("metric", "objective"):
        if one[what] != other[what]:
            raise UnusablePredictions(
                f"{a} was judged by {one[what]}, {b} by {other[what]}", remedy="compare runs of one objective"
            )
    errors = [document["model"]["standard_error"] for document in (one, other)]
    error = math.hypot(*errors) if None not in errors else math.nan
    judged = _by_errors(
        one["metric"],
        "standard errors of both, as of different texts",
        one["model"]["value"],
        other["model"]["value"],
        one["model"]["value"] - other["model"]["value"],
        error,
        int(one["split"].get("bytes") or one["split"].get("tokens") or 0),
        level,
        higher_is_better=one["metric"] not in LESS_IS_BETTER,
    )
    left_out = (
        () if one["split"] == other["split"] else (f"not judged on the same text: {one['split']}, {other['split']}",)
    )
    runs = [path.parent if path.name == DOCUMENT else path for path in (a, b)]
    steps = f" (step {one['checkpoint']['step']})", f" (step {other['checkpoint']['step']})"
    return Judgement(*_told_apart(runs[0], runs[1], steps), (judged,), left_out)


def _document(path: Path) -> dict[str, Any]:
    file = path / DOCUMENT if path.is_dir() else path
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        for name in ("metric", "objective", "model", "split", "checkpoint"):
            found[name]
        float(found["model"]["value"])
    except FileNotFoundError:
        raise UnusablePredictions(
            "there is no evaluation",
            where=str(file),
            remedy=f"`phalanx run` makes one; name a run directory, its {DOCUMENT}, or a file with "
            "what `phalanx evaluate RUN --json` prints",
        ) from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UnusablePredictions(
            f"is no evaluation of a checkpoint ({error})",
            where=str(file),
            remedy="name the run directory, or evaluate it again",
        ) from None
    loaded: dict[str, Any] = found
    return loaded
