"""What an inspection says of a dataset, compared with the documents it was made of; and what it notices."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.data.dataset import Dataset, DatasetWriter, SourceRecord
from phalanx.data.errors import DataChanged, DatasetDamaged
from phalanx.data.inspect import check_sources, inspect_dataset
from phalanx.data.learn import vocabulary_of_bytes
from phalanx.foundation import sha256_file

VOCABULARY = vocabulary_of_bytes("causal-lm")


def make(directory: Path, lengths: list[int], held: list[int] | None = None, shard_bytes: int = 1000) -> Path:
    """Documents of so many tokens, each the same letter."""
    source = directory.with_name(directory.name + ".txt")
    source.write_text("source")
    record = SourceRecord(str(source), 6, source.stat().st_mtime_ns, sha256_file(source))
    with DatasetWriter(directory, VOCABULARY, shard_bytes=shard_bytes) as writer:
        for split, many in (("train", lengths), ("held_out", held or [])):
            for number, length in enumerate(many):
                writer.add(split, np.full(length, 97 + number % 26), length)
        writer.finish(
            sources=[record],
            licence="CC0",
            excluded={"empty": (2, 0), "too long": (1, 99)},
            made={"examples": {"too long": ["a.txt@7"]}, "read": {"documents": len(lengths)}},
        )
    return directory


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=60), st.integers(8, 100))
def test_lengths_and_padding_are_those_of_the_documents(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], row: int
) -> None:
    facts = inspect_dataset(make(tmp_path_factory.mktemp("d") / "d", lengths), sequence_length=row).splits["train"]
    assert (facts.documents, facts.tokens, facts.bytes) == (len(lengths), sum(lengths), sum(lengths))
    assert facts.lengths is not None
    assert facts.slots is not None
    ordered = sorted(lengths)
    assert (facts.lengths.least, facts.lengths.most) == (ordered[0], ordered[-1])
    assert facts.lengths.mean == pytest.approx(np.mean(lengths))
    assert facts.lengths.median == np.quantile(ordered, 0.5, method="inverted_cdf")
    assert facts.lengths.ninetieth == np.quantile(ordered, 0.9, method="inverted_cdf")
    by_bin = Counter(1 << (length.bit_length() - 1) for length in lengths)
    assert {low: many for low, _, many, _ in facts.lengths.bins if many} == by_bin
    assert sum(tokens for _, _, _, tokens in facts.lengths.bins) == sum(lengths)
    rows = sum(-(-length // row) for length in lengths)
    assert facts.slots.one_a_row == pytest.approx(1 - sum(lengths) / (rows * row))
    assert facts.slots.cut == pytest.approx(sum(length > row for length in lengths) / len(lengths))
    pieces = [piece for length in lengths for piece in _pieces(length, row - 2)]
    marked = sum(pieces) + 2 * len(pieces)
    # Never worse than a piece a row, never better than the fullest rows there can be.
    assert (
        1 - marked / (-(-marked // row) * row) - 1e-9 <= facts.slots.packed <= 1 - marked / (len(pieces) * row) + 1e-9
    )


def _pieces(length: int, longest: int) -> list[int]:
    return [longest] * (length // longest) + [length % longest] * bool(length % longest)


def test_an_inspection_is_json_and_says_what_was_left_out(tmp_path: Path) -> None:
    found = inspect_dataset(make(tmp_path / "d", [5, 600, 7], [3]), samples=2)
    document = json.loads(json.dumps(found.to_json()))
    assert document["excluded"] == {
        "empty": {"documents": 2, "bytes": 0, "examples": []},
        "too long": {"documents": 1, "bytes": 99, "examples": ["a.txt@7"]},
    }
    assert document["splits"]["train"]["shards"] == 2
    assert document["sources"] == {"files": 1, "bytes": 6}
    assert [(each["number"], each["tokens"], each["text"]) for each in document["samples"]] == [
        (0, 5, "aaaaa"),
        (2, 7, "ccccccc"),
    ]
    assert not document["verified"]


def test_an_empty_held_out_part_has_no_lengths(tmp_path: Path) -> None:
    held = inspect_dataset(make(tmp_path / "d", [5])).splits["held_out"]
    assert (held.documents, held.lengths, held.slots) == (0, None, None)


def test_an_altered_byte_is_found_by_its_checksum_and_a_cut_file_at_once(tmp_path: Path) -> None:
    directory = make(tmp_path / "d", [50, 60])
    assert inspect_dataset(directory, verify=True).verified
    path = directory / "train-00000.tokens"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert not inspect_dataset(directory).verified
    with pytest.raises(DatasetDamaged, match=r"train-00000\.tokens: was altered after it was written"):
        inspect_dataset(directory, verify=True)
    path.write_bytes(data[:-2])
    with pytest.raises(DatasetDamaged, match=r"train-00000\.tokens: was cut"):
        inspect_dataset(directory)
    path.unlink()
    with pytest.raises(DatasetDamaged, match=r"train-00000\.tokens: cannot be read"):
        inspect_dataset(directory)


def test_sources_that_are_no_longer_what_they_were(tmp_path: Path) -> None:
    directory = make(tmp_path / "d", [5])
    manifest = Dataset.open(directory).manifest
    source = Path(manifest.sources[0].name)
    check_sources(manifest, hashes=True)
    then = manifest.sources[0].mtime_ns
    source.touch()
    check_sources(manifest)  # of another time, but the same bytes
    source.write_text("SOURCE")
    with pytest.raises(DataChanged, match=r"1 of 1 sources changed.*d\.txt holds other bytes"):
        check_sources(manifest)
    os.utime(source, ns=(then, then))
    check_sources(manifest)  # size and time are as they were
    with pytest.raises(DataChanged, match="holds other bytes"):
        check_sources(manifest, hashes=True)
    source.write_text("longer than it was")
    with pytest.raises(DataChanged, match="had 6 bytes, has 18"):
        check_sources(manifest)
    source.unlink()
    with pytest.raises(DataChanged, match="cannot be read"):
        check_sources(manifest)
