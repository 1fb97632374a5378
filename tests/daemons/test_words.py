"""Last words of processes: of their logs, of children that failed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from phalanx.daemons.steps import failure_words
from phalanx.daemons.words import last_words, signal_name
from phalanx.foundation import PhalanxError
from phalanx.foundation.child import error_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("\n\n  \n", ""),
        ("one\ntwo\n", "two"),
        ("one\ntwo", "two"),
        ("one\n\n \n", "one"),
        ("x" * 5000 + "\n", "x" * 1000),
        ("a\n" * 100_000 + "the end\n", "the end"),
    ],
)
def test_the_last_line_that_says_something(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "log").write_text(text)
    assert last_words(tmp_path / "log") == expected


def test_bytes_that_are_no_text_and_files_that_are_not_there_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\xfe!\n")
    assert last_words(tmp_path / "log").endswith("!")
    assert last_words(tmp_path / "nothing") == ""


def test_every_signal_has_a_name() -> None:
    names = {signal_name(number) for number in range(1, signal.NSIG)}
    assert len(names) == signal.NSIG - 1
    assert {"SIGKILL", "SIGSEGV"} <= names


def test_a_child_s_json_line_becomes_its_message_place_and_remedy(tmp_path: Path) -> None:
    log = tmp_path / "plan.log"
    error = PhalanxError("nothing fits", where="job small", remedy="ask for less")
    log.write_text(f"working\n{error_line(error)}\n")
    assert failure_words(log, 1) == "job small: nothing fits (to do: ask for less)"
    log.write_text(error_line(PhalanxError("nothing fits")))
    assert failure_words(log, 1) == "nothing fits"


@pytest.mark.parametrize("line", ["ValueError: of no kind", json.dumps(["message"]), '{"message"', '{"other": 1}'])
def test_a_child_that_broke_otherwise_is_quoted_with_its_log(tmp_path: Path, line: str) -> None:
    log = tmp_path / "plan.log"
    log.write_text(f"Traceback:\n{line}\n")
    assert failure_words(log, 1) == f"{line} (log: {log})"


def test_a_child_that_was_killed_or_silent_is_said_to_be(tmp_path: Path) -> None:
    log = tmp_path / "plan.log"
    log.touch()
    assert failure_words(log, 3) == f"exit code 3 (log: {log})"
    assert failure_words(log, -9) == f"killed by SIGKILL (log: {log})"
    log.write_text("half way\n")
    assert failure_words(log, -9) == f"killed by SIGKILL, after: half way (log: {log})"
