"""Runs a test file or a script of somebody else's checkout on some ranks, unmodified, and says how each test went.

The ranks are started by a launcher's command, as a person would; a test counts as passed when it passed on all of them.
A test that hangs or ends its process is failed and the others go on. Knows no test and no script by name.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import upstream_report as report
from phalanx.host.processes import start, terminate

ROOT = Path(__file__).parent.parent
STANDINS = ROOT / "benchmarks" / "standins"
_GRACE_S = 20.0
_TAIL = 6000  # characters of output, to say why it ended
_ITSELF = " itself, "
_STACK_LINE = re.compile(r'^  File "(.+)", line (\d+) in ')


@dataclass(frozen=True)
class How:
    """What starts ranks: `[*launcher, "-np", ranks, *options, python, ...]`. `scratch` is theirs to write in."""

    launcher: Sequence[str]
    python: str
    scratch: Path
    limit_s: float = 120.0
    aside: str = ""

    def environment(self, **more: str) -> dict[str, str]:
        paths = [str(ROOT), str(STANDINS), os.environ.get("PYTHONPATH", "")]
        return os.environ | {
            "HOME": str(self.scratch),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # the checkout stays as it is
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTEST_ADDOPTS": "",
            **more,
        }

    def command(self, ranks: int, options: Sequence[str], arguments: Sequence[str]) -> list[str]:
        return [*self.launcher, "-np", str(ranks), *options, self.python, *arguments]


@dataclass(frozen=True)
class Outcome:
    """Of a test on all ranks: `passed`, `failed` or `skipped`; where it failed, the line of its file and why."""

    test: str
    outcome: str
    reason: str = ""
    line: int | None = None
    cause: str = ""

    @property
    def by_a_library(self) -> bool:
        """Whether it failed in a library that the test called without us."""
        return _ITSELF in self.cause


@dataclass(frozen=True)
class FileRun:
    """A test file on some ranks. `trouble`: what does not belong to one test."""

    path: str
    ranks: int
    outcomes: Sequence[Outcome]
    seconds: float
    trouble: Sequence[str] = field(default_factory=list)

    def of(self, outcome: str) -> list[Outcome]:
        return [each for each in self.outcomes if each.outcome == outcome]


@dataclass(frozen=True)
class ScriptRun:
    """A script on some ranks: whether all of them ended well; the last line that rank 0 printed, or why not."""

    path: str
    arguments: Sequence[str]
    ranks: int
    passed: bool
    seconds: float
    said: str


def run_file(how: How, checkout: Path, path: str, ranks: int, chosen: Sequence[str] | None = None) -> FileRun:
    """The tests of `checkout / path`, or those `chosen`.

    After a hang or a death new ranks run the rest. Were several tests under way, each of them is run alone.
    """
    began = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    trouble: list[str] = []
    batches = [chosen]
    order: list[str] = []
    while batches:
        batch = batches.pop(0)
        with tempfile.TemporaryDirectory(dir=how.scratch) as directory:
            output = _run_tests(how, checkout / path, ranks, Path(directory), batch)
            lines = [_lines(Path(directory) / f"rank-{rank}.jsonl") for rank in range(ranks)]
            stacks = [_stack(Path(directory) / f"rank-{rank}.stacks", path) for rank in range(ranks)]
        collected = _collected(lines)
        order = order or collected
        ended = [test for test in collected if all(_said(rank, "ended", test) for rank in lines)]
        stopped = [test for test in collected if any(_stopped(rank, test) for rank in lines)]
        settled = ended + (stopped if len(stopped) == 1 else [])
        outcomes |= {test: _agreed(test, lines, stacks, output.end, path) for test in settled}
        if not settled and not stopped:
            trouble.append(f"no test began: {output.end}\n{_not_collected(lines) or output.tail}")
        elif output.code and not stopped:
            trouble.append(f"outside of a test the ranks {output.end}\n{output.tail}")
        alone = [[test] for test in stopped if test not in settled]
        rest = [test for test in collected if test not in settled and test not in stopped]
        batches = [*alone, *([rest] if rest and (settled or stopped) else []), *batches]
    found = [outcomes[test] for test in order if test in outcomes]
    return FileRun(path, ranks, found, time.monotonic() - began, trouble)


def run_script(
    how: How,
    checkout: Path,
    path: str,
    ranks: int,
    arguments: Sequence[str],
    options: Sequence[str] = (),
    more: Sequence[str] = (),
) -> ScriptRun:
    """`checkout / path` with `arguments`, and with `more` that no reader needs; `options` are the launcher's."""
    began = time.monotonic()
    command = how.command(ranks, options, [str(checkout / path), *arguments, *more])
    output = _run(command, how.environment(), how.scratch, how.limit_s + report.START_S)
    seconds = time.monotonic() - began
    said = _last_words(output.tail) if output.code == 0 else f"{output.end}\n{output.tail}"
    return ScriptRun(path, [*options, *arguments], ranks, output.code == 0, seconds, said)


