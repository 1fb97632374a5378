"""Our docstrings are plain text with `names` in backticks; this turns them into the markup that Sphinx wants.

An indented block (a picture, a table, an example) is shown as it is written; a list stays a list;
everything else is a paragraph in which only backticks mean something.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

BULLET = re.compile(r"^(\s*)([-*]|\d+\.)\s+")
SPECIAL = re.compile(r"([*|\\]|_(?=\W|$))")


def escape(line: str) -> str:
    """`line` with every character escaped that would be markup, except inside backticks."""
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else SPECIAL.sub(r"\\\1", part) for part in parts)


def paragraph(lines: list[str]) -> list[str]:
    indents = [len(line) - len(line.lstrip()) for line in lines]
    if min(indents) > 0:
        return ["::", "", *(f"    {line}" for line in lines)]
    if BULLET.match(lines[0]):
        items: list[str] = []
        for line in lines:
            if BULLET.match(line) or not items:
                items.append(f"- {escape(BULLET.sub('', line))}")
            else:
                items[-1] += f" {escape(line.strip())}"
        return items
    if any(indents):
        return ["::", "", *(f"    {line}" for line in lines)]
    return [escape(line) for line in lines]


def convert(lines: list[str]) -> list[str]:
    converted: list[str] = []
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip() and line != "\b":
            block.append(line.rstrip())
        elif block:
            converted += [*paragraph(block), ""]
            block = []
    return converted


def on_docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    del app, what, name, value, options
    lines[:] = convert(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", on_docstring)
    return {"parallel_read_safe": True}
