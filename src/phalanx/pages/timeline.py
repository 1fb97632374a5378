"""What happened, in order, and who ran when: state changes, workers' starts and ends, checkpoints.

Repeated rows are folded, so that a run of a thousand checkpoints stays a page. Knows no HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from phalanx.pages.bars import Bar, Piece, share
from phalanx.pages.quantities import clock, duration, size
from phalanx.pages.rows import History, Row

Kind = Literal["state", "start", "good", "bad", "note"]
MAX_LANES = 32
SHOWN_CHECKPOINTS = 6
_TONES = {"done": 3, "preempted": 2, "peer_lost": 6, "": 1}
_CRASH_TONE = 5


@dataclass(frozen=True)
class Moment:
    """One entry: `clock` since the first event; `who` a rank or nothing."""

    time_ns: int
    clock: str
    kind: Kind
    who: str
    text: str
    detail: str = ""


def moments(history: History) -> list[Moment]:
    """All that happened, oldest first."""
    rows = [*history.states, *history.workers, *history.checkpoints]
    if not rows:
        return []
    start = min(row["time_ns"] for row in rows)
    found = [*_states(history.states, start), *_workers(history.workers, start)]
    found += _checkpoints(history.checkpoints, start)
    return sorted(found, key=lambda moment: moment.time_ns)


def span(history: History) -> float:
    """Seconds from the first event to the last."""
    times = [row["time_ns"] for row in (*history.states, *history.workers, *history.checkpoints)]
    return (max(times) - min(times)) / 1e9 if times else 0.0


def _states(rows: Iterable[Row], start: int) -> Iterable[Moment]:
    seen: set[tuple[object, ...]] = set()
    for row in rows:
        identity = (row["kind"], row["name"], row["condition"], row["status"], row["reason"], row["message"])
        if identity in seen and row["condition"]:
            continue
        seen.add(identity)
        kind: Kind = "state"
        if row["phase"] == "Failed" or row["status"] == "False":
            kind = "bad" if row["reason"] not in ("AllWorkersDone", "Suspended") else "note"
        elif row["phase"] == "Succeeded":
            kind = "good"
        text = row["phase"] or ""
        if row["condition"]:
            denied = "not " if row["status"] == "False" else ""
            text = f"{denied}{row['condition'].lower()}: {words(row['reason'] or '')}"
        yield _moment(row, start, kind, "", text, row["message"] or "")


def words(name: str) -> str:
    """A CamelCase reason as words: `Gate1Blocked` is `gate 1 blocked`."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z\d]+", name)).lower()


def _workers(rows: Iterable[Row], start: int) -> Iterable[Moment]:
    for row in rows:
        who = f"rank {row['rank']}"
        if row["event"] == "started":
            yield _moment(row, start, "start", who, f"started (process {row['pid']}, generation {row['generation']})")
            continue
        ended = row["exit_kind"] or "ended"
        if row["exit_signal"]:
            ended += f" by signal {row['exit_signal']}"
        kind: Kind = {"done": "good", "preempted": "note", "peer_lost": "note"}.get(row["exit_kind"], "bad")  # type: ignore[assignment]
        yield _moment(row, start, kind, who, ended.replace("_", " "), row["message"] or "")


def _checkpoints(rows: tuple[Row, ...], start: int) -> Iterable[Moment]:
    written = [row for row in rows if row["event"] == "written"]
    hidden = {id(row) for row in written[2 : max(2, len(written) - 2)]} if len(written) > SHOWN_CHECKPOINTS else set()
    for row in rows:
        if id(row) in hidden:
            continue
        who = f"rank {row['rank']}" if row["rank"] is not None and row["rank"] >= 0 else ""
        text = f"checkpoint of step {row['step']:,} {row['event']}" if row["step"] is not None else "checkpoint"
        cost = f"{size(row['bytes'])} in {duration(row['seconds'])}" if row["bytes"] else ""
        detail = "; ".join(part for part in (cost, row["message"] or "") if part)
        yield _moment(row, start, "bad" if row["event"] == "damaged" else "note", who, text, detail)
    if hidden:
        last = [row for row in written if id(row) in hidden][-1]
        yield _moment(last, start, "note", "", f"{len(hidden)} more checkpoints written")


def _moment(row: Row, start: int, kind: Kind, who: str, text: str, detail: str = "") -> Moment:
    return Moment(row["time_ns"], clock((row["time_ns"] - start) / 1e9), kind, who, text, detail)


def lanes(history: History) -> list[Bar]:
    """One lane a rank: a piece for each life of its process, coloured by how it ended."""
    rows = history.workers
    if not rows:
        return []
    everything = [row["time_ns"] for row in (*history.states, *rows, *history.checkpoints)]
    start, end = min(everything), max(everything)
    result = []
    for rank in sorted({row["rank"] for row in rows})[:MAX_LANES]:
        pieces = [
            Piece(name, share(a - start, end - start), max(0.3, share(b - a, end - start)), tone, tip)
            for name, a, b, tone, tip in _lives([row for row in rows if row["rank"] == rank], start, end)
        ]
        result.append(Bar(f"rank {rank}", tuple(pieces), ""))
    return result


def _lives(rows: list[Row], start: int, end: int) -> Iterable[tuple[str, int, int, int, str]]:
    for index, row in enumerate(rows):
        if row["event"] != "started":
            continue
        exit_ = next((r for r in rows[index + 1 :] if r["event"] == "exited" and r["pid"] == row["pid"]), None)
        kind = (exit_["exit_kind"] or "crashed") if exit_ is not None else ""
        until = exit_["time_ns"] if exit_ is not None else end
        name = kind.replace("_", " ") or "still running"
        tip = f"generation {row['generation']}, {clock((row['time_ns'] - start) / 1e9)} to "
        tip += f"{clock((until - start) / 1e9)}: {name}"
        yield name, row["time_ns"], until, _TONES.get(kind, _CRASH_TONE), tip


def first_crash(history: History) -> Row | None:
    """The end that explains the last restart or failure: the earliest bad one of the newest generation that has one."""
    bad = [r for r in history.workers if r["event"] == "exited" and r["exit_kind"] not in ("done", "preempted")]
    own = [row for row in bad if row["exit_kind"] != "peer_lost"] or bad
    if not own:
        return None
    newest = max(row["generation"] for row in own)
    return next(row for row in own if row["generation"] == newest)
