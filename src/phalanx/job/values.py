"""A value of this room out of the JSON file in which one process left it for another."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from phalanx.foundation import UsageError
from phalanx.job.spec import Value

_REMEDY = "run the job again"
T = TypeVar("T", bound=Value)


def read_value(path: Path, kind: type[T]) -> T:
    """The `kind` (Job, Plan, ...) that `path` holds. Raises UsageError with the first thing that is wrong."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path), remedy=_REMEDY) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        said = f"{place}: {first['msg']}" if place else first["msg"]
        raise UsageError(said, where=str(path), remedy=_REMEDY) from error
