"""Elastic Horovod: three workers, one killed, one added, again and again: how long the others stand, and every sample.

Each worker has a host of its own, all on this machine, which a discovery script names. One is killed with SIGKILL; the
two that are left go on, and then the script names another host instead. Measured is the time from the kill until the
last of the survivors has finished a step in their new group. All samples are accounted for, or it fails.
"""

from __future__ import annotations

import math
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from subprocess import Popen

from benchmarks.harness import Comparison, Options
from benchmarks.picture import svg
from benchmarks.ranks import ROOT, TIMEOUT_S, RankFailed
from benchmarks.samples import Account, Begin, Logs, Unaccounted, account
from phalanx.foundation import write_atomic
from phalanx.host import processes
from phalanx.pages.chart import Chart, Line, Mark, chart, smooth

WORKERS = 3
KILLS = 4
"""In one job: of rank 0, 1, 2, and 0 again; five jobs have twenty."""
SAMPLES, BATCH, COMMIT_EVERY = 5000, 16, 10
TARGET_S = 1.0
NAME = "from a kill to the survivors' next step"
LOOK_S = 0.02
SHOWN_S = 1.0
"""For the picture, how long the two that are left train alone at least, and the last group."""
DRAWN = 800
"""Points of a line at most, about one a pixel."""
NEVER_AGAIN = "86400"  # seconds for which a host that lost its worker gets no other


@dataclass(frozen=True)
class Kill:
    """`at`: just before the signal; the survivors' times: until the last of them had done so."""

    rank: int
    at: float
    began_s: float
    stepped_s: float


@dataclass(frozen=True)
class Join:
    """`at`: when a new worker began to train. `stood_s`: the longest between two steps of the others, meanwhile."""

    at: float
    stood_s: float


@dataclass(frozen=True)
class Run:
    """One job, from its logs."""

    kills: tuple[Kill, ...]
    joins: tuple[Join, ...]
    account: Account
    logs: Logs


def run(options: Options, progress: Callable[[str], None]) -> list[Comparison]:
    """One comparison of one side: `options.rounds` jobs; the picture of the first goes to `options.out`."""
    runs: list[Run] = []
    for number in range(1 if options.quick else options.rounds):
        with tempfile.TemporaryDirectory(prefix="phalanx-bench-") as scratch:
            job = Job(Path(scratch), random.Random(number), progress)
            runs.append(job.run(1 if options.quick else KILLS))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "elastic.svg").write_text(svg(curve(runs[0])))
        progress(f"elastic: the loss of the first job is drawn in {options.out / 'elastic.svg'}")
    kills = [kill for each in runs for kill in each.kills]
    settings = {"workers": WORKERS, "samples": SAMPLES, "batch": BATCH, "commit every": f"{COMMIT_EVERY} batches"}
    notes = {
        "kills": [vars(kill) for kill in kills],
        "joins": [vars(join) for each in runs for join in each.joins],
        "accounts": [_as_notes(each.account) for each in runs],
    }
    return [Comparison("elastic", "s", {NAME: [kill.stepped_s for kill in kills]}, {NAME: settings}, notes)]


