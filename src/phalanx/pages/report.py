"""The report of a job: one HTML file that needs nothing else, written whole or not at all.

Plots are SVG drawn here (`pages.chart` says why no plotting library is used). Knows no store: rows come through a
function.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import phalanx
from phalanx.foundation import write_atomic
from phalanx.job import Decision, Job, Plan
from phalanx.job.yaml import dump_job
from phalanx.pages import quantities
from phalanx.pages.bars import keys
from phalanx.pages.frame import render_page
from phalanx.pages.panels import Bars, length_chart, loss_chart, memory_bars, score_bars, small_charts, time_bars
from phalanx.pages.predictions import predicted_of
from phalanx.pages.rows import History, Row, Rows, read_history
from phalanx.pages.run_files import RunFiles, log_tail, read_run
from phalanx.pages.timeline import first_crash, lanes, moments, span
from phalanx.pages.verdict import METRIC_NAMES, loss_unit, tiles, verdict


@dataclass(frozen=True)
class LogTail:
    """The last words of the rank whose end explains the others."""

    title: str
    lines: tuple[str, ...]


def write_report(job: Job, run_dir: Path, rows: Rows, out: Path) -> Path:
    """Draw `job` from its run directory and the store's rows into `out`, and return `out`.

    `rows` answers one SQL query over the event tables with a list of dicts; what it cannot read
    (PhalanxError) is said on the page. Any phase will do: a job that failed at once gets a page that
    says why. Raises StorageError when `out` cannot be written.
    """
    history = read_history(rows, job.metadata.uid, job.status.attempt)
    write_atomic(out, render(job, read_run(run_dir), history, _log_tail(run_dir, job, history)))
    return out


def render(job: Job, files: RunFiles, history: History, log: LogTail | None = None, now_ns: int | None = None) -> str:
    """The page as text. `now_ns`: when it was written; the present time if None."""
    lived = lanes(history)
    steps = max([job.spec.training.steps, *(s.step for s in history.steps)])
    return render_page(
        "report.html",
        job=job,
        files=files,
        history=history,
        plan=files.plan,
        evaluation=files.evaluation,
        verdict=verdict(job, files, history),
        tiles=tiles(job, files, history),
        yaml=_yaml_lines(dump_job(job)),
        loss=loss_chart(history, steps, loss_unit(job)),
        charts=small_charts(history, steps),
        times=time_bars(history),
        memory=memory_bars(history, _carried_out(job, files.plan)),
        fallback=job.status.fallback,
        scores=score_bars(files.evaluation) if files.evaluation is not None else None,
        predicted=predicted_of(files.evaluation),
        lengths=length_chart(files.evaluation),
        images=files.evaluation is not None and files.evaluation.translation is not None,
        metric=METRIC_NAMES.get(files.evaluation.metric, files.evaluation.metric) if files.evaluation else "",
        gates=[_gate(decision) for decision in files.decisions],
        moments=moments(history),
        lanes=Bars(tuple(lived), tuple(keys(lived))) if lived else None,
        span=span(history),
        log=log,
        facts=_facts(history.host_facts),
        version=phalanx.__version__,
        written=quantities.moment(now_ns if now_ns is not None else time.time_ns()),
    )


def _yaml_lines(text: str) -> list[tuple[str, str, str]]:
    """Lines as (indentation, key, rest), so that the template can colour keys; no key: ("", "", line)."""
    lines = []
    for line in text.rstrip().split("\n"):
        body = line.lstrip(" -")
        key, colon, rest = body.partition(":")
        if colon and key.replace("_", "").isalnum() and (not rest or rest.startswith(" ")):
            lines.append((line[: len(line) - len(body)], key + colon, rest))
        else:
            lines.append(("", "", line))
    return lines


def _carried_out(job: Job, plan: Plan | None) -> Plan | None:
    """The plan, or the fallback of it that was carried out last."""
    index = job.status.fallback
    return plan.fallbacks[index] if plan is not None and 0 <= index < len(plan.fallbacks) else plan


@dataclass(frozen=True)
class Gate:
    title: str
    decision: Decision


def _gate(decision: Decision) -> Gate:
    names = {1: "before planning", 2: "before launch"}
    return Gate(f"Gate {decision.gate}, {names.get(decision.gate, '')}", decision)


def _facts(rows: Sequence[Row]) -> dict[str, list[Row]]:
    hosts: dict[str, list[Row]] = {}
    for row in rows:
        hosts.setdefault(row["host"] or "this host", []).append(row)
    return hosts


def _log_tail(run_dir: Path, job: Job, history: History) -> LogTail | None:
    crash = first_crash(history)
    if crash is not None:
        generation, rank = crash["generation"], crash["rank"]
    elif job.status.phase == "Failed" and job.status.generation:
        generation, rank = job.status.generation, 0
    else:
        return None
    lines = log_tail(run_dir, generation, rank)
    return LogTail(f"Last lines of rank {rank}, generation {generation}", lines) if lines else None
