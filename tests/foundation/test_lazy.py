from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from phalanx.foundation import lazy_names

ROOM = """
from phalanx.foundation import lazy_names

__all__ = ["answer", "Question"]
__getattr__ = lazy_names(__name__, {"answer": "slow", "Question": "other", "gone": "slow"})
"""


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A package of two files; `import room` finds it from here."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").write_text(ROOM)
    (tmp_path / "room" / "slow.py").write_text("answer = 42\n")
    (tmp_path / "room" / "other.py").write_text("class Question: ...\n")
    return tmp_path


def say(room: Path, program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=room, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_file_is_loaded_with_the_first_use_of_its_name(room: Path) -> None:
    loaded = "print(*sorted(name for name in sys.modules if name.startswith('room')))"
    assert say(room, f"import sys, room; {loaded}") == "room"
    assert say(room, f"import sys, room; assert room.answer == 42; {loaded}") == "room room.slow"
    assert say(room, f"import sys; from room import Question; {loaded}") == "room room.other"


def test_every_name_is_imported_by_a_star(room: Path) -> None:
    assert say(room, "from room import *; print(answer, Question.__name__)") == "42 Question"


def test_a_file_of_the_room_is_still_found(room: Path) -> None:
    assert say(room, "from room import slow; print(slow.answer)") == "42"


def test_another_name_is_missing_as_in_any_module(room: Path) -> None:
    assert say(room, "import room; print(hasattr(room, 'question'))") == "False"
    with pytest.raises(AttributeError, match=r"module 'a\.room' has no attribute 'question'"):
        lazy_names("a.room", {})("question")


def test_a_name_that_its_file_has_not_is_missing_there(room: Path) -> None:
    program = """
import room
try:
    room.gone
except AttributeError as error:
    print(error)
"""
    assert say(room, program) == "module 'room.slow' has no attribute 'gone'"


@pytest.mark.parametrize("name", ["evaluation", "models", "planning", "telemetry", "training"])
def test_every_name_that_a_room_offers_is_there(name: str) -> None:
    program = f"import phalanx.{name} as room; print([n for n in room.__all__ if not hasattr(room, n)])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
