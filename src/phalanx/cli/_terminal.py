"""Text that a program, a file or a model wrote, made safe and honest on a terminal.

Knows nothing of colours and widths.
"""

from __future__ import annotations

import re

# Controls but line feed and tab, and the marks that turn the direction of writing (Unicode, annex 9).
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with every character that could command a terminal shown instead of obeyed: ESC as ␛, others as �."""
    return _UNSAFE.sub(_shown, text)


def one_line(text: str) -> str:
    """The same on one line."""
    return " ".join(printable(text).split())


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's own pictures of controls
    return "\u2421" if code == 0x7F else "\ufffd"
