"""The manifest: what is written comes back, and no altered byte goes unnoticed."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.telemetry import StoreDamaged
from phalanx.telemetry.manifest import Manifest, Part, Position, Retired, decode, encode

numbers = st.integers(0, 2**63 - 1)
parts = st.builds(Part, st.text(), numbers, numbers, st.text(), st.booleans())
manifests = st.builds(
    Manifest,
    numbers,
    numbers,
    numbers,
    st.dictionaries(st.text(), st.lists(parts).map(tuple)),
    st.dictionaries(st.text(), st.builds(Position, numbers, numbers, numbers, numbers, st.booleans())),
    st.lists(st.builds(Retired, st.text(), numbers)).map(tuple),
)
SMALL = Manifest(
    version=3,
    epoch=2,
    told=1,
    tables={"steps": (Part("parts/steps/a", 1, 2, "00"),)},
    sources={"s": Position(5, 1, 99, 0)},
    retired=(Retired("parts/steps/b", 7),),
)


@given(manifests)
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    assert decode(encode(manifest), "here") == manifest


def test_it_is_json_that_other_programs_read() -> None:
    document = json.loads(encode(SMALL))["manifest"]
    assert (document["schema"], document["version"], document["tables"]["steps"][0]["rows"]) == (1, 3, 1)


def test_every_altered_byte_and_every_cut_is_noticed() -> None:
    data = encode(SMALL)
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 0x20
        with pytest.raises(StoreDamaged, match="cut or was altered"):
            decode(bytes(altered), "here")
        with pytest.raises(StoreDamaged, match="cut or was altered"):
            decode(data[:place], "here")
    with pytest.raises(StoreDamaged, match="here"):
        decode(data + b" ", "here")


def test_a_manifest_of_a_newer_version_is_not_guessed_at() -> None:
    body = encode(SMALL)[88:-2].replace(b'"schema":1', b'"schema":2')
    digest = hashlib.sha256(body).hexdigest().encode()
    with pytest.raises(StoreDamaged, match="schema 2, this one knows 1"):
        decode(b'{"sha256":"' + digest + b'","manifest":' + body + b"}\n", "here")


def test_the_files_that_must_stay_are_those_of_parts_and_of_retired_ones() -> None:
    assert SMALL.files() == {"parts/steps/a", "parts/steps/b"}
