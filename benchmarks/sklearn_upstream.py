"""`python -m benchmarks sklearn-upstream`: scikit-learn's own tests of metrics, unmodified, against ours.

The files are those that its wheel ships. `upstream_sklearn_plugin` puts our functions in place of those they import
and counts the calls: one of ours that no test calls fails the run. The tables of docs/sklearn-tests.md come from here.
Knows which files, never which test does what.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.upstream_table import between_marks

HERE = Path(__file__).parent
FILES = (
    "sklearn/metrics/tests/test_classification.py",
    "sklearn/metrics/tests/test_ranking.py",
    "sklearn/metrics/tests/test_regression.py",
    "sklearn/metrics/tests/test_common.py",
    "sklearn/tests/test_calibration.py",
)
TIMEOUT_S = 1800

# Why a test fails, by what it says; the first that fits. What fits none is shown with its own words.
REASONS = (
    (
        r"beyond 64 bits",
        "ours refuses sums of whole weights beyond 64 bits; scikit-learn's wrap around, and the test wants that",
    ),
    (
        r"InvalidParameterError|parameter of .* must be|got an unexpected keyword",
        "the test wants scikit-learn's own check of parameters",
    ),
    (r"array.?api|array_api", "the test wants scikit-learn's array API dispatch"),
)


@dataclass(frozen=True)
class Result:
    """Of one file. `outcomes`: passed, failed and skipped; `failed`: test and last words; `skipped`: reasons."""

    file: str
    outcomes: dict[str, int]
    failed: tuple[tuple[str, str], ...]
    skipped: dict[str, int]
    calls: dict[str, int]


def main(given: Sequence[str]) -> int:
    """Exit code: 0 when all of ours were called and all that failed is explained, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sklearn-upstream", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between the marks of this file")
    parser.add_argument("--only", metavar="TEXT", help="files whose name holds it; no call is missed then")
    options = parser.parse_args(given)
    files = [file for file in FILES if options.only is None or options.only in file]
    if not files:
        parser.error(f"no file holds {options.only!r}; there are {', '.join(FILES)}")
    results = []
    for file in files:
        results.append(run_file(file))
        print(
            f"{file}: " + ", ".join(f"{count} {what}" for what, count in results[-1].outcomes.items()), file=sys.stderr
        )
    text = tables(results)
    print(text)
    if options.write is not None:
        options.write.write_text(between_marks(options.write.read_text(encoding="utf-8"), text), encoding="utf-8")
    problems = [f"{test}: {words}" for result in results for test, words in result.failed if reason(words) is None]
    if options.only is None:
        problems += [f"{name} was never called" for name in missed(results)]
    for problem in problems:
        print(f"NOT EXPLAINED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def run_file(file: str) -> Result:
    """Raises RuntimeError when the tests could not be run at all."""
    place = Path(str(metadata.distribution("scikit-learn").locate_file(file)))
    with tempfile.TemporaryDirectory(prefix="phalanx-upstream-") as scratch:
        report = Path(scratch, "report.json")
        plain = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "benchmarks.upstream_sklearn_plugin"]
        command = [sys.executable, "-m", "pytest", *plain, "-c", os.devnull, "--rootdir", scratch, str(place)]
        environment = os.environ | {
            "PHALANX_SKLEARN_REPORT": str(report),
            "PYTHONPATH": str(HERE.parent),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if not report.exists():
            raise RuntimeError(f"{file} could not be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return result(file, json.loads(report.read_text()))


def result(file: str, seen: dict[str, Any]) -> Result:
    """From what the plugin wrote down."""
    tests: dict[str, dict[str, str]] = seen["tests"]
    outcomes = Counter(test["outcome"] for test in tests.values())
    failed = [
        (name.partition("::")[2], last_words(test["words"]))
        for name, test in tests.items()
        if test["outcome"] == "failed"
    ]
    skipped = Counter(skip_reason(test["words"]) for test in tests.values() if test["outcome"] == "skipped")
    return Result(
        file=file,
        outcomes={what: outcomes[what] for what in ("passed", "failed", "skipped")},
        failed=tuple(failed),
        skipped=dict(skipped),
        calls={name: count for name, count in seen["calls"].items() if count},
    )


def last_words(words: str) -> str:
    """The lines of an error that say what it is."""
    lines = [line.removeprefix("E").strip() for line in words.splitlines() if line.startswith("E ")]
    return " ".join(lines)[:300] if lines else (words.strip().splitlines() or ["no words"])[-1][:300]


def skip_reason(words: str) -> str:
    return words.removeprefix("Skipped: ").strip()


def reason(words: str) -> str | None:
    """Why it fails, if that is known."""
    return next((why for pattern, why in REASONS if re.search(pattern, words, re.IGNORECASE)), None)


def missed(results: Sequence[Result]) -> list[str]:
    """Functions of ours that no test called, though scikit-learn has one of that name."""
    from benchmarks.upstream_sklearn_plugin import shared

    return sorted(set(shared()) - {name for each in results for name in each.calls})


def tables(results: Sequence[Result]) -> str:
    """For docs/sklearn-tests.md."""
    version = metadata.version("scikit-learn")
    lines = [
        f"scikit-learn {version}:",
        "",
        "| tests | passed | failed | skipped |",
        "| --- | --- | --- | --- |",
        *(f"| `{each.file}` | {' | '.join(str(count) for count in each.outcomes.values())} |" for each in results),
        "",
    ]
    failed = [(test, words) for each in results for test, words in each.failed]
    if failed:
        lines += ["| failed | why |", "| --- | --- |"]
        lines += [
            f"| `{_cell(test)}` | {_cell(reason(words) or 'NOT EXPLAINED: ' + words)} |" for test, words in failed
        ]
        lines.append("")
    skipped: Counter[str] = Counter()
    for each in results:
        skipped.update(each.skipped)
    if skipped:
        lines += ["| skipped | by scikit-learn's own tests, because |", "| --- | --- |"]
        lines += [f"| {count} | {_cell(why)} |" for why, count in skipped.most_common()]
        lines.append("")
    calls: Counter[str] = Counter()
    for each in results:
        calls.update(each.calls)
    lines += ["| ours | calls |", "| --- | --- |", *(f"| `{name}` | {calls[name]:,} |" for name in sorted(calls))]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
