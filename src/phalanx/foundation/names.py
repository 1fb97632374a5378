"""Names of objects: DNS labels, as Kubernetes wants them, so that a name is always a safe file name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def check_name(value: str) -> str:
    """Return `value` if it is a DNS label (RFC 1123: at most 63 of a-z, 0-9 and inner '-'), else raise ValueError."""
    if _LABEL.fullmatch(value):
        return value
    raise ValueError(
        f"{value!r} is not a usable name: 1 to 63 of the letters a-z, digits and '-', "
        "beginning and ending with a letter or digit"
    )


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None when none is like it."""
    found = difflib.get_close_matches(name.lower(), list(choices), n=1, cutoff=0.6)
    return found[0] if found else None
