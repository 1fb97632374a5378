"""A manifest that is not exactly what was written is known to be damaged."""

from __future__ import annotations

import json

import pytest

from phalanx.training.errors import CheckpointDamaged
from phalanx.training.manifest import decode, encode
from tests.training.values import make_manifest


def test_it_comes_back_equal():
    assert decode(encode(make_manifest(3)), "x") == make_manifest(3)


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -2])
def test_a_torn_one_is_damaged(cut):
    with pytest.raises(CheckpointDamaged, match="torn"):
        decode(encode(make_manifest(3))[:cut], "x")


def test_an_altered_one_is_damaged():
    with pytest.raises(CheckpointDamaged, match="altered"):
        decode(encode(make_manifest(3)).replace(b'"step": 3', b'"step": 4'), "x")


@pytest.mark.parametrize("text", ["[]", "{}", '"x"', "3", '{"manifest": 1, "sha256": ""}', "\ud800"])
def test_json_that_is_no_manifest_is_damaged(text):
    with pytest.raises(CheckpointDamaged):
        decode(text.encode("utf-8", "surrogatepass"), "x")


def test_another_schema_names_both_versions():
    import hashlib

    body = json.loads(encode(make_manifest(3)))["manifest"] | {"schema_version": 99}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    with pytest.raises(CheckpointDamaged, match="schema 99, this version reads 1"):
        decode(json.dumps({"manifest": body, "sha256": digest}).encode(), "x")
