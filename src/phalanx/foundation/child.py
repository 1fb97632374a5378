"""A step that runs as a process of its own: how it tells its parent why it failed.

The last line on stderr is `{"message": ..., "remedy": ..., "where": ...}` for a failure that a person can act
on, and the traceback's own last line for one that nobody foresaw. Knows nothing of what the step does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import NoReturn

from phalanx.foundation.errors import PhalanxError

# Whoever reads the line takes 1,000 characters of it at most, and needs the whole of it.
_MESSAGE, _REMEDY, _WHERE = 500, 250, 150
_INTERRUPTED = 130  # 128 + SIGINT, as shells say it
_OUT_OF_MEMORY = PhalanxError("memory ran out", remedy="end other programs, or ask for less: a smaller model or batch")


def run_child(main: Callable[[], None]) -> NoReturn:
    """Call `main` and end the process: 0 when it returns, else the error's exit code, with the error as the last line.

    Ends with 130 after a Ctrl-C. Errors that are neither a PhalanxError nor a lack of memory pass through.
    """
    try:
        main()
    except PhalanxError as error:
        _fail(error, error.exit_code)
    except KeyboardInterrupt:
        _fail(PhalanxError("interrupted"), _INTERRUPTED)
    except MemoryError:
        _fail(_OUT_OF_MEMORY, _OUT_OF_MEMORY.exit_code)
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # what torch's allocator says instead of MemoryError
            raise
        _fail(_OUT_OF_MEMORY, _OUT_OF_MEMORY.exit_code)
    sys.stdout.flush()
    sys.exit(0)


def error_line(error: PhalanxError) -> str:
    """The error as one line of JSON, shorter than 1,000 characters."""
    parts = {"message": (error.message, _MESSAGE), "remedy": (error.remedy, _REMEDY), "where": (error.where, _WHERE)}
    return json.dumps({name: _short(text, most) for name, (text, most) in parts.items()}, ensure_ascii=False)


def _fail(error: PhalanxError, code: int) -> NoReturn:
    sys.stdout.flush()
    print(error_line(error), file=sys.stderr, flush=True)  # noqa: T201 - the parent reads it
    sys.exit(code)


def _short(text: str, most: int) -> str:
    """On one line, and without what JSON would write longer than it is."""
    line = " ".join(text.replace("\\", "/").replace('"', "'").split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= most else f"{line[: most - 1]}…"