class Job:
    """One run of `side_elastic` under our launcher, whose workers are killed and replaced."""

    def __init__(self, scratch: Path, draw: random.Random, progress: Callable[[str], None]) -> None:
        self._hosts_file, self._until = scratch / "hosts", scratch / "until"
        self._words = scratch / "launcher"
        self._script = scratch / "hosts.sh"
        self._hosts = [f"127.0.0.{number + 2}" for number in range(WORKERS)]
        self._named = WORKERS
        self._draw = draw
        self._progress = progress
        self._logs = Logs(scratch / "logs")
        self._logs.directory.mkdir()
        self._script.write_text(f"#!/bin/sh\nexec cat {self._hosts_file}\n")
        self._script.chmod(0o700)

    def run(self, kills: int) -> Run:
        """Raises RankFailed when the job does not go on, Unaccounted when samples are lost."""
        self._name_hosts()
        self._launcher = self._start()
        try:
            killed = [self._kill_and_add(number % WORKERS) for number in range(kills)]
            self._wait_for_step(self._group_of(WORKERS))
            time.sleep(SHOWN_S)
            self._until.touch()
            self._wait_for("the job's end", lambda: processes.reap(self._launcher) is not None)
        finally:
            processes.terminate(self._launcher, 10)
        self._logs.read()
        return self._result(killed)

    def _start(self) -> Popen[bytes]:
        argv = [sys.executable, "-m", "phalanx", "horovodrun", "-np", str(WORKERS), "--min-np", str(WORKERS - 1)]
        argv += ["--max-np", str(WORKERS), "--host-discovery-script", str(self._script)]
        argv += ["--blacklist-cooldown-range", NEVER_AGAIN, NEVER_AGAIN]
        argv += [sys.executable, str(Path(__file__).with_name("side_elastic.py")), "--log", str(self._logs.directory)]
        argv += ["--until", str(self._until), "--samples", str(SAMPLES), "--batch", str(BATCH)]
        argv += ["--commit-every", str(COMMIT_EVERY)]
        return processes.start(argv, env=os.environ | {"OMP_NUM_THREADS": "1"}, output=self._words, cwd=ROOT)

    def _kill_and_add(self, rank: int) -> tuple[Begin, float]:
        """Who was killed in a group of all, and when. Afterwards another host is named, for a successor."""
        group = self._group_of(WORKERS)
        self._wait_for_step(group)
        time.sleep(self._draw.uniform(0.5, 1.5))  # at any moment of a step, and between any two commits
        victim = self._logs.members(group)[rank]
        at = time.monotonic()
        os.kill(victim.worker, signal.SIGKILL)
        self._wait_for_step(self._group_of(WORKERS - 1))
        time.sleep(SHOWN_S)
        self._hosts.remove(victim.host)
        self._hosts.append(f"127.0.0.{self._named + 2}")
        self._named += 1
        self._name_hosts()
        return victim, at

    def _name_hosts(self) -> None:
        write_atomic(self._hosts_file, "".join(f"{host}:1\n" for host in self._hosts))

    def _group_of(self, size: int) -> float:
        """The newest group, once it has so many members and all have begun."""
        newest: list[Begin] = []

        def complete() -> bool:
            newest[:] = self._logs.members(max(self._logs.groups, default=0.0))
            return len(newest) == size == newest[0].size

        self._wait_for(f"a group of {size}", complete)
        return newest[0].group

    def _wait_for_step(self, group: float) -> None:
        """Of every member."""
        members = {begin.worker for begin in self._logs.members(group)}
        self._wait_for("a step", lambda: members <= set(_first_steps(self._logs, group)))

    def _wait_for(self, what: str, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S / 10
        self._logs.read()
        while not there():
            code = processes.reap(self._launcher)
            if code or time.monotonic() > deadline:
                how = "has not come" if code is None else f"cannot come, the launcher ended with {code}"
                words = self._words.read_text(errors="replace")
                raise RankFailed(f"elastic: {what} {how}:\n{words[-3000:]}")
            time.sleep(LOOK_S)
            self._logs.read()

    def _result(self, killed: Sequence[tuple[Begin, float]]) -> Run:
        kills = tuple(self._measured(victim, at) for victim, at in killed)
        joins = tuple(_join(self._logs, before, after) for before, after in _joined(self._logs))
        found = account(self._logs, SAMPLES)
        _refuse_too_many_undone(found, {victim.group for victim, _ in killed})
        undone = sum(found.undone.values())
        self._progress(f"elastic: {found.epochs} epochs, {found.processed:,} samples processed, {undone:,} undone")
        return Run(kills, joins, found, self._logs)

    def _measured(self, victim: Begin, at: float) -> Kill:
        survivors = {begin.worker for begin in self._logs.members(victim.group)} - {victim.worker}
        group = next(group for group in self._logs.groups if group > victim.group)
        began = {begin.worker: begin.at for begin in self._logs.members(group)}
        stepped = _first_steps(self._logs, group)
        kill = Kill(
            victim.rank,
            at,
            max(began[worker] for worker in survivors) - at,
            max(stepped[worker] for worker in survivors) - at,
        )
        self._progress(f"elastic: rank {kill.rank} killed: the others' next step after {kill.stepped_s:.3f} s")
        return kill


def _first_steps(logs: Logs, group: float) -> dict[int, float]:
    """When each worker had finished its first step in `group`."""
    first: dict[int, float] = {}
    for batch in logs.batches:
        if batch.group == group and not math.isnan(batch.stepped_at):
            first.setdefault(batch.worker, batch.stepped_at)
    return first


def _joined(logs: Logs) -> list[tuple[float, float]]:
    """Groups that somebody joined, each after the one before it."""
    return [pair for pair in pairwise(logs.groups) if len(logs.members(pair[0])) < len(logs.members(pair[1]))]


def _join(logs: Logs, before: float, after: float) -> Join:
    old = {begin.worker for begin in logs.members(before)}
    new = [begin.at for begin in logs.members(after) if begin.worker not in old]
    last = {batch.worker: batch.stepped_at for batch in logs.batches if batch.group == before}
    first = _first_steps(logs, after)
    return Join(max(new), max(first[worker] - last[worker] for worker in old))


def _refuse_too_many_undone(found: Account, broken: set[float]) -> None:
    """Raises Unaccounted. A kill costs what came after the last commit, somebody who joins costs nothing."""
    most = COMMIT_EVERY * BATCH * WORKERS
    for group, undone in found.undone.items():
        allowed = most if group in broken else 0
        if undone > allowed:
            raise Unaccounted(f"{undone} samples were undone when a group ended, and it may be {allowed}")


def curve(run: Run) -> Chart:
    """Loss by time, with all steps that were done, also those that were undone later."""
    start = min(begin.at for begin in run.logs.begins)
    steps: dict[tuple[float, tuple[int, int]], list[tuple[float, float]]] = {}
    for batch in run.logs.batches:
        if not math.isnan(batch.stepped_at):
            steps.setdefault((batch.group, batch.position), []).append((batch.stepped_at - start, batch.loss))
    points = sorted((max(at for at, _ in each), statistics.fmean(loss for _, loss in each)) for each in steps.values())
    marks = [Mark(kill.at - start, f"rank {kill.rank} killed") for kill in run.kills]
    marks += [Mark(join.at - start, "one joins") for join in run.joins]
    every = len(points) // DRAWN + 1
    lines = [
        Line("loss of a step", tuple(points[::every]), 1, faint=True),
        Line("mean of 41 steps", smooth(points, 41)[::every], 1),
    ]
    drawn = chart(
        "Loss of an elastic job of three workers",
        "mean squared error",
        lines,
        x_name="seconds",
        from_zero=True,
        marks=sorted(marks, key=lambda mark: mark.x),
    )
    assert drawn is not None
    return drawn


def report(comparisons: Sequence[Comparison]) -> str:
    """Two tables in Markdown: the times, and the samples."""
    (comparison,) = comparisons
    kills: Sequence[Mapping[str, float]] = comparison.notes["kills"]  # type: ignore[assignment]
    joins: Sequence[Mapping[str, float]] = comparison.notes["joins"]  # type: ignore[assignment]
    accounts: Sequence[Mapping[str, int]] = comparison.notes["accounts"]  # type: ignore[assignment]
    lines = [
        f"| killed | kills | survivors' new group has begun: median | {NAME}: median | p95 | longest |",
        "|---|---|---|---|---|---|",
    ]
    for rank in [*sorted({kill["rank"] for kill in kills}), None]:
        some = [kill for kill in kills if rank is None or kill["rank"] == rank]
        began = statistics.median(kill["began_s"] for kill in some)
        stepped = sorted(kill["stepped_s"] for kill in some)
        name = "any" if rank is None else f"rank {rank:g}"
        numbers = [began, statistics.median(stepped), percentile(stepped, 0.95), stepped[-1]]
        lines.append(f"| {name} | {len(some)} | " + " | ".join(f"{number:.3f} s" for number in numbers) + " |")
    p95 = percentile(comparison.values[NAME], 0.95)
    stood = [join["stood_s"] for join in joins]
    longest = f"{statistics.median(stood):.3f} s (median), {max(stood):.3f} s (longest)"
    lines += [
        "",
        f"Target: p95 at most {TARGET_S:g} s: {'reached' if p95 <= TARGET_S else 'NOT REACHED'}.",
        f"{len(stood)} workers joined; meanwhile the others stood for {longest}.",
        "",
        "| job | epochs | their samples | processed | taken back by a restore, and again | dealt twice | missing |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(accounts, 1):
        counts = [one["epochs"], one["dataset"], one["processed"], one["undone"], one["dealt twice"], 0]
        lines.append(f"| {number} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    return "\n".join(lines)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _as_notes(found: Account) -> dict[str, int]:
    return {
        "epochs": found.epochs,
        "dataset": found.epochs * found.dataset,
        "processed": found.processed,
        "undone": sum(found.undone.values()),
        "dealt twice": found.dealt_twice,
    }
