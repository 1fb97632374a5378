"""A pytest plugin for one rank of a test run: a line of JSON as each test begins and as it ends, and an end to a hang.

What is written survives the process, so whoever started the ranks can name the test in which one of them died. Loaded
as `-p benchmarks.upstream_report` into tests that know nothing of it; knows no test and imports nothing of Phalanx.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

REPORTS = "UPSTREAM_REPORTS"  # the directory for the lines of all ranks
LIMIT_S = "UPSTREAM_LIMIT_S"  # a test that takes longer hangs
TESTS = "UPSTREAM_TESTS"  # a file with the names of the tests to run; all without it
START_S = 120.0  # for a process to load what it tests, and to end
ASIDE = "UPSTREAM_ASIDE"  # `module.Class module.Class`: said to be of another module, where tests walk over subclasses


class Reporter:
    """Writes what happens to this rank's tests. A hang ends the process from a thread that needs no interpreter."""

    def __init__(self, directory: Path, rank: str, limit_s: float) -> None:
        self._lines: TextIO = (directory / f"rank-{rank}.jsonl").open("a", buffering=1)
        self._stacks: TextIO = (directory / f"rank-{rank}.stacks").open("w")
        self._limit_s = limit_s
        self._watch(START_S)

    def _watch(self, limit_s: float) -> None:
        faulthandler.dump_traceback_later(limit_s, exit=True, file=self._stacks)

    def _write(self, **fields: object) -> None:
        self._lines.write(json.dumps(fields) + "\n")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = os.environ.get(TESTS)
        if chosen is not None:
            names = set(Path(chosen).read_text().split("\n"))
            items[:] = [item for item in items if name_of(item) in names]
        self._write(collected=[name_of(item) for item in items])

    def pytest_runtest_logstart(self) -> None:
        self._watch(self._limit_s)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._write(begun=name_of(item))
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report: pytest.TestReport = yield
        if report.when == "call" or report.outcome != "passed":
            self._write(
                ended=name_of(item),
                outcome=report.outcome,
                seconds=round(report.duration, 3),
                **why(report, item, call),
            )
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(not_collected=str(report.longrepr)[-3000:])

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        # What failed is in the lines: an exit code would make the launcher kill ranks that are about to say theirs.
        session.exitstatus = pytest.ExitCode.OK
        self._watch(START_S)


def name_of(item: pytest.Item) -> str:
    """`Class::test`, the same for a file wherever it lies."""
    return item.nodeid.partition("::")[2]


def why(report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None]) -> dict[str, object]:
    """The reason of a skip; of a failure also the line of the test's file and all frames, outermost first."""
    if report.skipped:
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return {"reason": text.removeprefix("Skipped: ").removeprefix("Skipped").strip()}
    if call.excinfo is None:
        return {}
    frames = [(str(entry.path), entry.lineno + 1) for entry in call.excinfo.traceback]
    own = [line for path, line in frames if path == str(item.path)]
    message = str(call.excinfo.value).strip() or "no message"
    return {
        "reason": f"{call.excinfo.typename}: {message.splitlines()[0][:300]}",
        "line": own[-1] if own else None,
        "frames": [[path, line] for path, line in frames],
    }


def _set_aside(names: str) -> None:
    for name in names.split():
        module, _, kind = name.rpartition(".")
        getattr(importlib.import_module(module), kind).__module__ = "set_aside"


def pytest_configure(config: pytest.Config) -> None:
    rank = os.environ.get("HOROVOD_RANK", "0")
    _set_aside(os.environ.get(ASIDE, ""))
    reporter = Reporter(Path(os.environ[REPORTS]), rank, float(os.environ[LIMIT_S]))
    config.pluginmanager.register(reporter)
