"""A plugin of pytest: scikit-learn's own test modules, unmodified, get our functions in place of those they import.

While a test module is imported, `sklearn.metrics.<name>` and the modules that define it hold ours, wherever both have a
function of that name; then scikit-learn has its own back. Its own modules are loaded before, and looked at after, so
that what it calls inside stays its own. The warning that both know is one class for the run. Each call is counted, for
each test. What was seen goes to the file named by REPORT.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sklearn.calibration
import sklearn.metrics
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils.discovery import all_functions

import phalanx.metrics
from benchmarks.upstream_report import name_of, why
from phalanx.metrics.functional import targets

REPORT = "PHALANX_SKLEARN_REPORT"
HOMES = (sklearn.metrics, sklearn.calibration)
_WORDS = 4000  # characters of an error: enough for what was expected and what was found


def shared() -> dict[str, tuple[ModuleType, Callable[..., Any]]]:
    """The names of functions that both have, each with scikit-learn's public module and its function."""
    found = {}
    for name in phalanx.metrics.__all__:
        for home in HOMES:
            theirs = getattr(home, name, None)
            if callable(theirs) and not isinstance(theirs, type):
                found[name] = home, theirs
    return found


def _itself(ours: Callable[..., Any]) -> Callable[..., Any]:
    return ours


class Counted:
    """One of ours under its own name, which tells `seen` of each call; shown or pickled it is the one it calls."""

    def __init__(self, ours: Callable[..., Any], seen: Callable[[str], None]) -> None:
        functools.update_wrapper(self, ours)
        self._ours, self._seen = ours, seen

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self._seen(self._ours.__name__)
        return self._ours(*arguments, **options)

    def __repr__(self) -> str:
        return repr(self._ours)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._ours,)


class Replacing:
    """Ours in the test modules, and what their tests did with them."""

    def __init__(self) -> None:
        self._theirs = shared()
        self._ours = {name: Counted(getattr(phalanx.metrics, name), self._seen) for name in self._theirs}
        self._not_ours: set[str] = set()
        self._calls: Counter[str] = Counter()
        self._test = ""
        self._called_by: dict[str, set[str]] = {}
        self._tests: dict[str, dict[str, object]] = {}

    def _seen(self, name: str) -> None:
        self._calls[name] += 1
        self._called_by.setdefault(self._test, set()).add(name)

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

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Raises UsageError when a module of scikit-learn that is no test has kept one of ours."""
        modules = {item.getparent(pytest.Module).obj for item in session.items}  # type: ignore[union-attr]
        for module in modules:
            self._not_ours |= {name for name, value in vars(module).items() if _is_metric(value)}
        ours = {id(call) for call in self._ours.values()}
        for path, module in list(sys.modules.items()):
            if path.partition(".")[0] == "sklearn" and module not in modules:
                kept = [name for name, value in vars(module).items() if id(value) in ours]
                if kept:
                    raise pytest.UsageError(f"{path} itself has ours: {', '.join(kept)}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._test = name_of(item)
        try:
            return (yield)
        finally:
            self._test = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.when == "call" or report.outcome != "passed":
            said = why(report, item, call)
            said.pop("frames", None)
            if report.failed and call.excinfo is not None:
                own = [entry for entry in call.excinfo.traceback if str(entry.path) == str(item.path)]
                said["statement"] = str(own[-1].statement) if own else ""
                said["words"] = f"{call.excinfo.typename}: {call.excinfo.value}"[:_WORDS]
            self._tests[name_of(item)] = {"outcome": report.outcome, **said}
        return report

    def pytest_sessionfinish(self) -> None:
        for test, said in self._tests.items():
            said["calls"] = sorted(self._called_by.get(test, ()))
        seen = {
            "calls": {name: self._calls[name] for name in self._ours},
            "not_ours": sorted(self._not_ours),
            "tests": self._tests,
        }
        Path(os.environ[REPORT]).write_text(json.dumps(seen))


def _is_metric(value: object) -> bool:
    """Whether it is a public function of scikit-learn's metrics, of those that judge predictions."""
    name = getattr(value, "__name__", "")
    home = getattr(value, "__module__", "").removeprefix("sklearn.metrics.")
    return home in ("_classification", "_ranking", "_regression") and name in sklearn.metrics.__all__


def pytest_configure(config: pytest.Config) -> None:
    targets.UndefinedMetricWarning = UndefinedMetricWarning  # type: ignore[misc]  # here: others import this file too
    all_functions()  # loads every module that it has
    config.pluginmanager.register(Replacing(), "phalanx-replaces-sklearn")
