"""A plugin of pytest: scikit-learn's own test modules, unmodified, are given our functions in place of its own.

While a test module is imported, `sklearn.metrics.<name>` and the modules that define it hold ours, wherever both have
a function of that name; then scikit-learn has its own back, so that what it calls inside stays its own. Every call is
counted. The warning that both know is one class for the run. What was seen goes to the file named by REPORT.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sklearn.calibration
import sklearn.metrics
from sklearn.exceptions import UndefinedMetricWarning

import phalanx.metrics
from phalanx.metrics.functional import targets

REPORT = "PHALANX_SKLEARN_REPORT"
HOMES = (sklearn.metrics, sklearn.calibration)

targets.UndefinedMetricWarning = UndefinedMetricWarning  # type: ignore[misc]


def shared() -> dict[str, tuple[ModuleType, Callable[..., Any]]]:
    """The names of functions that both have, each with scikit-learn's public module and its function."""
    found = {}
    for name in phalanx.metrics.__all__:
        for home in HOMES:
            theirs = getattr(home, name, None)
            if callable(theirs) and not isinstance(theirs, type):
                found[name] = home, theirs
    return found


class Replacing:
    """For as long as a test module is imported."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.outcomes: dict[str, dict[str, str]] = {}
        self._theirs = shared()
        self._ours = {name: self._counted(name) for name in self._theirs}

    def _counted(self, name: str) -> Callable[..., Any]:
        ours = getattr(phalanx.metrics, name)

        @functools.wraps(ours)
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            return ours(*arguments, **options)

        return call

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        if not isinstance(collector, pytest.Module):
            return (yield)
        places = [
            (module, name, theirs)
            for name, (home, theirs) in self._theirs.items()
            for module in (home, importlib.import_module(theirs.__module__))
            if getattr(module, name, None) is theirs
        ]
        for module, name, _ in places:
            setattr(module, name, self._ours[name])
        try:
            return (yield)
        finally:
            for module, name, theirs in places:
                setattr(module, name, theirs)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            words = report.longreprtext if report.failed else ""
            if report.skipped:
                words = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.wasxfail)
            self.outcomes[report.nodeid] = {"outcome": report.outcome, "words": words}

    def pytest_sessionfinish(self) -> None:
        seen = {"calls": {name: self.calls[name] for name in self._ours}, "tests": self.outcomes}
        Path(os.environ[REPORT]).write_text(json.dumps(seen))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Replacing(), "phalanx-replaces-sklearn")
