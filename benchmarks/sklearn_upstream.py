"""`python -m benchmarks sklearn-upstream`: scikit-learn's own tests of metrics, unmodified, against ours.

The files are those that its wheel ships, with the digests that it states. `upstream_sklearn_plugin` puts our functions
in place of those that they import and counts the calls: one of ours that no test calls fails the run. The tables of
docs/sklearn-tests.md come from here. Knows which files, never which test does what.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from benchmarks.harness import machine
from benchmarks.upstream_sklearn_table import Case, FileRun, Report, markdown
from benchmarks.upstream_table import between_marks

HERE = Path(__file__).parent
FILES = (
    "sklearn/metrics/tests/test_classification.py",
    "sklearn/metrics/tests/test_ranking.py",
    "sklearn/metrics/tests/test_regression.py",
    "sklearn/metrics/tests/test_common.py",
    "sklearn/metrics/tests/test_score_objects.py",
    "sklearn/tests/test_calibration.py",
)
LIMIT_S = 1800.0
# So that fewer tests are skipped: those of arrays that are not numpy's, and of float32.
_MORE = {"SCIPY_ARRAY_API": "1", "SKLEARN_RUN_FLOAT32_TESTS": "1"}


class NotRun(Exception):
    """The tests of a file could not be run as they should; its message says which and why."""


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks sklearn-upstream", description=__doc__)
    parser.add_argument("--only", default="", help="of the files, those whose path has this in it")
    parser.add_argument("--tests", default="", help="of their tests, those that pytest's -k chooses by this")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    parser.add_argument("--write", type=Path, help="a page whose tables, between marks, are replaced by these")
    parsed = parser.parse_args(given)
    parsed.files = [file for file in FILES if parsed.only in file]
    if not parsed.files:
        parser.error(f"--only {parsed.only}: there are {', '.join(FILES)}")
    parsed.whole = not parsed.only and not parsed.tests
    if parsed.write:
        if not parsed.whole:
            parser.error("--write is for the tables of all tests, not of those that --only or --tests choose")
        try:
            between_marks(parsed.write.read_text(), "")
        except (OSError, ValueError) as error:
            parser.error(f"--write {parsed.write}: {error}")
    return parsed


def run_file(file: str, place: Path, chosen: str = "") -> FileRun:
    """The tests of `file`, which lies at `place`, or those `chosen` by pytest's -k. Raises NotRun."""
    with tempfile.TemporaryDirectory(prefix="sklearn-upstream-") as scratch:
        seen = Path(scratch, "seen.json")
        plain = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "benchmarks.upstream_sklearn_plugin"]
        command = [sys.executable, "-m", "pytest", *plain, "-c", os.devnull, "--rootdir", scratch, "-k", chosen]
        began = time.monotonic()
        done = subprocess.run(
            [*command, str(place)],
            cwd=scratch,
            env=os.environ | _environment(seen),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if done.returncode not in (0, 1) or not seen.exists():  # 1: some failed
            raise NotRun(f"{file}: pytest ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        said = json.loads(seen.read_text())
    tests = [Case(name, **fields) for name, fields in said["tests"].items()]
    return FileRun(file, tests, said["calls"], said["not_ours"], time.monotonic() - began)


def _environment(seen: Path) -> dict[str, str]:
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return _MORE | {
        "OMP_NUM_THREADS": "1",
        "PHALANX_SKLEARN_REPORT": str(seen),
        "PYTEST_ADDOPTS": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def unmodified(file: str) -> Path:
    """Where it lies. Raises NotRun when it is not as its wheel says."""
    listed = next((each for each in metadata.files("scikit-learn") or () if str(each) == file), None)
    if listed is None or listed.hash is None:
        raise NotRun(f"{file}: not a file of the scikit-learn that is installed")
    place = Path(str(listed.locate()))
    digest = urlsafe_b64encode(hashlib.new(listed.hash.mode, place.read_bytes()).digest()).decode().rstrip("=")
    if digest != listed.hash.value:
        raise NotRun(f"{place}: changed since it was installed")
    return place


def save(report: Report, parsed: argparse.Namespace, given: Sequence[str]) -> Path:
    """All outcomes, with the digests of the files that were run, as JSON."""
    now = datetime.now(UTC)
    record = {
        "time": now.isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks sklearn-upstream", *given]),
        "machine": machine(),
        "sha256": {run.path: hashlib.sha256(unmodified(run.path).read_bytes()).hexdigest() for run in report.files},
        **asdict(report),
    }
    parsed.out.mkdir(parents=True, exist_ok=True)
    path: Path = parsed.out / f"sklearn-upstream-{now:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(given: Sequence[str]) -> int:
    """Exit code: 0 when all of ours were called and all that failed is explained, else 1."""
    parsed = arguments(given)
    runs: list[FileRun] = []
    for file in parsed.files:
        try:
            runs.append(run_file(file, unmodified(file), parsed.tests))
        except NotRun as error:
            progress(str(error))
            return 1
        counts = ", ".join(f"{len(runs[-1].of(outcome))} {outcome}" for outcome in ("passed", "failed", "skipped"))
        progress(f"{file}: {counts} in {runs[-1].seconds:.0f} s")
    report = Report(metadata.version("scikit-learn"), runs)
    tables = markdown(report)
    print(tables)
    print(save(report, parsed, given))
    if parsed.write:
        parsed.write.write_text(between_marks(parsed.write.read_text(), tables))
    problems = report.unexplained()
    if parsed.whole:
        problems += [f"{name}: called by no test" for name in report.never_called()]
    for problem in problems:
        progress(problem)
    return 1 if problems else 0
