"""What the store knows of one attempt of a job, asked in SQL and returned as plain values.

The store itself is handed in as a function, so that a page can be drawn from any engine that speaks
DuckDB's dialect. Long runs are thinned in SQL: a chart never gets more than `POINTS` points. A store
that cannot be read leaves a page with what the run directory has. Knows no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phalanx.foundation import PhalanxError

Row = Mapping[str, Any]
Rows = Callable[[str], Sequence[Row]]

POINTS = 400
PHASES = ("data", "forward", "backward", "communication", "optimizer")


@dataclass(frozen=True)
class Step:
    """One step, or the mean of a few neighbouring ones; `step` is the last of them."""

    step: int
    loss: float
    learning_rate: float | None
    gradient_norm: float | None
    tokens_per_second: float | None
    seconds: float | None


@dataclass(frozen=True)
class RankTime:
    """Mean seconds a step that one rank spent, by phase."""

    rank: int
    steps: int
    step_seconds: float
    phases: Mapping[str, float]

    @property
    def other(self) -> float:
        return max(0.0, self.step_seconds - sum(self.phases.values()))


@dataclass(frozen=True)
class Training:
    """The whole of it: `loss` is that of the last step, `seconds` the sum of the slowest rank's steps."""

    steps: int = 0
    tokens: int = 0
    loss: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    not_finite_at: int | None = None


@dataclass(frozen=True)
class History:
    """Everything asked of the store; tuples are empty where there is nothing, `unreadable` says why if it failed."""

    training: Training = Training()
    steps: tuple[Step, ...] = ()
    ranks: tuple[RankTime, ...] = ()
    validations: tuple[Row, ...] = ()
    memory: tuple[Row, ...] = ()
    states: tuple[Row, ...] = ()
    workers: tuple[Row, ...] = ()
    checkpoints: tuple[Row, ...] = ()
    host_facts: tuple[Row, ...] = ()
    generations: tuple[Row, ...] = ()
    losses: tuple[Row, ...] = ()
    dropped: int = 0
    unreadable: tuple[str, ...] = field(default=())


def quote(text: str) -> str:
    """`text` as an SQL string; quotes doubled, which is all that standard SQL needs."""
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


def read_history(rows: Rows, job_uid: str, attempt: int) -> History:
    """All tables of one attempt. A query that fails with PhalanxError is noted in `unreadable`, the rest is read."""
    mine = f"job_uid = {quote(job_uid)} AND attempt = {int(attempt)}"
    unreadable: list[str] = []

    def ask(sql: str) -> tuple[Row, ...]:
        try:
            return tuple(rows(sql))
        except PhalanxError as error:
            if error.message not in unreadable:
                unreadable.append(error.message)
            return ()

    # A restart repeats the steps after its checkpoint: the newest generation's rows are the ones that counted.
    steps = f"(SELECT * FROM steps WHERE {mine} QUALIFY generation = max(generation) OVER (PARTITION BY step))"
    totals = ask(_totals(steps))
    training = _training(totals[0]) if totals and totals[0]["steps"] else Training()
    width = max(1, math.ceil(training.steps / POINTS))
    return History(
        training=training,
        steps=tuple(_step(row) for row in ask(_curve(steps, width))),
        ranks=tuple(_rank(row) for row in ask(_per_rank(steps))),
        validations=ask(
            "SELECT step, split, max_by(loss, generation) AS loss, max_by(bits_per_byte, generation) AS bits_per_byte, "
            "max_by(perplexity, generation) AS perplexity, max_by(top1, generation) AS top1, "
            "max_by(top5, generation) AS top5, max(tokens) AS tokens "
            f"FROM validations WHERE {mine} GROUP BY step, split ORDER BY split, step"
        ),
        memory=ask(
            f"SELECT rank, category, max_by(bytes, time_ns) AS bytes FROM memory WHERE {mine} "
            "GROUP BY rank, category ORDER BY rank, category"
        ),
        states=ask(
            "SELECT time_ns, kind, name, phase, condition, status, reason, message, generation FROM states "
            f"WHERE {mine} ORDER BY time_ns, seq LIMIT 2000"
        ),
        workers=ask(
            "SELECT time_ns, host, generation, rank, event, pid, exit_kind, exit_signal, exit_code, message "
            f"FROM workers WHERE {mine} ORDER BY time_ns, seq LIMIT 2000"
        ),
        checkpoints=ask(
            "SELECT time_ns, generation, rank, event, step, path, bytes, seconds, message FROM checkpoints "
            f"WHERE {mine} ORDER BY time_ns, seq LIMIT 2000"
        ),
        host_facts=ask(
            "SELECT host, fact, max_by(value, time_ns) AS value, max_by(evidence, time_ns) AS evidence "
            f"FROM host_facts WHERE {mine} GROUP BY host, fact ORDER BY host, fact"
        ),
        generations=ask(f"SELECT generation, min(step) AS first_step FROM steps WHERE {mine} GROUP BY 1 ORDER BY 1"),
        losses=ask(
            "SELECT lost_source, first_seq, last_seq, rows, reason FROM losses WHERE lost_source IN "
            f"(SELECT source FROM sources WHERE {mine} UNION SELECT source FROM steps WHERE {mine}) "
            "ORDER BY lost_source, first_seq LIMIT 200"
        ),
        dropped=sum(row["n"] or 0 for row in ask(f"SELECT sum(dropped) AS n FROM sources WHERE {mine}")),
        unreadable=tuple(unreadable),
    )


def _totals(steps: str) -> str:
    return (
        "WITH per_step AS (SELECT step, avg(loss) AS loss, sum(tokens) AS tokens, max(step_s) AS seconds, "
        f"avg(tokens_per_second) AS rate FROM {steps} GROUP BY step) "
        "SELECT count(*) AS steps, sum(tokens) AS tokens, sum(seconds) AS seconds, max_by(loss, step) AS loss, "
        "median(rate) AS rate, min(step) FILTER (WHERE NOT isfinite(loss)) AS not_finite_at FROM per_step"
    )


def _training(row: Row) -> Training:
    return Training(
        steps=row["steps"],
        tokens=int(row["tokens"] or 0),
        loss=row["loss"],
        seconds=row["seconds"],
        tokens_per_second=row["rate"],
        not_finite_at=row["not_finite_at"],
    )


def _curve(steps: str, width: int) -> str:
    return (
        "SELECT max(step) AS step, avg(loss) AS loss, avg(learning_rate) AS learning_rate, "
        "avg(gradient_norm) AS gradient_norm, avg(tokens_per_second) AS rate, avg(step_s) AS seconds "
        f"FROM {steps} WHERE step IS NOT NULL AND loss IS NOT NULL GROUP BY (step - 1) // {width} ORDER BY 1"
    )


def _step(row: Row) -> Step:
    return Step(row["step"], row["loss"], row["learning_rate"], row["gradient_norm"], row["rate"], row["seconds"])


def _per_rank(steps: str) -> str:
    means = ", ".join(f"avg(coalesce({phase}_s, 0)) AS {phase}" for phase in PHASES)
    return f"SELECT rank, count(*) AS steps, avg(step_s) AS step_s, {means} FROM {steps} GROUP BY rank ORDER BY rank"


def _rank(row: Row) -> RankTime:
    return RankTime(row["rank"], row["steps"], row["step_s"] or 0.0, {phase: row[phase] for phase in PHASES})
