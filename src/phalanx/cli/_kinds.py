"""The word before a name in `get job NAME`, as people know it from Kubernetes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
KINDS = ("job", "jobs", "trainingjob", "trainingjobs")


def kind_argument(command: Decorated) -> Decorated:
    """`job`; the verb gets `kind: str`."""
    return click.argument("kind", type=click.Choice(KINDS, case_sensitive=False), metavar="job")(command)
