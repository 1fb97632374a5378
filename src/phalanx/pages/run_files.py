"""What a run directory knows: plan, decisions, evaluation and the last lines of each rank.

Any of them may be missing (the job ended before) or damaged (then it is named). Documents of other
rooms are read with care: a key that is not there leaves a gap in the page, never an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from phalanx.job import Decision, Plan
from phalanx.pages.heat import HeatMap

TAIL_BYTES = 6000
TAIL_LINES = 25
# Metrics of which less is better; every other one (top1, accuracy) is better when larger.
LESS_IS_BETTER = frozenset({"bits_per_byte", "loss", "perplexity", "mae"})
_TERMINAL_CODES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07?")


@dataclass(frozen=True)
class Score:
    """One value of the evaluation's metric. `sees_more`: a baseline that is shown what the model is not."""

    name: str
    value: float
    is_baseline: bool
    sees_more: bool = False


@dataclass(frozen=True)
class Guess:
    piece: str
    probability: float
    right: bool


@dataclass(frozen=True)
class Example:
    """A continuation (`prompt`, `generated`), a masked place (`before`, `after`, `guesses`, `truth`), or a translation
    (`prompt`, `generated`, `truth`, and the `alignment` if there is one)."""

    prompt: str = ""
    generated: str = ""
    before: str = ""
    after: str = ""
    truth: str = ""
    guesses: tuple[Guess, ...] = ()
    alignment: HeatMap | None = None


@dataclass(frozen=True)
class Evaluation:
    metric: str
    scores: tuple[Score, ...]
    beats_strongest: bool
    split: Mapping[str, int]
    examples: tuple[Example, ...]
    seconds: float | None = None
    loss: float | None = None
    labelled: Mapping[str, Any] | None = None
    translation: Mapping[str, Any] | None = None

    @property
    def less_is_better(self) -> bool:
        return self.metric in LESS_IS_BETTER

    @property
    def model(self) -> Score | None:
        return next((score for score in self.scores if not score.is_baseline), None)

    @property
    def strongest(self) -> Score | None:
        """The baseline that is hardest to beat, of those that saw no more than the model."""
        opponents = [score for score in self.scores if score.is_baseline and not score.sees_more]
        baselines = [score for score in opponents if math.isfinite(score.value)]
        best = min if self.less_is_better else max
        return best(baselines, key=lambda score: score.value) if baselines else None


@dataclass(frozen=True)
class RunFiles:
    """`damaged` names what is there and cannot be read."""

    plan: Plan | None
    decisions: tuple[Decision, ...]
    evaluation: Evaluation | None
    damaged: tuple[str, ...]


def read_run(run_dir: Path) -> RunFiles:
    """Everything the directory has; nothing of it need exist."""
    damaged: list[str] = []
    plan: Plan | None = None
    decisions: list[Decision] = []
    text = _text(run_dir / "plan.json", damaged)
    if text is not None:
        try:
            plan = Plan.model_validate_json(text)
        except ValidationError:
            damaged.append("plan.json")
    for path in sorted(run_dir.glob("decision-*.json")):
        text = _text(path, damaged)
        if text is not None:
            try:
                decisions.append(Decision.model_validate_json(text))
            except ValidationError:
                damaged.append(path.name)
    evaluation: Evaluation | None = None
    text = _text(run_dir / "evaluation.json", damaged)
    if text is not None:
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        evaluation = parse_evaluation(document)
        if evaluation is None:
            damaged.append("evaluation.json")
    return RunFiles(plan, tuple(decisions), evaluation, tuple(damaged))


def log_tail(run_dir: Path, generation: int, rank: int) -> tuple[str, ...]:
    """The last lines that one rank of one generation printed, without terminal codes."""
    path = run_dir / "logs" / f"generation-{int(generation)}" / f"rank-{int(rank)}.log"
    try:
        with path.open("rb") as file:
            length = file.seek(0, 2)
            file.seek(max(0, length - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
    except OSError:
        return ()
    # A progress bar rewrites its line with carriage returns: only the last state of a line was meant to stay.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in data.decode(errors="replace").split("\n")]
    lines = [_TERMINAL_CODES.sub("", line).rstrip() for line in lines]
    if length > TAIL_BYTES:
        lines = lines[1:]
    return tuple(line for line in lines if line)[-TAIL_LINES:]


def parse_evaluation(document: object) -> Evaluation | None:
    """The evaluator's document as values; None when it is not one."""
    if not isinstance(document, dict):
        return None
    metric, model = document.get("metric"), document.get("model")
    value = _number(model.get("value")) if isinstance(model, dict) else None
    if not isinstance(metric, str) or value is None:
        return None
    scores = [Score("this model", value, False)]
    scores += [
        Score(str(item.get("name", "?")), baseline, True, item.get("sees_more") is True)
        for item in _list(document.get("baselines"))
        if isinstance(item, dict) and (baseline := _number(item.get("value"))) is not None
    ]
    split = document.get("split")
    return Evaluation(
        metric=metric,
        scores=tuple(scores),
        beats_strongest=document.get("beats_strongest") is True,
        split={k: v for k, v in split.items() if isinstance(v, int)} if isinstance(split, dict) else {},
        examples=tuple(_example(item) for item in _list(document.get("examples"))[:12] if isinstance(item, dict)),
        seconds=_number(document.get("seconds")),
        loss=_number(model.get("loss")) if isinstance(model, dict) else None,
        labelled=document["labelled"] if isinstance(document.get("labelled"), dict) else None,
        translation=document["translation"] if isinstance(document.get("translation"), dict) else None,
    )


def _example(item: dict[str, Any]) -> Example:
    if "translated" in item:
        texts = (str(item.get(name, "")) for name in ("source", "translated", "reference"))
        prompt, generated, truth = texts
        return Example(prompt=prompt, generated=generated, truth=truth, alignment=_alignment(item.get("alignment")))
    if "guesses" not in item:
        return Example(prompt=str(item.get("prompt", "")), generated=str(item.get("generated", "")))
    truth = str(item.get("truth", ""))
    guesses = [
        Guess(str(guess[0]), probability, str(guess[0]).strip() == truth.strip())
        for guess in _list(item["guesses"])[:5]
        if isinstance(guess, list | tuple) and len(guess) == 2 and (probability := _number(guess[1])) is not None
    ]
    before, _, after = str(item.get("masked", "")).partition("[MASK]")
    return Example(before=before, after=after, truth=truth, guesses=tuple(guesses))


def _alignment(item: object) -> HeatMap | None:
    """None for what is no matrix with a name for each row and column."""
    if not isinstance(item, dict):
        return None
    rows, columns = (tuple(str(token) for token in _list(item.get(side))) for side in ("rows", "columns"))
    try:
        weights = np.array(item.get("weights"), np.float32)
    except (TypeError, ValueError):
        return None
    return HeatMap("", rows, columns, weights) if weights.shape == (len(rows), len(columns)) and rows else None


def _text(path: Path, damaged: list[str]) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        damaged.append(path.name)
        return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
