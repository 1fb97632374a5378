"""The word before a name in `get job NAME`, as people know it from Kubernetes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
KINDS = ("job", "jobs", "trainingjob", "trainingjobs")


class Kind(click.Choice[str]):
    """One of KINDS. A person who left the word out, and wrote the name at once, is told where it goes."""

    def __init__(self) -> None:
        super().__init__(KINDS, case_sensitive=False)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value.lower() not in KINDS and ctx is not None:
            self.fail(f"{value!r} is no kind of object; is it a name? `{ctx.command_path} job {value}`", param, ctx)
        return super().convert(value, param, ctx)


def kind_argument(command: Decorated) -> Decorated:
    """`job`; the verb gets `kind: str`."""
    return click.argument("kind", type=Kind(), metavar="job")(command)
