"""Child processes that fail: what their parent reads at the end of their stderr."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.foundation import PhalanxError
from phalanx.foundation.child import error_line


def child(body: str) -> subprocess.CompletedProcess[str]:
    """A process whose main is `body`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    program = (
        "import os, signal, sys\nfrom phalanx.foundation import PhalanxError, UsageError\n"
        f"from phalanx.foundation.child import run_child\ndef main():\n{lines}\nrun_child(main)\n"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_a_step_that_returns_ends_well_and_says_nothing() -> None:
    done = child("print('fine')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


@pytest.mark.parametrize(("kind", "code"), [("PhalanxError", 1), ("UsageError", 2)])
def test_an_error_is_the_last_line_and_gives_the_exit_code(kind: str, code: int) -> None:
    done = child(f"print('half', file=sys.stderr)\nraise {kind}('too small', where='a.txt', remedy='use more')")
    assert done.returncode == code
    last = json.loads(done.stderr.splitlines()[-1])
    assert last == {"message": "too small", "remedy": "use more", "where": "a.txt"}


def test_a_lack_of_memory_is_said_in_words() -> None:
    for body in ("raise MemoryError", 'raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory: 9 bytes")'):
        done = child(body)
        assert done.returncode == 1
        assert json.loads(done.stderr.splitlines()[-1])["message"] == "memory ran out"


def test_control_c_ends_a_step_without_a_traceback() -> None:
    done = child("signal.raise_signal(signal.SIGINT)")
    assert done.returncode == 130
    assert json.loads(done.stderr)["message"] == "interrupted"


def test_an_error_nobody_foresaw_keeps_its_traceback() -> None:
    done = child("raise RuntimeError('what is this')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "RuntimeError: what is this"


@given(st.text(), st.text(), st.text())
def test_any_words_fit_on_one_short_line(message: str, remedy: str, where: str) -> None:
    line = error_line(PhalanxError(message * 40, remedy=remedy * 40, where=where * 40))
    assert len(line) < 1000
    assert len(line.splitlines()) == 1
    assert set(json.loads(line)) == {"message", "remedy", "where"}
