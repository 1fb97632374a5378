"""The JSON Schema of the job file: for editors, and the one source of what an error says is allowed."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from phalanx.job.document import KeyPath
from phalanx.job.spec import Job

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_STATUS = "status"


@functools.cache
def _whole() -> Schema:
    schema = Job.model_json_schema(by_alias=True, mode="validation")
    del schema["properties"][_STATUS]
    schema["required"] = ["apiVersion", "kind", *schema["required"]]
    definitions = schema["$defs"]
    kept = set(_references(schema["properties"], definitions))
    schema["$defs"] = {name: definitions[name] for name in sorted(kept)}
    return {"$schema": DIALECT, **schema, "title": "Phalanx training job"}


def json_schema() -> Schema:
    """Of a job file (draft 2020-12): keys in camelCase, each described. `status` is not a person's to write."""
    return dict(_whole())


def _references(part: object, definitions: Schema) -> Iterator[str]:
    """Names of all definitions reachable from `part`."""
    if isinstance(part, dict):
        if isinstance(reference := part.get("$ref"), str):
            name = reference.rpartition("/")[2]
            yield name
            yield from _references(definitions[name], definitions)
        for value in part.values():
            yield from _references(value, definitions)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value, definitions)


def _resolve(schema: Schema) -> list[Schema]:
    """The alternatives of a schema, references followed."""
    if "$ref" in schema:
        return _resolve(_whole()["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return [alternative for option in schema["anyOf"] for alternative in _resolve(option)]
    return [schema]


def _at(path: KeyPath) -> list[Schema] | None:
    """The alternatives allowed at a key path; None when the schema has no such path."""
    here = [_whole()]
    for step in path:
        following: list[Schema] = []
        for schema in here:
            if isinstance(step, str) and step in schema.get("properties", {}):
                following += _resolve(schema["properties"][step])
            elif isinstance(step, int) and schema.get("type") == "array":
                items = schema.get("prefixItems", [])
                if step < len(items):
                    following += _resolve(items[step])
                elif "items" in schema:
                    following += _resolve(schema["items"])
        if not following:
            return None
        here = following
    return here


def known(path: KeyPath) -> bool:
    """Whether a job file may have this key path."""
    return _at(path) is not None


def keys(path: KeyPath) -> list[str]:
    """The keys allowed inside the mapping at `path`, in the order of the schema."""
    return [key for schema in _at(path) or [] for key in schema.get("properties", {})]


def choices(path: KeyPath) -> list[str]:
    """The words allowed at `path`, empty when others are."""
    return [str(word) for schema in _at(path) or [] for word in _words(schema)]


def allowed(path: KeyPath) -> str:
    """What may stand at `path`, in words: "a whole number, at least 1, or auto"."""
    return " or ".join(_describe(schema) for schema in _at(path) or [])


def _words(schema: Schema) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", []))


def _describe(schema: Schema) -> str:
    if words := _words(schema):
        return ", ".join(str(word) for word in words)
    match schema.get("type"):
        case "integer":
            return "a whole number" + _bounds(schema)
        case "number":
            return "a number" + _bounds(schema)
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case "array":
            items = schema.get("prefixItems")
            return f"a list of {len(items)} values" if items else "a list"
        case "object":
            return f"keys with values ({', '.join(schema.get('properties', {}))})"
        case _:
            return ("text, not empty" if schema.get("minLength") else "text") + (
                " of 1 to 63 letters a-z, digits and '-'" if "pattern" in schema else ""
            )


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    parts = []
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    if low is not None:
        parts.append(f"at least {_number(low)}")
    if "exclusiveMinimum" in schema:
        parts.append(f"above {_number(schema['exclusiveMinimum'])}")
    if high is not None:
        parts.append(f"at most {_number(high)}")
    if "exclusiveMaximum" in schema:
        parts.append(f"below {_number(schema['exclusiveMaximum'])}")
    return " " + " and ".join(parts) if parts else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"
