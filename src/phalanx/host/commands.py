"""Short commands that a fact is asked of."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

TIMEOUT_S = 10.0


def said_by(argv: Sequence[str]) -> tuple[str, str]:
    """(standard output, "" or why the command failed)."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        return "", f"{argv[0]} is not installed"
    except subprocess.TimeoutExpired:
        return "", f"{argv[0]} said nothing for {TIMEOUT_S:.0f} s"
    except OSError as error:
        return "", f"{argv[0]}: {error.strerror}"
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        return done.stdout.strip(), words[-1] if words else f"exit code {done.returncode}"
    return done.stdout.strip(), ""
