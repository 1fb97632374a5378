"""The report's pictures as values: which lines and bars are drawn from a job's history, and in which colours.

A tone (1-8) is a colour of the style sheet. Knows the meaning of the numbers, not how they are drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from phalanx.job import Plan
from phalanx.pages.bars import Bar, Key, keys, share, stacked
from phalanx.pages.chart import Chart, Line, Mark, chart, smooth
from phalanx.pages.quantities import duration, number, percent, size
from phalanx.pages.rows import PHASES, History
from phalanx.pages.run_files import Evaluation
from phalanx.pages.verdict import SHARES, score_text

MAX_RANKS = 16
_PHASE_TONES = {"data": 6, "forward": 1, "backward": 4, "communication": 2, "optimizer": 3, "other": 8}
_MEMORY_TONES = {"parameters": 1, "gradients": 4, "optimizer": 3, "activations": 2, "other": 8, "measured": 7}
_CATEGORIES = ("parameters", "gradients", "optimizer", "activations", "other")


@dataclass(frozen=True)
class Bars:
    """Bars under one legend; `notes` are sentences below them."""

    bars: tuple[Bar, ...]
    keys: tuple[Key, ...]
    notes: tuple[str, ...] = ()


def _bars(bars: list[Bar], notes: list[str]) -> Bars:
    return Bars(tuple(bars), tuple(keys(bars)), tuple(notes))


def loss_chart(history: History, steps: int, unit: str = "nats per token") -> Chart | None:
    """Training loss (faint: as it was; strong: smoothed) and the loss of each held-out split."""
    raw = [(float(s.step), s.loss) for s in history.steps]
    window = len(raw) // 25 | 1  # odd: a centred mean
    lines = [Line("training", tuple(raw), 1, faint=window > 1)]
    if window > 1:
        lines.append(Line(f"training, mean of {window * _width(history)} steps", smooth(raw, window), 1))
    for tone, split in zip((5, 3, 4), sorted({row["split"] or "" for row in history.validations}), strict=False):
        points = tuple(
            (float(row["step"]), row["loss"])
            for row in history.validations
            if row["split"] == split and row["loss"] is not None
        )
        lines.append(Line(split, points, tone, dots=True))
    whole = (1.0, float(max(2, steps))) if history.training.steps else None
    return chart("Loss", unit, lines, x_range=whole, marks=_restarts(history), tall=True)


def small_charts(history: History, steps: int) -> list[Chart]:
    """Right guesses on held-out text, throughput, gradient norm and learning rate over the steps."""
    whole = (1.0, float(max(2, steps)))
    marks = _restarts(history)
    guesses = chart("Right guesses", "percent of the tokens predicted", _guesses(history), x_range=whole, marks=marks)
    found = [] if guesses is None else [guesses]
    for title, unit, field, tone in (
        ("Throughput", "real tokens per second, all workers", "tokens_per_second", 3),
        ("Gradient norm", "before clipping", "gradient_norm", 4),
        ("Learning rate", "", "learning_rate", 2),
    ):
        points = tuple((float(s.step), v) for s in history.steps if (v := getattr(s, field)) is not None)
        picture = chart(title, unit, [Line(title.lower(), points, tone)], x_range=whole, from_zero=True, marks=marks)
        if picture is not None:
            found.append(picture)
    return found


def _guesses(history: History) -> list[Line]:
    """Of each held-out split how often the model's best guess was right, and how often one of its best five."""
    lines = []
    for split in sorted({row["split"] or "" for row in history.validations})[:3]:
        for tone, column, words in ((5, "top1", "the best guess"), (2, "top5", "one of the best five")):
            points = tuple(
                (float(row["step"]), 100 * row[column])
                for row in history.validations
                if (row["split"] or "") == split and row[column] is not None
            )
            if points:
                lines.append(Line(f"{split}, {words}", points, tone, dots=True))
    return lines


