"""Job files: YAML in, a Job or one error with every line that is wrong out; and back to YAML.

`job.document` reads the text, pydantic checks the values, `job.schema` says what is allowed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from ruamel.yaml import YAML

from phalanx.foundation import UsageError, nearest
from phalanx.job import schema
from phalanx.job.checks import check
from phalanx.job.document import MAX_BYTES, Document, JobFileError, KeyPath, Problem, load
from phalanx.job.spec import API_VERSION, Job

_START = "`phalanx job init` writes a commented first file; `phalanx job schema` lists every key"

# What Kubernetes keeps in the metadata of every object, and Phalanx does not.
_KUBERNETES = frozenset(
    (
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
    )
)


# Checks of a whole job: what is wrong, by the key path where it stands.
Checks = Callable[[Job], Iterable[tuple[KeyPath, str]]]


def read_job(path: Path | str, also: Checks | None = None) -> Job:
    """The job in a file. Raises JobFileError with every problem in it, UsageError when it cannot be read.

    `also`: checks beyond those of this room, which knows neither models nor data.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError("there is no such file", where=str(path), remedy=_START) from error
    except IsADirectoryError as error:
        raise UsageError("this is a directory; name a job file in it", where=str(path), remedy=_START) from error
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path), remedy="make it readable") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(raw) <= MAX_BYTES:
            line = raw.count(b"\n", 0, error.start) + 1
            problem = Problem(line, (), f"this is not UTF-8 text (byte {error.start:,})")
            raise JobFileError(str(path), [problem], remedy=_START) from error
        text = raw.decode("utf-8-sig", errors="replace")
    return parse_job(text, str(path), also)


def parse_job(text: str, where: str = "<job>", also: Checks | None = None) -> Job:
    """The job in a text; `where` names it in messages, `also` is as above. Raises JobFileError with every problem."""
    document = load(text, where)
    if not isinstance(document.value, dict):
        problem = Problem(1, (), "a job is keys with values (apiVersion, kind, metadata, spec)")
        raise JobFileError(where, [problem], remedy=_START)
    problems = [*_identity(document), *_foreign(document)]
    value = {key: part for key, part in document.value.items() if key != "status"}
    try:
        job = Job.model_validate_json(json.dumps(value), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        reported = {problem.path for problem in problems}
        problems += [problem for problem in _translate(error, document) if problem.path not in reported]
        raise JobFileError(where, problems, remedy=_START) from error
    said_of_job = [*check(job), *(also(job) if also else ())]
    problems += [Problem(document.line(path), path, f"{dotted(path)}: {said}") for path, said in said_of_job]
    if problems:
        raise JobFileError(where, problems, remedy=_START)
    return job


def dump_job(job: Job) -> str:
    """YAML that `parse_job` reads back to the same job: everything but its status."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(_without_none(job.model_dump(mode="json", by_alias=True, exclude={"status"})), stream)
    return stream.getvalue()


def dotted(path: KeyPath) -> str:
    """A key path as people write it: spec.training.optimizer.betas[0]."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _without_none(part: Any) -> Any:
    """Without the keys whose default is null anyway; `clip: null` means something and stays."""
    if not isinstance(part, dict):
        return part
    return {key: _without_none(value) for key, value in part.items() if value is not None or key == "clip"}


def _identity(document: Document) -> list[Problem]:
    """A file must say what it is (Python objects know it)."""
    value = cast("dict[str, object]", document.value)
    expected = {"apiVersion": API_VERSION, "kind": "TrainingJob"}
    return [
        Problem(1, (key,), f"`{key}` is missing; allowed: {word}") for key, word in expected.items() if key not in value
    ]


def _foreign(document: Document) -> list[Problem]:
    """Keys of a custom resource that are not a person's to write, or not kept."""
    value = cast("dict[str, object]", document.value)
    problems = []
    if "status" in value:
        problems.append(
            Problem(document.line(("status",)), ("status",), "`status` is written by the controller only; remove it")
        )
    metadata = value.get("metadata")
    for key in metadata if isinstance(metadata, dict) else ():
        if key in _KUBERNETES:
            path = ("metadata", key)
            said = f"`metadata.{key}` is Kubernetes' own and not kept here; remove it (kept: name, namespace, uid)"
            problems.append(Problem(document.line(path), path, said))
    return problems


def _translate(error: ValidationError, document: Document) -> list[Problem]:
    """Pydantic's errors as one sentence a key path."""
    problems: dict[KeyPath, Problem] = {}
    meant: set[KeyPath] = set()  # keys that a misspelled one stands for: not missing as well
    for detail in error.errors(include_url=False):
        path = tuple(detail["loc"])
        if detail["type"] == "extra_forbidden":
            parent, key = path[:-1], str(path[-1])
            choices = schema.keys(parent)
            guess = nearest(_camel(key), choices) or nearest(key, choices)
            said = f"unknown key `{key}`" + (f" in {dotted(parent)}" if parent else "")
            said += f"; did you mean `{guess}`?" if guess else ""
            said += f" (allowed: {', '.join(choices)})" if choices else ""
            if guess and (*parent, guess) not in document.lines:
                meant.add((*parent, guess))
        else:
            while not schema.known(path):
                path = path[:-1]
            said = _sentence(path, detail["type"], detail.get("ctx", {}), document)
        problems.setdefault(path, Problem(document.line(path), path, said))
    return [problem for path, problem in problems.items() if path not in meant]


def _sentence(path: KeyPath, kind: str, context: dict[str, Any], document: Document) -> str:
    if kind == "missing":
        return f"`{dotted(path)}` is missing; allowed: {schema.allowed(path)}"
    if kind == "value_error":
        return f"{dotted(path)}: {context['error']}"
    given = _value(document, path)
    guess = nearest(given, schema.choices(path)) if isinstance(given, str) else None
    said = f"{dotted(path)} is {_shown(given)}; allowed: {schema.allowed(path)}"
    return f"{said}; did you mean {guess}?" if guess else said


def _value(document: Document, path: KeyPath) -> object:
    here: Any = document.value
    for step in path:
        here = here[step]
    return here


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value == "":
        return 'empty text ("")'
    if isinstance(value, str):
        return f'the text "{value[:60]}{"..." if len(value) > 60 else ""}"'
    return json.dumps(value)


def _camel(key: str) -> str:
    first, *rest = key.replace("-", "_").split("_")
    return first + "".join(word.title() for word in rest)
