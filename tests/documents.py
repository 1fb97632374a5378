"""Reads the fenced examples of a Markdown file, and runs what a person would type. Knows no test framework.

An HTML comment directly above a fence says what to do with it:

    <!-- run -->          a console block whose commands are run, in order, in one directory a document
    <!-- run: slow -->    the same, left to `make test-all`
    <!-- run: fails -->   every command of it must fail
    <!-- file: NAME -->   the block is also written to NAME in that directory
    <!-- skip: WHY -->    a python or yaml block that is not executed

In a console block, lines after a command and before the next are its output; `...` stands for
anything. A block without output only has to succeed. `~` is the document's directory, with the
default home in it.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"(?:^<!--(?P<note>[^>]*)-->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
OUTPUT_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Example:
    language: str
    text: str
    line: int
    note: str = ""

    @property
    def runs(self) -> bool:
        return self.note.split(":")[0] == "run"

    @property
    def slow(self) -> bool:
        return self.runs and "slow" in self.note

    @property
    def fails(self) -> bool:
        return self.runs and "fails" in self.note

    @property
    def skipped(self) -> bool:
        return self.note.startswith("skip:")

    @property
    def file(self) -> str | None:
        """The name to write the block to; what follows a comma is a remark."""
        kind, _, name = self.note.partition(":")
        return name.split(",")[0].strip() if kind == "file" else None


@dataclass(frozen=True)
class Command:
    words: tuple[str, ...]
    output: str


def examples(text: str) -> list[Example]:
    """The fenced blocks of a document, in order."""
    return [
        Example(
            language=match["language"],
            text=match["text"],
            line=text.count("\n", 0, match.start("text")),
            note=(match["note"] or "").strip(),
        )
        for match in FENCE.finditer(text)
    ]


def commands(block: str) -> list[Command]:
    """The `$` lines of a console block with the output under each; a backslash goes on with the next line."""
    found: list[tuple[str, list[str]]] = []
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
    return [Command(tuple(shlex.split(words, comments=True)), "\n".join(output)) for words, output in found]


def as_process(words: tuple[str, ...]) -> list[str]:
    """The command as a process of this environment. Raises ValueError for one that is not ours."""
    if words[0] == "phalanx":
        return [sys.executable, "-m", "phalanx", *words[1:]]
    if words[0] == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    if words[0] in {"cat", "ls"}:
        return list(words)
    raise ValueError(f"an example may run phalanx, torchrun, cat and ls, not {words[0]!r}")


def environment(directory: Path) -> dict[str, str]:
    """Of a person whose home directory is `directory`, and for whom `python` is ours."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "HOME": str(directory), "PHALANX_HOME": str(directory / ".phalanx"), "PATH": path}


def run_console(block: Example, directory: Path) -> None:
    """Run the commands of `block`; AssertionError says which did not do what the document shows."""
    for command in commands(block.text):
        shown = f"line {block.line}: $ {' '.join(command.words)}"
        words = tuple(re.sub(r"^~(?=/|$)", str(directory), word) for word in command.words)  # as a shell does
        done = subprocess.run(
            as_process(words),
            cwd=directory,
            env=environment(directory)
            | {"COLUMNS": "120", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},  # torchrun would mention it
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # in the order in which a person sees it
            text=True,
            check=False,
        )
        assert (done.returncode != 0) == block.fails, f"{shown}\nexit {done.returncode}\n{done.stdout}"
        if command.output.strip():
            matches = doctest.OutputChecker().check_output(command.output.strip(), done.stdout.strip(), OUTPUT_OPTIONS)
            assert matches, f"{shown}\nshown in the document:\n{command.output}\nprinted:\n{done.stdout}"


def run_python(block: Example, directory: Path) -> None:
    """Run a python block in a process of its own, in `directory`."""
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=directory,
        env=environment(directory),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"line {block.line}\n{done.stderr}"
