"""Where the main thread's Python stands, in a line: the innermost frames of the user's own code.

Frames of torch and of this room are left out: that a rank is inside an operation is known already.
"""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType

import torch

FRAMES = 3

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_TORCHS = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep


def main_thread() -> str:
    """`train.py:80 in main > train.py:31 in load_batch`, innermost last; "" when there is no main thread any more."""
    return in_words(_main())


def main_frames() -> list[dict[str, str | int]]:
    """The main thread's whole stack, innermost first, as torch's flight recorder writes frames."""
    frame = _main()
    found: list[dict[str, str | int]] = []
    while frame is not None:
        code = frame.f_code
        found.append({"name": code.co_name, "filename": code.co_filename, "line": frame.f_lineno})
        frame = frame.f_back
    return found


def in_words(frame: FrameType | None) -> str:
    """The innermost FRAMES frames that are neither torch's nor ours; the innermost one when all are."""
    innermost = frame
    found: list[str] = []
    while frame is not None and len(found) < FRAMES:
        if not frame.f_code.co_filename.startswith((_OURS, _TORCHS, "<frozen ")):
            found.append(_line(frame))
        frame = frame.f_back
    if not found and innermost is not None:
        found.append(_line(innermost))
    return " > ".join(reversed(found))


def _main() -> FrameType | None:
    return sys._current_frames().get(threading.main_thread().ident or 0)


def _line(frame: FrameType) -> str:
    """The last two parts of a path tell files apart and leave room."""
    file = "/".join(frame.f_code.co_filename.rsplit("/", 2)[-2:])
    return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
