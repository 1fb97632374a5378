"""The JSON Schema: shape, and agreement with what the reader accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from phalanx.job import Job, dump_job, json_schema, read_job, schema, template

ROOT = Path(__file__).parents[2]


def _objects(part: object) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if "properties" in part:
            yield part
        for value in part.values():
            yield from _objects(value)
    elif isinstance(part, list):
        for value in part:
            yield from _objects(value)


def test_it_names_its_dialect_and_is_json() -> None:
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(json_schema())) == json_schema()


def test_every_key_is_camel_case_and_described_and_no_other_key_is_allowed() -> None:
    for part in _objects(json_schema()):
        assert part["additionalProperties"] is False
        for key, field in part["properties"].items():
            assert key.isalnum(), key
            assert key[0].islower()
            assert field.get("description"), f"{part['title']}.{key}"


def test_status_is_not_a_persons_to_write() -> None:
    assert "status" not in json_schema()["properties"]
    assert not {"JobStatus", "Condition"} & set(json_schema()["$defs"])


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(json_schema())
    references = {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert references == set(json_schema()["$defs"])


def test_every_key_of_a_whole_job_is_known_to_it() -> None:
    job = read_job(ROOT / "examples" / "jobs" / "demo.yaml")
    unknown = []

    def walk(value: object, path: tuple[str | int, ...]) -> None:
        if not schema.known(path):
            unknown.append(path)
        for key, below in value.items() if isinstance(value, dict) else ():
            walk(below, (*path, key))

    walk(job.model_dump(mode="json", by_alias=True, exclude={"status"}), ())
    assert unknown == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("spec", "training", "microBatch"), "a whole number at least 1 or auto"),
        (("spec", "training", "clip"), "a number above 0 or null"),
        (("spec", "data", "heldOut"), "a number above 0 and below 0.5"),
        (("spec", "training", "optimizer", "betas", 1), "a number"),
        (("spec", "security", "network"), "auto, none, segment"),
        (("spec", "workers", "mesh"), "keys with values (data, shard, tensor, pipeline) or null"),
        (("spec", "suspend"), "true or false"),
    ],
)
def test_what_is_allowed_is_said_in_words(path: tuple[str | int, ...], words: str) -> None:
    assert schema.allowed(path) == words


def test_an_independent_validator_agrees() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    jsonschema.Draft202012Validator.check_schema(json_schema())
    read = YAML(typ="safe", pure=True).load
    good = [template(), *[file.read_text() for file in (ROOT / "examples" / "jobs").glob("*.yaml")]]
    for text in good:
        assert list(validator.iter_errors(read(text))) == []
    for name in ("every-kind-of-mistake", "what-is-missing", "wrong-shapes"):
        assert list(validator.iter_errors(read((Path(__file__).parent / "cases" / f"{name}.yaml").read_text())))


def test_the_schema_and_the_type_list_the_same_keys() -> None:
    job: Job = read_job(ROOT / "examples" / "jobs" / "bert-tiny.yaml")
    assert schema.keys(("spec",)) == list(job.spec.model_dump(by_alias=True))
    assert "sequenceLength" in dump_job(job)