@dataclass(frozen=True)
class _Output:
    code: int
    end: str
    tail: str


def _run(command: Sequence[str], environment: Mapping[str, str], scratch: Path, limit_s: float) -> _Output:
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".log") as log:
        process = start(command, env=environment, cwd=scratch, output=Path(log.name))
        try:
            code = process.wait(limit_s)
            end = "ended well" if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            code, end = 1, f"had not ended after {limit_s:g} s"
        finally:
            terminate(process, _GRACE_S)
        text = log.read().decode(errors="replace").replace("\r", "\n").strip()
    return _Output(code, end, text[-_TAIL:])


def _last_words(text: str) -> str:
    """Of rank 0: a line of its output, else one of its errors, without the launcher's mark before it."""
    for stream in ("stdout", "stderr"):
        mark = f"[0]<{stream}>:"
        lines = [line.rpartition(mark)[2].strip() for line in text.splitlines() if mark in line]
        said = [line for line in lines if line]
        if said:
            return said[-1]
    return ""


def _run_tests(how: How, file: Path, ranks: int, directory: Path, chosen: Sequence[str] | None) -> _Output:
    more = {report.REPORTS: str(directory), report.LIMIT_S: str(how.limit_s), report.ASIDE: how.aside}
    if chosen is not None:
        names = directory / "tests"
        names.write_text("\n".join(chosen))
        more[report.TESTS] = str(names)
    plain = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", report.__name__, "-c", os.devnull]
    tests = 200 if chosen is None else len(chosen)
    command = how.command(ranks, [], ["-m", "pytest", *plain, "--rootdir", str(file.parent), str(file)])
    return _run(command, how.environment(**more), how.scratch, report.START_S + how.limit_s * tests)


def _lines(file: Path) -> list[dict[str, Any]]:
    """What a rank wrote; a last line that its death cut is left out."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]


def _said(lines: Sequence[Mapping[str, Any]], key: str, test: str) -> bool:
    return any(line.get(key) == test for line in lines)


def _stopped(lines: Sequence[Mapping[str, Any]], test: str) -> bool:
    """Whether a rank was in this test when it ended."""
    return _said(lines, "begun", test) and not _said(lines, "ended", test)


def _collected(lines: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    return next((line["collected"] for rank in lines for line in rank if "collected" in line), [])


def _not_collected(lines: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    return next((line["not_collected"] for rank in lines for line in rank if "not_collected" in line), "")


def _stack(file: Path, path: str) -> int | None:
    """The innermost line of the test file in which a rank hung."""
    if not file.exists():
        return None
    found = (_STACK_LINE.match(line) for line in file.read_text().splitlines())
    return next((int(match[2]) for match in found if match and match[1].endswith(path)), None)


def _agreed(
    test: str, lines: Sequence[Sequence[Mapping[str, Any]]], stacks: Sequence[int | None], end: str, path: str
) -> Outcome:
    """One outcome of what each rank says about a test; ranks that disagree have failed it."""
    said = [[line for line in rank if line.get("ended") == test] for rank in lines]
    for rank, each in enumerate(said):
        failed = next((line for line in each if line["outcome"] == "failed"), None)
        if failed is not None:
            where = "" if len(said) == 1 else f"rank {rank}: "
            return Outcome(test, "failed", where + failed["reason"], failed["line"], _cause(failed["frames"], path))
    silent = [rank for rank, each in enumerate(said) if not each]
    if silent:
        line = next((stacks[rank] for rank in silent if stacks[rank] is not None), None)
        ranks = " and ".join(str(rank) for rank in silent)
        how = "hung" if line is not None else f"died, the ranks {end}"
        return Outcome(test, "failed", f"rank {ranks} {how}", line, "no end")
    outcomes = {each[-1]["outcome"] for each in said}
    if len(outcomes) > 1:
        told = ", ".join(f"{each[-1]['outcome']} on rank {rank}" for rank, each in enumerate(said))
        return Outcome(test, "failed", told, None, "ranks disagree")
    return Outcome(test, outcomes.pop(), said[0][-1].get("reason", ""))


def _cause(frames: Sequence[Sequence[Any]], path: str) -> str:
    """Whose code raised it: the test's own, a library's that the test called without us, or ours."""
    file, line = frames[-1]
    shown = _shown(file)
    if str(file).endswith(path):
        return "the test's own check"
    if any(_shown(each).startswith("phalanx/") for each, _ in frames):
        return f"ours, {shown}:{line}"
    return f"{shown.partition('/')[0] or 'Python'}{_ITSELF}{shown}:{line}"


def _shown(file: str) -> str:
    """From the package on: the folders above it may have any name, also ours."""
    return re.sub(r"^.*/(?:site-packages|src)/", "", file)
