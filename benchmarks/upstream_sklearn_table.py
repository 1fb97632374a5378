"""The tables of a run of scikit-learn's tests: what passed, what failed where and why, what was called or skipped.

Why a test fails is told by rules over what its error says; what no rule fits is shown with its own words. Runs nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.upstream_table import table

# The first that fits the statement of the test and what its error says, over all their lines.
REASONS = (
    (
        r"the sum of the weights is beyond 64 bits",
        "whole weights are summed exactly here and refused beyond 64 bits; the test expects them to wrap around",
    ),
    (
        r"array_api_compat.*\.numpy|is <module '.*numpy",
        "wants the answer as an array of the library that was given (`array_api_dispatch`); here it is always numpy's",
    ),
    (
        r'match="make_scorer".*DID NOT RAISE',
        "a metric given as a scorer is known to scikit-learn by the name of its module, which is another one here",
    ),
)
UNEXPLAINED = "**not explained**: "


@dataclass(frozen=True)
class Case:
    """`outcome`: passed, failed or skipped; where it failed the `line` of its file and the `statement`.

    `words`: what the error says; `calls`: which of ours it called.
    """

    name: str
    outcome: str
    reason: str = ""
    line: int | None = None
    statement: str = ""
    words: str = ""
    calls: Sequence[str] = ()

    @property
    def why(self) -> str:
        """Why it failed, by the rules; else what its error says, on one line."""
        for pattern, why in REASONS:
            if re.search(pattern, f"{self.statement}\n{self.words}", re.DOTALL):
                return why
        return UNEXPLAINED + _cell(self.words or self.reason or "no words")


@dataclass(frozen=True)
class FileRun:
    """A test file. `calls`: how often each of ours was called; `not_ours`: scikit-learn's functions that it tests."""

    path: str
    tests: Sequence[Case]
    calls: dict[str, int]
    not_ours: Sequence[str]
    seconds: float

    def of(self, outcome: str) -> list[Case]:
        return [each for each in self.tests if each.outcome == outcome]


@dataclass(frozen=True)
class Report:
    version: str
    files: Sequence[FileRun] = field(default_factory=list)

    def unexplained(self) -> list[str]:
        return [
            f"{run.path}::{each.name}, line {each.line}: {each.why}"
            for run in self.files
            for each in run.of("failed")
            if each.why.startswith(UNEXPLAINED)
        ]

    def calls(self) -> Counter[str]:
        """Of each of ours, also of those never called."""
        found: Counter[str] = Counter()
        for run in self.files:
            found.update(run.calls)
        return found

    def never_called(self) -> list[str]:
        return sorted(name for name, count in self.calls().items() if not count)


def markdown(report: Report) -> str:
    parts = [_files(report), _failed(report), _calls(report), _not_ours(report), _skipped(report)]
    return "\n\n".join(part for part in parts if part)


def _files(report: Report) -> str:
    rows = []
    for run in report.files:
        passed = run.of("passed")
        with_ours = sum(bool(each.calls) for each in passed)
        failed, skipped = len(run.of("failed")), len(run.of("skipped"))
        rows.append([f"`{run.path}`", with_ours, failed, skipped, len(passed) - with_ours, f"{run.seconds:.0f}"])
    header = ["tests", "passed with ours", "failed", "skipped", "passed, call none of ours", "seconds"]
    return f"scikit-learn {report.version}:\n\n" + table(header, rows)


def _failed(report: Report) -> str:
    found = Counter(
        (f"`{_function(each)}`", f"`{run.path.rpartition('/')[2]}:{each.line}`", each.why)
        for run in report.files
        for each in run.of("failed")
    )
    rows = [[test, count, where, why] for (test, where, why), count in found.items()]
    return table(["failed", "cases", "at", "why"], rows) if rows else ""


def _calls(report: Report) -> str:
    tests = Counter(name for run in report.files for each in run.tests for name in each.calls)
    rows = [[f"`{name}`", f"{count:,}", tests[name]] for name, count in sorted(report.calls().items())]
    return table(["ours", "calls", "by tests"], rows)


def _not_ours(report: Report) -> str:
    names = sorted({name for run in report.files for name in run.not_ours})
    listed = ", ".join(f"`{name}`" for name in names)
    return f"Not replaced, since there is none of that name here: {listed}." if names else ""


def _skipped(report: Report) -> str:
    """A reason that is given for many things, each named by its first word, is one row."""
    reasons = [_cell(each.reason) or "no reason given" for run in report.files for each in run.of("skipped")]
    things: dict[str, set[str]] = {}
    for reason in reasons:
        thing, _, rest = reason.partition(" ")
        things.setdefault(rest, set()).add(thing)
    found: Counter[str] = Counter()
    for reason in reasons:
        rest = reason.partition(" ")[2]
        found[f"each of {len(things[rest])} metrics: {rest}" if len(things[rest]) > 4 else reason] += 1
    return table(["skipped, in scikit-learn's words", "tests"], found.most_common()) if found else ""


def _function(test: Case) -> str:
    return test.name.partition("[")[0]


def _cell(text: str) -> str:
    return " ".join(text.split())[:300]
