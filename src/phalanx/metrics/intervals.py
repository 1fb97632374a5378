"""How far a number may be off by chance: Wilson's interval of a share, DeLong's of a ROC area, any one's bootstrap.

An interval of 95 % is made by a recipe that holds the true value in 95 of 100 samples like this one. It knows of
chance alone, not of data that are unlike those that will come. Examples that belong together (frames of a video, texts
of an author) are one piece of evidence: name them as clusters, or the interval is too short.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phalanx.metrics import arrays
from phalanx.metrics.curve import Curve
from phalanx.metrics.errors import BadInput
from phalanx.metrics.state import State

Bootstrap = Literal["percentile", "bca"]

_NORMAL = NormalDist()


@dataclass(frozen=True)
class ConfidenceInterval:
    """`value`, and [low, high] at `level`; NaN where undefined. `undefined`: draws of a bootstrap that had no value, as
    those without a needle, and were left out."""

    value: float
    low: float
    high: float
    level: float
    method: str
    undefined: int = 0

    def __str__(self) -> str:
        value, low, high = rounded(self.value, self.low, self.high)
        left_out = f", {self.undefined:,} draws undefined" if self.undefined else ""
        return f"{value} ({percent(self.level)} interval {low} to {high}, {self.method}{left_out})"


def normal_quantile(level: float) -> float:
    """Half the width, in standard deviations, of the middle that holds `level` of a normal distribution: 1.96 of 0.95.

    Raises BadInput unless 0 < level < 1.
    """
    if not 0 < level < 1:
        raise BadInput(f"the level of an interval lies between 0 and 1, not {level!r}", remedy="0.95 is usual")
    return _NORMAL.inv_cdf((1 + level) / 2)


def wilson(successes: float, total: float, level: float = 0.95) -> ConfidenceInterval:
    """Of a share, that of `successes` among `total` independent examples (Wilson 1927). Right for rare ones too: none
    among 100 is 0 to 0.037. Of nothing the share is NaN, and anything from 0 to 1 is possible."""
    deviations = normal_quantile(level)
    if not (math.isfinite(total) and 0 <= successes <= total):
        raise BadInput(f"{successes!r} of {total!r} is no share", remedy="count successes from 0 to the total")
    if total == 0:
        return ConfidenceInterval(math.nan, 0.0, 1.0, level, "Wilson")
    share, square = successes / total, deviations**2
    middle = (share + square / (2 * total)) / (1 + square / total)
    reach = deviations * math.sqrt(share * (1 - share) / total + square / (4 * total**2)) / (1 + square / total)
    low = 0.0 if successes == 0 else max(0.0, middle - reach)
    high = 1.0 if successes == total else min(1.0, middle + reach)
    return ConfidenceInterval(share, low, high, level, "Wilson")


def roc_auc_interval(curve: Curve, level: float = 0.95, *, logit: bool = False) -> ConfidenceInterval:
    """Of the ROC area, by DeLong's standard error. `logit`: on the scale of log odds, which is better near 1 and never
    leaves 0 to 1; without it the interval is cut off there.

    NaN where the error is not defined (fewer than two needles or straws, weights) or 0, as of needles that all lie
    above all straws: that says nothing of the next ones.
    """
    deviations, area, error = normal_quantile(level), curve.roc_auc, curve.roc_auc_error
    method = "DeLong, logit" if logit else "DeLong"
    if not (error > 0 and 0 < area < 1):
        return ConfidenceInterval(area, math.nan, math.nan, level, method)
    if not logit:
        low, high = max(0.0, area - deviations * error), min(1.0, area + deviations * error)
        return ConfidenceInterval(area, low, high, level, method)
    odds, reach = math.log(area / (1 - area)), deviations * error / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-each)) for each in (odds - reach, odds + reach))
    return ConfidenceInterval(area, low, high, level, method)


def bootstrap(
    statistic: Callable[..., float],
    *columns: arrays.ArrayLike,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    clusters: arrays.ArrayLike | None = None,
    strata: arrays.ArrayLike | None = None,
    method: Bootstrap = "percentile",
) -> ConfidenceInterval:
    """Of `statistic(*columns)`, drawing their rows anew (Efron and Tibshirani 1993).

    `clusters` [n]: rows of equal ones are drawn together. `strata` [n]: as many rows of each are drawn as there are,
    as of needles and straws. `bca`: corrected for bias and skew (Efron 1987), for one call more of each row or cluster.
    The same seed gives the same interval. Raises BadInput.
    """
    rows = _rows(columns)
    value, draws = bootstrap_draws(statistic, *rows, repeats=repeats, seed=seed, clusters=clusters, strata=strata)
    if method == "percentile":
        return percentile_interval(value, draws, level)
    if method != "bca":
        raise BadInput(f"there is no bootstrap {method!r}", remedy="take percentile or bca")
    if strata is not None:
        raise BadInput("the bca bootstrap knows no strata", remedy="take method='percentile'")
    left_out = _one_left_out(len(rows[0]), clusters)
    return bca_interval(value, draws, np.array([_value(statistic, rows, kept) for kept in left_out]), level)


def bootstrap_states(
    states: Sequence[State],
    value: Callable[[Any], float],
    *,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    method: Bootstrap = "percentile",
) -> ConfidenceInterval:
    """Of `value(state)`, a state of all, where each of `states` is one piece of evidence (a text, a patient, a site):
    they are drawn anew and merged. Raises BadInput."""

    def merged(drawn: NDArray[np.int64]) -> float:
        whole = copy.deepcopy(states[drawn[0]])
        for each in drawn[1:]:
            whole.merge(states[each])
        return value(whole)

    return bootstrap(merged, np.arange(len(states)), repeats=repeats, level=level, seed=seed, method=method)


def bootstrap_ranking(
    curve: Curve, value: Callable[[Curve], float], *, repeats: int = 1000, level: float = 0.95, seed: int = 0
) -> ConfidenceInterval:
    """Of `value(curve)`, as average precision or recall at a false-positive rate, with as many needles and as many
    straws drawn as there are. It takes the curve alone, by steps as many as the needles' scores, whatever the haystack.

    Raises BadInput for a weighted curve.
    """
    if curve.weighted:
        raise BadInput("a ranking of weighted examples is not drawn anew", remedy="use bootstrap(), over the examples")
    straws = np.concatenate([curve.above, curve.straws, [curve.below]])
    generator, held, levels = np.random.default_rng(seed), np.flatnonzero(straws), len(curve.scores)

    def drawn() -> float:
        needles = generator.multinomial(int(curve.positives), curve.needles / curve.positives).astype(np.float64)
        cells = np.zeros(len(straws))
        cells[held] = generator.multinomial(int(curve.negatives), straws[held] / curve.negatives)
        # A score that no needle of the draw has is no level: its straws lie in the gap above the next.
        called = np.cumsum(cells[:levels] + cells[levels:-1])
        kept = np.flatnonzero(needles)
        tied = cells[levels:-1][kept]
        above = np.diff(called[kept], prepend=0.0) - tied
        below = curve.negatives - float(called[kept[-1]])
        return value(Curve(scores=curve.scores[kept], needles=needles[kept], straws=tied, above=above, below=below))

    return percentile_interval(value(curve), np.array([drawn() for _ in range(_checked(repeats))]), level)


def bootstrap_draws(
    statistic: Callable[..., float],
    *columns: arrays.ArrayLike,
    repeats: int,
    seed: int,
    clusters: arrays.ArrayLike | None = None,
    strata: arrays.ArrayLike | None = None,
) -> tuple[float, NDArray[np.float64]]:
    """The statistic of all rows, and of each of `repeats` draws: NaN of those where it is not defined."""
    rows = _rows(columns)
    value = float(statistic(*rows))
    if math.isnan(value):
        return value, np.full(_checked(repeats), math.nan)
    drawn = _drawn(len(rows[0]), np.random.default_rng(seed), _checked(repeats), clusters, strata)
    return value, np.array([_value(statistic, rows, chosen) for chosen in drawn])


def percentile_interval(value: float, draws: NDArray[np.float64], level: float) -> ConfidenceInterval:
    """Between the quantiles of what was drawn; NaN where the value is, or half of the draws are."""
    normal_quantile(level)
    return _between(value, draws, (1 - level) / 2, (1 + level) / 2, level, "percentile bootstrap")


def bca_interval(
    value: float, draws: NDArray[np.float64], left_out: NDArray[np.float64], level: float
) -> ConfidenceInterval:
    """Between quantiles shifted for bias, by the place of `value` among the draws, and for skew, by the values with
    one row or cluster `left_out` (Efron and Tibshirani 1993, 14.3). NaN where these do not say."""
    deviations, defined = normal_quantile(level), draws[~np.isnan(draws)]
    below = float(((defined < value).mean() + (defined <= value).mean()) / 2) if len(defined) else 0.0
    away = left_out.mean() - left_out
    spread = float((away**2).sum())
    if 0 < below < 1 and spread > 0:
        bias, skew = _NORMAL.inv_cdf(below), float((away**3).sum()) / spread**1.5 / 6
        shifted = [bias - deviations, bias + deviations]
        if max(skew * each for each in shifted) < 1:
            low, high = (_NORMAL.cdf(bias + each / (1 - skew * each)) for each in shifted)
            return _between(value, draws, low, high, level, "BCa bootstrap")
    return ConfidenceInterval(value, math.nan, math.nan, level, "BCa bootstrap", len(draws) - len(defined))


def rounded(*numbers: float) -> list[str]:
    """A value and the ends of its interval, in words: two digits of the width, and three decimals if it is below 1."""
    width = abs(numbers[-1] - numbers[-2])
    decimals = 3
    if 0 < width < math.inf:
        least = 3 if width < 1 else 0
        decimals = min(max(1 - math.floor(math.log10(width)), least), 12)
    return ["undefined" if math.isnan(each) else f"{each:z.{decimals}f}" for each in numbers]


def percent(level: float) -> str:
    """As 95 %."""
    return f"{100 * level:.6g} %"


def _between(
    value: float, draws: NDArray[np.float64], first: float, last: float, level: float, method: str
) -> ConfidenceInterval:
    defined = draws[~np.isnan(draws)]
    undefined = len(draws) - len(defined)
    if math.isnan(value) or 2 * undefined >= len(draws):
        return ConfidenceInterval(value, math.nan, math.nan, level, method, undefined)
    low, high = np.percentile(defined, [100 * first, 100 * last]).tolist()
    return ConfidenceInterval(value, low, high, level, method, undefined)


def _rows(columns: Iterable[arrays.ArrayLike]) -> list[NDArray[Any]]:
    rows = [arrays.array(f"column {index}", each) for index, each in enumerate(columns)]
    if not rows or any(not each.ndim for each in rows):
        raise BadInput("a bootstrap needs columns, of one row an example")
    arrays.same_length(**{f"column {index}": len(each) for index, each in enumerate(rows)})
    if not len(rows[0]):
        raise BadInput("there are no examples to draw from")
    return rows


def _value(statistic: Callable[..., float], rows: list[NDArray[Any]], chosen: NDArray[Any]) -> float:
    try:
        return float(statistic(*(each[chosen] for each in rows)))
    except BadInput:  # of all rows it was defined: what this draw lacks, as any needle, is no fault of the input
        return math.nan


def _checked(repeats: int) -> int:
    if repeats < 2:
        raise BadInput(f"a bootstrap takes many draws, not {repeats}", remedy="1,000 are usual")
    return repeats


def _drawn(
    length: int,
    generator: np.random.Generator,
    repeats: int,
    clusters: arrays.ArrayLike | None,
    strata: arrays.ArrayLike | None,
) -> Iterator[NDArray[np.int64]]:
    """Rows of each draw."""
    if clusters is not None and strata is not None:
        raise BadInput("rows are drawn by clusters or by strata, not by both")
    if strata is not None:
        within = _groups("strata", strata, length)
        for _ in range(repeats):
            yield np.concatenate([group[generator.integers(len(group), size=len(group))] for group in within])
    elif clusters is not None:
        groups = _groups("clusters", clusters, length)
        order, lengths = np.concatenate(groups), np.array([len(group) for group in groups])
        firsts = np.cumsum(lengths) - lengths
        for _ in range(repeats):
            drawn = generator.integers(len(groups), size=len(groups))
            sizes = lengths[drawn]
            yield order[np.arange(sizes.sum()) + np.repeat(firsts[drawn] - (np.cumsum(sizes) - sizes), sizes)]
    else:
        for _ in range(repeats):
            yield generator.integers(length, size=length)


def _one_left_out(length: int, clusters: arrays.ArrayLike | None) -> Iterator[NDArray[np.bool_]]:
    groups = _groups("clusters", clusters, length) if clusters is not None else np.arange(length)[:, None]
    for group in groups:
        kept = np.ones(length, np.bool_)
        kept[group] = False
        yield kept


def _groups(name: str, data: arrays.ArrayLike, length: int) -> list[NDArray[np.int64]]:
    """The rows of each value."""
    found = arrays.column(name, data)
    arrays.same_length(columns=length, **{name: len(found)})
    _, codes, counts = np.unique(found, return_inverse=True, return_counts=True)
    if len(counts) < 2 and name == "clusters":
        raise BadInput("there is one cluster: how far clusters differ cannot be told", remedy="name two at least")
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
