"""The root of every error a person may see.

    PhalanxError            exit 1   something failed: says what, where and what to do
    └── UsageError          exit 2   the input (a file, an option, a name) is wrong

Each room derives its own small hierarchy from these. Knows nothing of terminals: `cli.main`
prints them, `--debug` adds the traceback.
"""

from __future__ import annotations

from typing import ClassVar


class PhalanxError(Exception):
    """What went wrong (`message`), where (`where`, a file, object or host) and what to do (`remedy`)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  To do: {self.remedy}" if self.remedy else text


class UsageError(PhalanxError):
    """A person's input cannot be used as it is."""

    exit_code: ClassVar[int] = 2
