"""The page of an evaluated checkpoint: the model among its tables, how sure that is, and what it makes of unseen text.

One HTML file that needs nothing else, from the document that `phalanx evaluate RUN --json` prints.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import phalanx
from phalanx.foundation import write_atomic
from phalanx.pages import quantities
from phalanx.pages.chart import Chart, Line, chart
from phalanx.pages.frame import render_page
from phalanx.pages.panels import length_chart, score_bars
from phalanx.pages.predictions import predicted_of
from phalanx.pages.quantities import count, number, percent
from phalanx.pages.run_files import parse_evaluation
from phalanx.pages.verdict import METRIC_NAMES, SHARES, Tile, score_text

Document = Mapping[str, Any]


def write_checkpoint_page(document: Document, sentences: Sequence[str], out: Path) -> Path:
    """Draw a checkpoint's evaluation, with what it says in words, into `out`.

    Raises StorageError when `out` cannot be written, ValueError for what is no such document.
    """
    write_atomic(out, render_checkpoint(document, sentences))
    return out


def render_checkpoint(document: Document, sentences: Sequence[str], now_ns: int | None = None) -> str:
    """The page as text. `now_ns`: when it was written; the present time if None."""
    evaluation = parse_evaluation(document)
    if evaluation is None:
        raise ValueError("not an evaluation of a checkpoint")
    model, metric = document["model"], document["metric"]
    seen = "text" if evaluation.labelled is None else "examples"
    return render_page(
        "checkpoint.html",
        title=f"{model['name']}, step {document['checkpoint']['step']:,}",
        headline=f"{score_text(metric, model['value'])} on {seen} that it never saw",
        tiles=_tiles(document),
        evaluation=evaluation,
        scores=score_bars(evaluation),
        metric=METRIC_NAMES.get(metric, metric),
        sentences=sentences,
        reliability=_reliability(document["guesses"]) if document.get("guesses") is not None else None,
        predicted=predicted_of(evaluation),
        lengths=length_chart(evaluation),
        images=evaluation.translation is not None,
        contestants=[
            {"name": "", "sees_more": False, "note": ""} | each
            for each in (dict(model) | {"name": "this model"}, *document["baselines"])
        ],
        path=document["checkpoint"]["path"],
        version=phalanx.__version__,
        written=quantities.moment(now_ns if now_ns is not None else time.time_ns()),
    )


def _reliability(guesses: Mapping[str, Any]) -> Chart | None:
    """How often its first guesses are right, by how sure it was of them."""
    bins = guesses["bins"]

    def points(end: str) -> tuple[tuple[float, float], ...]:
        return tuple((each["mean"], each["happened"][end]) for each in bins)

    lines = [
        Line("were right", points("value"), 1, dots=True),
        Line("as sure as it was", ((0.0, 0.0), (1.0, 1.0)), 8, faint=True),
    ]
    unit = "by the probability that it gave them (reliability)"
    return chart("Right first guesses", unit, lines, x_name="probability", x_range=(0.0, 1.0), from_zero=True)


def _tiles(document: Document) -> list[Tile]:
    metric: str = document["metric"]
    model, split = document["model"], document["split"]
    is_share = metric in SHARES

    def shown(value: float | None) -> str:
        return percent(value) if is_share else number(value)

    error = model["standard_error"]
    within = f"give or take {shown(1.96 * error)}, 95 % interval" if error is not None else "one text: no interval"
    first = Tile(METRIC_NAMES.get(metric, metric), shown(model["value"]), within)
    if document.get("labelled") is not None:
        unit = "nats an example" if is_share else "mean squared error"
        return [
            first,
            Tile("ahead of the strongest baseline", shown(document["margin"]), document["strongest"]),
            Tile("loss", number(model["loss"]), unit),
            Tile("held-out examples", count(split.get("examples")), "training never saw them"),
        ]
    if document.get("translation") is not None:
        return [
            first,
            Tile("chrF", number(document["translation"]["chrf"]), "of characters, 0 to 100"),
            Tile("ahead of the strongest baseline", shown(document["margin"]), document["strongest"]),
            Tile("loss", number(model["loss"]), "nats per token of the references"),
            Tile("perplexity", number(document["perplexity"]), "as good as choosing among so many tokens"),
            Tile("held-out pairs", count(split.get("pairs")), "training never saw them"),
        ]
    return [
        first,
        Tile("ahead of the strongest table", shown(document["margin"]), document["strongest"]),
        Tile("among its five best", percent(document["guesses"]["top5"]["value"]), "guesses is the right token"),
        Tile("loss", number(model["loss"]), "nats per token that was predicted"),
        Tile("perplexity", number(document["perplexity"]), "as good as choosing among so many tokens"),
        Tile("held-out files", count(split.get("files")), "training never saw them"),
    ]