def time_bars(history: History) -> Bars | None:
    """Mean step of every rank, by phase; of many ranks the slowest are shown."""
    ranks = sorted(history.ranks, key=lambda r: r.step_seconds, reverse=True)[:MAX_RANKS]
    if not ranks:
        return None
    full = max(rank.step_seconds for rank in ranks)
    bars, notes = [], []
    for rank in sorted(ranks, key=lambda r: r.rank):
        parts = {**rank.phases, "other": rank.other}
        tips = {name: f"{name}: {duration(s)}, {percent(s / rank.step_seconds)}" for name, s in parts.items() if s}
        parts = {name: seconds for name, seconds in parts.items() if seconds}
        bars.append(stacked(f"rank {rank.rank}", parts, full, _PHASE_TONES, tips, duration(rank.step_seconds)))
    if len(history.ranks) > len(ranks):
        notes.append(f"The {len(ranks)} slowest of {len(history.ranks)} ranks.")
    mean = {name: sum(r.phases[name] for r in history.ranks) / len(history.ranks) for name in PHASES}
    whole = sum(r.step_seconds for r in history.ranks) / len(history.ranks)
    largest = max(mean, key=lambda name: mean[name])
    if whole > 0:
        notes.append(
            f"Most of a step is {largest} ({percent(mean[largest] / whole, 0)}); "
            f"waiting for other ranks and summing gradients takes {percent(mean['communication'] / whole, 0)}."
        )
    return _bars(bars, notes)


def memory_bars(history: History, plan: Plan | None) -> Bars | None:
    """Predicted peak of one worker by category, and what each worker was measured to take."""
    predicted = _predicted(history, plan)
    measured = {row["rank"]: row["bytes"] for row in history.memory if row["category"] == "measured_peak"}
    total = sum(predicted.values())
    full = max([total, *measured.values()], default=0)
    if full <= 0:
        return None
    bars, notes = [], []
    if predicted:
        tips = {name: f"{name}: {size(amount)}" for name, amount in predicted.items()}
        bars.append(stacked("predicted", predicted, full, _MEMORY_TONES, tips, size(total), strong=True))
    for rank, amount in sorted(measured.items())[:MAX_RANKS]:
        tips = {"measured": f"measured peak: {size(amount)}"}
        value = size(amount)
        if total:
            value += f" ({'+' if amount >= total else '−'}{percent(abs(amount / total - 1), 0)})"
        bars.append(stacked(f"rank {rank}", {"measured": amount}, full, _MEMORY_TONES, tips, value))
    if len(measured) > MAX_RANKS:
        notes.append(f"The first {MAX_RANKS} of {len(measured)} ranks.")
    if measured and total:
        worst = max(abs(amount / total - 1) for amount in measured.values())
        notes.append(f"The prediction is off by at most {percent(worst, 0)}.")
    elif total:
        notes.append("No worker reported what it took.")
    notes.append("Peak of the resident set above what the worker held before the model was built.")
    return _bars(bars, notes)


def score_bars(evaluation: Evaluation) -> Bars | None:
    """The model among its baselines, best first."""
    finite = [score for score in evaluation.scores if math.isfinite(score.value)]
    if not finite:
        return None
    full = max(abs(score.value) for score in finite) or 1.0
    ordered = sorted(finite, key=lambda score: score.value, reverse=not evaluation.less_is_better)
    bars = [
        stacked(
            score.name,
            {score.name: abs(score.value)},
            full,
            {score.name: 8 if score.is_baseline else 1},
            {score.name: score_text(evaluation.metric, score.value)},
            percent(score.value) if evaluation.metric in SHARES else number(score.value),
            strong=not score.is_baseline,
        )
        for score in ordered
    ]
    return Bars(tuple(bars), ())


def length_chart(evaluation: Evaluation | None) -> Chart | None:
    """BLEU and chrF of translations by the length of the source; None for any other evaluation."""
    if evaluation is None or evaluation.translation is None:
        return None
    lengths = evaluation.translation["lengths"]
    lines = [
        Line(name, tuple((float(each["words"]), float(each[key])) for each in lengths), tone, dots=True)
        for name, key, tone in (("BLEU", "bleu", 1), ("chrF", "chrf", 2))
    ]
    return chart("By length", "of 100, by words of the source", lines, x_name="words", from_zero=True)


def guess_width(probability: float) -> float:
    """Percent of the row that a guess's bar fills."""
    return round(share(probability, 1.0), 2)


def _predicted(history: History, plan: Plan | None) -> dict[str, float]:
    if plan is not None:
        rows = {name: float(getattr(plan.predicted.memory, name)) for name in _CATEGORIES}
    else:
        rows = {row["category"]: float(row["bytes"]) for row in history.memory if row["rank"] == -1 and row["bytes"]}
    return {name: rows[name] for name in _CATEGORIES if rows.get(name)}


def _restarts(history: History) -> list[Mark]:
    """Where a later generation went on; the first one starts at the beginning and needs no mark."""
    rows = history.generations[1:]
    return [Mark(float(row["first_step"]), f"generation {row['generation']} goes on") for row in rows]


def _width(history: History) -> int:
    """Steps behind one point of a thinned curve."""
    return max(1, round(history.training.steps / len(history.steps))) if history.steps else 1
