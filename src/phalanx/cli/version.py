"""`phalanx version`: the numbers that a report of a problem needs. Imports none of the libraries it names."""

from __future__ import annotations

import platform
import re
from importlib import metadata

import click

import phalanx
from phalanx.cli._options import echo_json, json_option

DISTRIBUTION = "phalanx-ml"


def versions() -> dict[str, str | None]:
    """Phalanx, Python, the platform and each run-time dependency; None for one that is not installed."""
    found: dict[str, str | None] = {
        "phalanx": phalanx.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in _dependencies():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _dependencies() -> list[str]:
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from a source tree that nobody installed
        return []
    runtime = (line for line in wanted if "extra ==" not in line)
    return sorted(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in runtime)


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Print the versions of Phalanx and of what it stands on.

    \b
    Examples:
      phalanx version
      phalanx version --json
    """
    found = versions()
    if as_json:
        echo_json(found)
        return
    width = max(map(len, found))
    for name, version in found.items():
        click.echo(f"{name:<{width}}  {version or 'not installed'}")
