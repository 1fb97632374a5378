"""The tables of a run of upstream's tests and examples: what passed, what failed where and why, what was left out.

Plain Markdown, which reads well in a terminal too. Runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.upstream_runs import FileRun, ScriptRun

_BAR = re.compile(r" +\d+%\|.*\[.*(?:it/s|s/it), (.*)\]$")  # of tqdm, and the numbers beside it
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"


@dataclass(frozen=True)
class Left:
    """Files that were not run, and why."""

    why: str
    paths: Sequence[str]


@dataclass(frozen=True)
class Report:
    """`again`: what a library broke, run once more without its classes named in `aside`. `known`: why tests fail."""

    files: Sequence[FileRun]
    again: Sequence[FileRun]
    scripts: Sequence[ScriptRun]
    left: Sequence[Left]
    aside: str = ""
    known: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed_by_us(self) -> bool:
        """Whether anything failed that neither a library breaks by itself nor `known` explains."""
        tests = (each for run in self.files for each in run.of("failed"))
        return (
            any(run.trouble for run in self.files)
            or any(not run.passed and not _missing(run) for run in self.scripts)
            or any(not each.by_a_library and _short(each.test) not in self.known for each in tests)
        )


def markdown(report: Report) -> str:
    parts = [_files(report), _failed(report), _skipped(report), _scripts(report), _left(report)]
    return "\n\n".join(part for part in parts if part)


def between_marks(page: str, tables: str) -> str:
    """`page` with `tables` between its marks. Raises ValueError without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines)


def _files(report: Report) -> str:
    rows = [_counts(run, f"`{run.path}`") for run in report.files]
    rows += [_counts(run, f"what a library broke of `{run.path}`, without `{report.aside}`") for run in report.again]
    return table(["tests", "ranks", "passed", "failed", "skipped", "seconds"], rows) if rows else ""


def _counts(run: FileRun, name: str) -> list[object]:
    return [name, run.ranks, *(len(run.of(each)) for each in ("passed", "failed", "skipped")), f"{run.seconds:.0f}"]


def _failed(report: Report) -> str:
    ranks: dict[tuple[str, str, str], list[str]] = {}
    for run in report.files:
        for each in run.of("failed"):
            where = f"`{run.path.rpartition('/')[2]}:{each.line}`"
            why = report.known.get(_short(each.test), f"{each.cause}: {each.reason}")
            ranks.setdefault((f"`{_short(each.test)}`", where, why), []).append(str(run.ranks))
    rows = [[test, ", ".join(on), where, why] for (test, where, why), on in ranks.items()]
    return table(["failed", "on ranks", "at", "why"], rows) if rows else ""


def _skipped(report: Report) -> str:
    tests: dict[str, dict[str, None]] = {}
    for run in report.files:
        for each in run.of("skipped"):
            reason = each.reason or "no reason given"
            tests.setdefault(reason, {})[f"`{_short(each.test)}`"] = None
    rows = [[reason, ", ".join(names)] for reason, names in sorted(tests.items(), key=lambda found: -len(found[1]))]
    return table(["skipped, in upstream's words", "tests"], rows) if rows else ""


def _short(test: str) -> str:
    return test.rpartition("::")[2]


def _scripts(report: Report) -> str:
    header = ["example", "arguments", "ranks", "", "the last that rank 0 printed"]
    return table(header, [_script(run) for run in report.scripts]) if report.scripts else ""


def _script(run: ScriptRun) -> list[object]:
    ended = f"ran, {run.seconds:.0f} s" if run.passed else "failed"
    if not run.passed and (missing := _missing(run)):
        ended, said = "not run", f"needs {missing}"
    else:
        said = _BAR.sub(r" \1", run.said) if run.passed else run.said.splitlines()[-1]
    return [f"`{run.path.removeprefix('examples/')}`", f"`{' '.join(run.arguments)}`", run.ranks, ended, said[:120]]


def _missing(run: ScriptRun) -> str:
    """The module that a script needs and that is not installed."""
    _, found, rest = run.said.partition("ModuleNotFoundError: No module named '")
    return rest.partition("'")[0] if found else ""


def _left(report: Report) -> str:
    return table(
        ["left out", "tests"], [[left.why, ", ".join(f"`{path}`" for path in left.paths)] for left in report.left]
    )
